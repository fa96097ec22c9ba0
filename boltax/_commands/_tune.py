"""`boltax tune`: a study of a trainer in a user's file."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import add_traceback, whole

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_tune(commands: "Commands") -> None:
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
        metavar="FILE.py:FUNCTION|CONFIG.yaml",
        help="function from hyperparameters to a trainer; the file is loaded, as import would; "
        "or a configuration of boltax fit with a space",
    )
    tune.add_argument(
        "--space",
        metavar="SPACE",
        help='a dict as in Python, \'{"lr": ("log", 1e-4, 1e-1), "features": [64, 128]}\'; a '
        "file that holds one; or the name of one, or of a function of the trial, in FILE.py",
    )
    tune.add_argument("--epochs", metavar="N", type=whole(1), help="of each trial")
    tune.add_argument(
        "--trials", metavar="N", type=whole(1), default=64, help="in all (default: 64)"
    )
    tune.add_argument(
        "--population",
        metavar="N",
        type=whole(1),
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
    tune.add_argument("--seed", metavar="N", type=whole(0), help="of Optuna's sampler")
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
    add_traceback(tune)
    tune.set_defaults(run=_tune)


def _tune(options: argparse.Namespace) -> int:
    from boltax.tune._command import tune

    configured = None
    if options.file.endswith((".yaml", ".yml", ".json")):
        from boltax._configure._mapping import read_mapping
        from boltax._configure._study import study_of

        mapping = read_mapping(options.file)
        if options.train is not None:
            mapping.setdefault("space", {"seed": [0]})
        configured = study_of(mapping)
    print(tune(options, configured))
    return 0
