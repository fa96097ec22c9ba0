"""`boltax checkpoints`: lists, verifies and compares what a run has saved."""

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from boltax._commands._arguments import DAMAGED, check_folder

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_checkpoints(commands: "Commands") -> None:
    checkpoints = commands.add_parser(
        "checkpoints",
        help="list, verify and compare what a run has saved",
        description=(
            "Lists every checkpoint of a run and compares its files with their checksums, or "
            "describes one. Loads no model. The exit status is 1 when something is damaged."
        ),
    )
    checkpoints.add_argument(
        "path",
        metavar="RUN",
        help="folder of a run, or of one checkpoint: RUN/checkpoints/resume/400",
    )
    checkpoints.add_argument(
        "--diff", dest="other", metavar="B", help="show what differs between RUN and this one"
    )
    checkpoints.add_argument(
        "--no-verify",
        dest="is_verified",
        action="store_false",
        help="do not compare the files with their checksums",
    )
    checkpoints.set_defaults(run=_checkpoints)


def _checkpoints(options: argparse.Namespace) -> int:
    from boltax.checkpoint import _report

    for path in filter(None, (options.path, options.other)):
        check_folder(path)
    width = max(60, min(120, shutil.get_terminal_size().columns))
    if options.other is not None:
        report = _report.compare_checkpoints(options.path, options.other)
    else:
        is_one = _report.is_checkpoint(options.path)
        show = _report.describe_checkpoint if is_one else _report.list_checkpoints
        report = show(options.path, verify=options.is_verified, width=width)
    print(report.text)
    if report.is_empty:
        from boltax.checkpoint._nearby import advice_on

        print(advice_on(options.path), file=sys.stderr)
    return DAMAGED if report.is_damaged else 0
