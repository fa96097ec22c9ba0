"""The `boltax` command: reads arguments, calls the demo, prints an error as one message.

    boltax demo                         # scikit-learn's digits
    boltax demo --data fashion-mnist    # 70,000 images of clothes
    boltax --version

Knows nothing of training.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from boltax.errors import BoltaxError

FAILED = 2
INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what stands behind ``boltax``; by default the arguments of this process.

    Returns:
        The exit status: 0, or 2 for an error of boltax, which is printed without its traceback.

    Raises:
        SystemExit: for arguments that cannot be read, and after ``--help`` and ``--version``.

    Example:
        >>> main(["demo", "--data", "fashion-mnist", "--path", "nowhere"])
        2
    """
    options = _parser().parse_args(arguments)
    try:
        _demo(options)
    except BoltaxError as error:
        print(f"boltax: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("boltax: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _demo(options: argparse.Namespace) -> None:
    from boltax.demo._run import run  # scikit-learn, rich and the trainer are of no use to --help

    run(
        data=options.data,
        path=options.path,
        epochs=options.epochs,
        seed=options.seed,
        log_dir=options.log_dir,
        has_progress=options.has_progress,
    )


def _parser() -> argparse.ArgumentParser:
    from boltax import __version__

    parser = argparse.ArgumentParser(prog="boltax", description="Trains JAX models.")
    parser.add_argument("--version", action="version", version=f"boltax {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    _add_demo(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="train a ResNet on real images, here and now",
        description=(
            "Trains a ResNet with BatchNorm and augmentation on real images, tests it, and writes "
            "its curves, its confusion matrix and its worst mistakes as pictures. "
            'Needs: pip install "boltax[demo]"'
        ),
    )
    demo.add_argument(
        "--data",
        choices=("digits", "fashion-mnist"),
        default="digits",
        help="digits: 1,797 images that come with scikit-learn, less than a minute on two cores "
        "(default); fashion-mnist: 70,000 images of clothes, some minutes",
    )
    demo.add_argument(
        "--path",
        metavar="DIR",
        help="folder with the four idx files of Fashion-MNIST, gzipped or not "
        "(default: that of the Debian package dataset-fashion-mnist)",
    )
    demo.add_argument(
        "--epochs", metavar="N", type=_whole(1), help="default: what the data set needs"
    )
    demo.add_argument("--seed", metavar="N", type=_whole(0), default=42, help="default: 42")
    demo.add_argument(
        "--log-dir", metavar="DIR", default="runs", help="folder of all runs (default: runs)"
    )
    demo.add_argument(
        "--no-progress",
        dest="has_progress",
        action="store_false",
        help="show neither progress nor model summary",
    )


def _whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers that are not too small, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"received {text!r}; expected a whole number of at least {least}"
            )
        return int(text)

    return read


if __name__ == "__main__":
    sys.exit(main())
