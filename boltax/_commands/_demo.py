"""`boltax demo`: trains a ResNet on real images."""

import argparse
from typing import TYPE_CHECKING

from boltax._commands._arguments import whole

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_demo(commands: "Commands") -> None:
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
        "--epochs", metavar="N", type=whole(1), help="default: what the data set needs"
    )
    demo.add_argument("--seed", metavar="N", type=whole(0), default=42, help="default: 42")
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
