"""Optimizers beside each other, each without and with regularisation, over several seeds.

    python benchmarks/optimizers.py --data DIR                   CIFAR-10, cut down for two cores
    python benchmarks/optimizers.py --data DIR --full            ResNet-20 on all images: for a GPU
    python benchmarks/optimizers.py                              scikit-learn's digits
    python benchmarks/optimizers.py ... --weights DIR            learned optimizers, too
    python benchmarks/optimizers.py ... --report                 tables of what is stored so far
    python benchmarks/optimizers.py ... --write                  and keep table and figure

DIR has CIFAR-10 in a layout of `boltax.demo.load_cifar10`; that of `--weights` has the files
`celo.theta.state`, `celo_adam.theta.state`, `velo.params`, or some of them. Each training is stored
when it ends, so the same command goes on where it was stopped, and more seeds add to what is there.
`grid/` holds the parts, `grid/arms.py` what is compared, and where its numbers come from.
"""

import argparse
import datetime as dt
import functools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from grid import figure, tables
from grid.arms import PLAIN, SETUPS, Arm, Setup, arms
from grid.cells import Cell, load_images, recipe_of, train
from grid.times import StepTime, step_times
from suite import report

from boltax.demo import DemoData

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = [hparams["optimizer"] for hparams in PLAIN.values()]
IMAGES = ROOT / "docs" / "images"
_say = functools.partial(print, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    kind = "digits" if options.data is None else "cifar-full" if options.full else "cifar-cpu"
    setup = SETUPS[kind]
    chosen, reasons = arms(options.weights)
    chosen = [arm for arm in chosen if arm.hparams["optimizer"] in options.optimizers]
    _say("\n".join([setup.about, *(f"{name} is left out: {why}" for name, why in reasons.items())]))
    images, folder = load_images(setup, options.data), options.cells / setup.name
    if options.report:
        cells = stored(setup, chosen, options.seeds, folder)
        chosen = [arm for arm in chosen if cells[arm.name]]
    else:
        cells = run(setup, chosen, options.seeds, images, folder)
    times = step_times(setup, chosen, images, folder / "times.json")
    text = sections(setup, chosen, cells, times, list(reasons))
    print(text)
    drawn = folder / "optimizers.png"
    figure.draw(chosen, cells, times, f"{setup.about}: mean and range of the seeds", drawn)
    if options.write:
        write(setup, text, drawn)
    return 0


def run(
    setup: Setup, chosen: Sequence[Arm], seeds: int, images: DemoData, folder: Path
) -> dict[str, list[Cell]]:
    """All cells, seed by seed: so every arm meets the machine in several states."""
    cells: dict[str, list[Cell]] = {arm.name: [] for arm in chosen}
    for seed in range(seeds):
        for arm in chosen:
            started = time.monotonic()
            cell = train(setup, arm, seed, images, _file(folder, arm, seed))
            cells[arm.name].append(cell)
            found = cell.failure or f"test accuracy {cell.test['acc']:.3f}"
            _say(f"seed {seed}, {arm.label}: {found} ({time.monotonic() - started:.0f} s)")
    return cells


def stored(setup: Setup, chosen: Sequence[Arm], seeds: int, folder: Path) -> dict[str, list[Cell]]:
    """The cells that are there already."""
    found = {
        arm.name: [
            Cell.stored(_file(folder, arm, seed), recipe_of(setup, arm, seed))
            for seed in range(seeds)
        ]
        for arm in chosen
    }
    return {name: [cell for cell in cells if cell is not None] for name, cells in found.items()}


def _file(folder: Path, arm: Arm, seed: int) -> Path:
    return folder / f"{arm.name}-{seed}.json"


def sections(
    setup: Setup,
    chosen: Sequence[Arm],
    cells: tables.Cells,
    times: Mapping[str, StepTime],
    missing: Sequence[str],
) -> str:
    """The page of results, from its first paragraph on."""
    about = (
        f"{setup.about}. Mean and standard deviation over the seeds, of the last model; test "
        "images have no part in any choice. The training loss is the mean over the last epoch, on "
        "augmented images and without the L2 term. Times were measured in turns, without "
        "regularisation: a step's time is that of the fastest round, its CPU time the median, over "
        "all cores."
    )
    told = (
        "Differences of pairs with the same seed, mean and 95 % interval (Student's t); bold where "
        "the interval leaves out 0. Of twenty comparisons without any difference, one is bold."
    )
    return "\n\n".join(
        [
            about,
            *(f"{optimizer} is left out: its weights are not here." for optimizer in missing),
            tables.results(chosen, cells, times),
            "## Differences",
            told,
            tables.differences(chosen, cells),
        ]
    )


def write(setup: Setup, text: str, drawn: Path) -> None:
    """Keeps the page beside those of other days and machines, and the figure in the docs."""
    today, machine = dt.date.today().isoformat(), f"cpu{os.cpu_count()}"
    words = ["DIR" if Path(word).is_dir() else word for word in sys.argv[1:]]
    command = " ".join(["python benchmarks/optimizers.py", *words])
    head = [f"# Optimizers, {today}, {machine}", report.facts(), f"`{command}`"]
    kind = "" if setup.name == "cifar-cpu" else f"-{setup.name}"
    RESULTS.mkdir(exist_ok=True)
    page = RESULTS / f"{today}-optimizers{kind}-{machine}.md"
    page.write_text("\n\n".join([*head, text]) + "\n")
    picture = IMAGES / f"optimizers{kind}.png"
    picture.write_bytes(drawn.read_bytes())
    _say(f"written to {page} and {picture}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with CIFAR-10")
    parser.add_argument("--full", action="store_true", help="ResNet-20 on all images")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="of learned optimizers")
    parser.add_argument("--optimizers", nargs="+", choices=NAMES, default=NAMES, help="some only")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--cells", type=Path, default=Path("runs/optimizers"), help="folder of stored trainings"
    )
    parser.add_argument("--report", action="store_true", help="of what is stored; train nothing")
    parser.add_argument("--write", action="store_true", help="keep table and figure in the source")
    options = parser.parse_args(arguments)
    if options.full and options.data is None:
        parser.error("Received --full without --data; expected a folder with CIFAR-10")
    if options.seeds < 1:
        parser.error(f"Received --seeds {options.seeds}; expected at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
