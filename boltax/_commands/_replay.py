"""`boltax replay`: a step again that was not finite."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import add_traceback, check_folder
from boltax.errors import ConfigurationError

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
    replay.add_argument(
        "--trainer",
        dest="file",
        metavar="FILE.py:CLASS",
        required=True,
        help="the trainer's class; the file is loaded, as import would",
    )
    add_traceback(replay)
    replay.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    from boltax._build._construction import previewing
    from boltax._inspect._replay import replay
    from boltax._process._user_files import find_in_file

    check_folder(options.path)
    with previewing():  # trainers that the file makes leave no folder
        trainer_class = find_in_file(options.file)
    if not isinstance(trainer_class, type):
        raise ConfigurationError(
            f"Received {options.file}, which is no class; expected that of the trainer. Write "
            f"--trainer {options.file.rpartition(':')[0]}:Classifier"
        )
    print(replay(options.path, trainer_class))
    return 0
