"""`boltax export`: a run's best model as a program that needs no boltax."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import (
    add_traceback,
    add_trainer,
    check_folder,
    trainer_class,
    whole,
)

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_export(commands: "Commands") -> None:
    export = commands.add_parser(
        "export",
        help="write a trained model as a program that needs no boltax",
        description=(
            "Writes the best model of a run as StableHLO with its weights as safetensors. What "
            "comes out runs without boltax, Flax and your code; predict.py in it shows how."
        ),
    )
    export.add_argument(
        "path",
        metavar="RUN",
        help="folder of a run, or of one checkpoint: RUN/checkpoints/saved/400",
    )
    export.add_argument("folder", metavar="FOLDER", help="where the model goes: a new folder")
    add_trainer(export)
    export.add_argument(
        "--batch-size", metavar="N", type=whole(1), help="examples in each call (default: any)"
    )
    export.add_argument(
        "--platforms",
        metavar="NAMES",
        help="cpu, cuda, rocm, tpu, or several: cpu,cuda (default: this machine's)",
    )
    export.add_argument(
        "--weights",
        choices=("beside", "inside"),
        default="beside",
        help="a file beside the program (default), or also constants inside of it",
    )
    add_traceback(export)
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    check_folder(options.path)
    trainer = trainer_class(options).load_from_checkpoint(options.path)
    platforms = options.platforms and [name.strip() for name in options.platforms.split(",")]
    folder = trainer.export(
        options.folder,
        batch_size=options.batch_size,
        platforms=platforms,
        weights=options.weights,
    )
    print(f"written to {folder}: see {folder / 'README.md'}")
    return 0
