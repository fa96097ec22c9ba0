"""`boltax replay`: a step again that was not finite."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import add_traceback, add_trainer, check_folder, trainer_class

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_replay(commands: "Commands") -> None:
    replay = commands.add_parser(
        "replay",
        help="run a step again whose loss or gradient was not finite",
        description=(
            "Runs a stored step again without compilation, and names the first primitive that "
            "gives NaN or infinity, with the line of your code that calls it."
        ),
    )
    replay.add_argument(
        "path", metavar="RUN", help="folder of a run, or of one stored step: RUN/nonfinite/437"
    )
    add_trainer(replay)
    add_traceback(replay)
    replay.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    from boltax._inspect._replay import replay

    check_folder(options.path)
    print(replay(options.path, trainer_class(options)))
    return 0
