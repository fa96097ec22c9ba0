"""The `boltax` command: reads arguments, calls what they name, prints an error as one message.

    boltax demo                         # scikit-learn's digits
    boltax demo --data fashion-mnist    # 70,000 images of clothes
    boltax checkpoints runs/ResNet/version_0                            # lists and verifies them
    boltax checkpoints runs/ResNet/version_0/checkpoints/resume/400     # describes one
    boltax tune train.py:make_trainer --space '{"lr": ("log", 1e-4, 1e-1)}' --epochs 10   # a study
    boltax replay runs/ResNet/version_0 --trainer train.py:Classifier   # a step that gave NaN
    boltax preflight train.py:make_trainer --batch-size 256             # memory, FLOPs, fits?
    boltax --version

Knows nothing of training.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from boltax.errors import BoltaxError, ConfigurationError, RunDirectoryError, unknown_name

DAMAGED = DOES_NOT_FIT = FAULTY_FILE = 1
FAILED = 2
INTERRUPTED = 130  # what a shell reports for a process that Ctrl-C ended


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
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    given: list[str],
) -> argparse.Namespace:
    """The options; ends the process where there is no such command or option."""
    known = [*commands.choices]
    if given[0][:1] != "-" and given[0] not in known:
        parser.error(str(unknown_name("command", given[0], known)))
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


def _demo(options: argparse.Namespace) -> int:
    from boltax.demo._demo import run  # scikit-learn, rich and the trainer are of no use to --help

    run(
        data=options.data,
        path=options.path,
        epochs=options.epochs,
        seed=options.seed,
        log_dir=options.log_dir,
        has_progress=options.has_progress,
    )
    return 0


def _checkpoints(options: argparse.Namespace) -> int:
    from boltax.checkpoint import _report

    for path in filter(None, (options.path, options.other)):
        _check_folder(path)
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


def _check_folder(path: str) -> None:
    if not Path(path).expanduser().is_dir() and "checkpoints" not in Path(path).parts:
        from boltax.checkpoint._nearby import advice_on

        found = "a file" if Path(path).exists() else "no folder"
        raise RunDirectoryError(
            f"Received {path!r}, which is {found}; expected the folder of a run. {advice_on(path)}"
        )


def _replay(options: argparse.Namespace) -> int:
    from boltax._build._construction import previewing
    from boltax._inspect._replay import replay
    from boltax._process._user_files import find_in_file

    _check_folder(options.path)
    with previewing():  # trainers that the file makes leave no folder
        trainer_class = find_in_file(options.file)
    if not isinstance(trainer_class, type):
        raise ConfigurationError(
            f"Received {options.file}, which is no class; expected that of the trainer. Write "
            f"--trainer {options.file.rpartition(':')[0]}:Classifier"
        )
    print(replay(options.path, trainer_class))
    return 0


def _tune(options: argparse.Namespace) -> int:
    from boltax.tune._command import tune

    print(tune(options))
    return 0


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


def _parser() -> tuple[
    argparse.ArgumentParser, "argparse._SubParsersAction[argparse.ArgumentParser]"
]:
    from boltax import __version__

    parser = argparse.ArgumentParser(prog="boltax", description="Trains JAX models.")
    parser.add_argument("--version", action="version", version=f"boltax {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    _add_demo(commands)
    _add_checkpoints(commands)
    _add_replay(commands)
    _add_tune(commands)
    _add_preflight(commands)
    return parser, commands


def _add_traceback(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--traceback",
        dest="has_traceback",
        action="store_true",
        help="show the whole traceback of an error in FILE.py",
    )


def _add_checkpoints(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    _add_traceback(replay)
    replay.set_defaults(run=_replay)


def _add_tune(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    tune = commands.add_parser(
        "tune",
        help="search the hyperparameters of a trainer, many trials in one program",
        description=(
            "Searches hyperparameters with Optuna. Trials whose trainers differ in numbers alone "
            "train together, and compile once. Started several times with one --storage, the "
            "processes share the study, and take up the trials of one that dies. "
            'Needs: pip install "boltax[tune]"'
        ),
    )
    tune.add_argument(
        "file",
        metavar="FILE.py:FUNCTION",
        help="function from hyperparameters to a trainer; the file is loaded, as import would",
    )
    tune.add_argument(
        "--space",
        metavar="SPACE",
        help='a dict as in Python, \'{"lr": ("log", 1e-4, 1e-1), "features": [64, 128]}\'; a '
        "file that holds one; or the name of one, or of a function of the trial, in FILE.py",
    )
    tune.add_argument("--epochs", metavar="N", type=_whole(1), help="of each trial")
    tune.add_argument(
        "--trials", metavar="N", type=_whole(1), default=64, help="in all (default: 64)"
    )
    tune.add_argument(
        "--population",
        metavar="N",
        type=_whole(1),
        default=16,
        help="trials that train at the same time (default: 16)",
    )
    tune.add_argument(
        "--monitor",
        nargs=2,
        metavar=("METRIC", "MIN|MAX"),
        help="what is optimized (default: the monitor of the trainers)",
    )
    tune.add_argument(
        "--loaders",
        metavar="FUNCTION",
        default="make_loaders",
        help="function in FILE.py that returns train_loader, val_loader[, test_loader] "
        "(default: make_loaders)",
    )
    tune.add_argument(
        "--storage",
        metavar="PATH|URL",
        help="study.journal, sqlite:///study.db, postgresql://... (default: in memory)",
    )
    tune.add_argument("--study-name", metavar="NAME", default="study", help="default: study")
    tune.add_argument(
        "--pruner",
        choices=("median", "hyperband", "none"),
        default="median",
        help="what ends trials early (default: median)",
    )
    tune.add_argument("--seed", metavar="N", type=_whole(0), help="of Optuna's sampler")
    tune.add_argument(
        "--heartbeat",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="between two signs of life of this worker (default: 10)",
    )
    tune.add_argument(
        "--best",
        metavar="FILE.json",
        default="best.json",
        help="where the best configuration goes (default: best.json)",
    )
    tune.add_argument(
        "--train", metavar="BEST.json", help="train this configuration, in place of a study"
    )
    tune.add_argument(
        "--no-progress",
        dest="has_progress",
        action="store_false",
        help="do not show the members that train",
    )
    _add_traceback(tune)
    tune.set_defaults(run=_tune)


def _add_preflight(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        "--batch-size", metavar="N", type=_whole(1), help="default: that of the example batch"
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
        type=_positive,
        help="of the device that is asked about (default: this one's)",
    )
    _add_traceback(preflight)
    preflight.set_defaults(run=_preflight)


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
    demo.set_defaults(run=_demo)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"received {text!r}; expected a positive number")
    return number


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
