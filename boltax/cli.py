"""The `boltax` command: reads arguments, calls what they name, prints an error as one message.

    boltax fit config.yaml --optimizer_hparams.lr 3e-4      # a run from a file
    boltax fit runs/ResNet/version_0 --resume               # on with it
    boltax test runs/ResNet/version_0                       # or predict
    boltax demo                         # scikit-learn's digits
    boltax demo --data fashion-mnist    # 70,000 images of clothes
    boltax checkpoints runs/ResNet/version_0                            # lists and verifies them
    boltax checkpoints runs/ResNet/version_0/checkpoints/resume/400     # describes one
    boltax tune train.py:make_trainer --space '{"lr": ("log", 1e-4, 1e-1)}' --epochs 10   # a study
    boltax replay runs/ResNet/version_0 --trainer train.py:Classifier   # a step that gave NaN
    boltax preflight train.py:make_trainer --batch-size 256             # memory, FLOPs, fits?
    boltax runs runs --where state=finished --sort val/acc              # a table
    boltax report runs --output report.html                             # a page
    boltax export runs/ResNet/version_0 exported --trainer train.py:Classifier   # for serving
    boltax --version

Knows nothing of training. Each command has a file in `boltax/_commands`.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boltax._commands._arguments import DAMAGED, DOES_NOT_FIT, FAILED, FAULTY_FILE, INTERRUPTED
from boltax._commands._checkpoints import add_checkpoints
from boltax._commands._demo import add_demo
from boltax._commands._export import add_export
from boltax._commands._fit import add_fit
from boltax._commands._preflight import add_preflight
from boltax._commands._replay import add_replay
from boltax._commands._runs import add_report, add_runs
from boltax._commands._tune import add_tune
from boltax.errors import BoltaxError, unknown_name

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands

__all__ = ["DAMAGED", "DOES_NOT_FIT", "FAILED", "FAULTY_FILE", "INTERRUPTED", "main"]

EACH = (
    *(add_demo, add_fit, add_checkpoints, add_runs, add_report, add_export),
    *(add_replay, add_tune, add_preflight),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what stands behind ``boltax``; by default the arguments of this process.

    Returns:
        The exit status: 0; 1 when a checkpoint is damaged, a step does not fit, or the user's file
        raises; or 2 for an error of boltax, or without a command. Errors are printed without their
        traceback, with the line of the user's file that they come from.

    Raises:
        SystemExit: for arguments that cannot be read, and after ``--help`` and ``--version``.

    Example:
        >>> main(["demo", "--data", "fashion-mnist", "--path", "nowhere"])
        2
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser, commands = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return FAILED
    options = _parsed(parser, commands, given)
    try:
        return options.run(options)
    except BoltaxError as error:
        place = _place(error, options)
        print(f"boltax: {place and place + ': '}{_told(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("boltax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        place = _place(error, options)
        if not place or options.has_traceback:
            raise
        print(f"boltax: {place}: {type(error).__name__}: {_told(error)}", file=sys.stderr)
        print("With --traceback the whole of it is shown.", file=sys.stderr)
        return FAULTY_FILE


def _parsed(
    parser: argparse.ArgumentParser,
    commands: "Commands",
    given: list[str],
) -> argparse.Namespace:
    """The options; ends the process where there is no such command or option."""
    known = [*commands.choices]
    if given[0][:1] != "-" and given[0] not in known:
        parser.error(str(unknown_name("command", given[0], known)))
    command = commands.choices.get(given[0])
    if command is not None and command.get_default("is_raw"):  # it reads its arguments itself
        run, has_traceback = command.get_default("run"), "--traceback" in given
        return argparse.Namespace(run=run, given=given[1:], has_traceback=has_traceback)
    options, rest = parser.parse_known_args(given)
    if rest:
        command = commands.choices[options.command]
        names = set(re.findall(r"--[a-z][a-z-]*", command.format_help()))
        if rest[0].startswith("--"):
            command.error(str(unknown_name("option", rest[0].partition("=")[0], names)))
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _place(error: BaseException, options: argparse.Namespace) -> str:
    """File and line of the user's code at which an error arose; empty where it did not."""
    file = getattr(options, "file", None)
    if file is None:
        return ""
    from boltax._process._user_files import line_in_folder_of

    return line_in_folder_of(file.rpartition(":")[0], error)


def _told(error: BaseException) -> str:
    """The message of an error, and what was noted on its way."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    notes: Sequence[str] = getattr(error, "__notes__", ())
    return "\n".join([message, *(note for note in notes if "JAX_TRACEBACK_FILTERING" not in note)])


def _parser() -> tuple[argparse.ArgumentParser, "Commands"]:
    from boltax import __version__

    parser = argparse.ArgumentParser(prog="boltax", description="Trains JAX models.")
    parser.add_argument("--version", action="version", version=f"boltax {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for add in EACH:
        add(commands)
    return parser, commands


if __name__ == "__main__":
    sys.exit(main())
