"""`boltax preflight`: what a training step needs."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import DOES_NOT_FIT, add_traceback, positive, whole

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_preflight(commands: "Commands") -> None:
    preflight = commands.add_parser(
        "preflight",
        help="memory and operations of a training step, and whether it fits",
        description=(
            "Compiles the training step from shapes alone and says what it needs. Nothing is "
            "initialised or run. The exit status is 1 when it does not fit."
        ),
    )
    preflight.add_argument(
        "file",
        metavar="FILE.py:FUNCTION",
        help="a function without arguments that returns a trainer, or a trainer and a batch",
    )
    size = preflight.add_mutually_exclusive_group()
    size.add_argument(
        "--batch-size", metavar="N", type=whole(1), help="default: that of the example batch"
    )
    size.add_argument(
        "--find-batch-size",
        dest="is_search",
        action="store_true",
        help="look for the largest that fits",
    )
    preflight.add_argument(
        "--memory",
        metavar="GB",
        type=positive,
        help="of the device that is asked about (default: this one's)",
    )
    add_traceback(preflight)
    preflight.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    from boltax._inspect._preflight_file import preflight_file

    memory = None if options.memory is None else int(options.memory * 1e9)
    text, does_fit = preflight_file(
        options.file,
        batch_size=options.batch_size,
        memory=memory,
        is_search=options.is_search,
    )
    print(text)
    return 0 if does_fit else DOES_NOT_FIT
