"""boltax beside hand-written loops and other libraries: the same training, timed in alternation.

    python benchmarks/speed.py                                   T1 and T1s, all sides
    python benchmarks/speed.py --tasks T3 --sides hand,boltax,torch,hf --rounds 3
    python benchmarks/speed.py --data torch                      read through a DataLoader; or grain
    python benchmarks/speed.py --first-step                      from the imports to the first step
    python benchmarks/speed.py --long                            100,000 steps of a tiny model
    python benchmarks/speed.py ... --python kauldron=other/bin/python   installed elsewhere
    python benchmarks/speed.py ... --write                       and keep it in benchmarks/results

Each side has a process of its own; they are warmed up, and then take turns. Ratios are to `hand`,
the loop written by hand that donates its state and never waits: above 1 is faster. `suite/` holds
the parts, `suite/tasks.py` the tasks, `suite/worker.py` the list of sides.

A side that is not installed is left out. The packages of the others, beside boltax with its extras:

    pip install torch keras grain lightning transformers accelerate tqdm

Kauldron brings TensorFlow, pandas and Matplotlib. Keras and Lightning import these where they find
them, so it gets an environment of its own. Where pip searches long for versions that agree, take
the versions that are there and add what is missing:

    python -m venv other
    other/bin/pip install . grain h5py keras optree requests rich scikit-learn tqdm
    other/bin/pip install --no-deps kauldron \
        astunparse chex clu cycler einops flatbuffers fonttools gast google-pasta graphviz grpcio \
        immutabledict ipython jaxtyping kiwisolver lark matplotlib mediapy ml_collections pandas \
        pillow promise pyparsing python-dateutil six tabulate tensorboard tensorflow-cpu \
        tensorflow-datasets tensorflow-metadata termcolor toml toolz traitlets typeguard \
        wadler-lindig wrapt
"""

import argparse
import datetime as dt
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite import first_step, long_run, report
from suite.driver import time_sides
from suite.tasks import TASKS
from suite.worker import SIDES

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    options = _options()
    sections: list[str] = []
    for found in _sections(options):
        print(found, end="\n\n", flush=True)
        sections.append(found)
    if options.write:
        write(_kind(options), sections)
    return 0


def _sections(options: argparse.Namespace) -> Iterator[str]:
    if options.long:
        about = f"## {options.long:,} steps of {long_run.TASK}: {TASKS[long_run.TASK].about}"
        yield f"{about}\n\n{long_run.table(options.long)}"
    for name in options.tasks if options.first_step else ():
        about = f"## {name}: {TASKS[name].about}: first step"
        sides = options.sides or ["hand", "boltax"]
        yield f"{about}\n\n{first_step.table(name, sides, repeats=options.rounds, say=_say)}"
    for name in () if options.first_step or options.long else options.tasks:
        yield _comparison(name, options)


def _comparison(name: str, options: argparse.Namespace) -> str:
    task = TASKS[name].shortened(options.steps)
    results = time_sides(
        options.sides or list(SIDES),
        name,
        rounds=options.rounds,
        data=options.data,
        steps=options.steps,
        patience=options.patience,
        pythons=dict(options.python),
        say=_say,
    )
    about = (
        f"Data: {options.data}. {options.rounds} rounds, each {task.steps} steps and "
        f"{task.eval_batches * task.batch} examples to evaluate. {report.other_work(results)}"
    )
    return "\n\n".join([f"## {name}: {task.about}", about, report.table(task, results)])


def _kind(options: argparse.Namespace) -> str:
    """What was measured, for the name of the file: other measurements of a day stay."""
    if options.long:
        return "long"
    names = "-".join(options.tasks)
    return f"first-step-{names}" if options.first_step else f"speed-{names}-{options.data}"


def write(kind: str, sections: Sequence[str]) -> None:
    """Keeps the tables beside those of other days and machines."""
    machine, today = f"cpu{os.cpu_count()}", dt.date.today().isoformat()
    command = " ".join(["python benchmarks/speed.py", *sys.argv[1:]])
    head = [f"# Speed, {today}, {machine}", report.facts(), f"`{command}`"]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{today}-{kind}-{machine}.md"
    path.write_text("\n\n".join([*head, *sections]) + "\n")
    print(f"written to {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="boltax beside its peers")
    parser.add_argument("--tasks", type=_names, default=["T1", "T1s"], help=", ".join(TASKS))
    parser.add_argument("--sides", type=_names, default=[], help=f"all of {', '.join(SIDES)}")
    parser.add_argument("--rounds", type=int, default=5, help="timed ones")
    parser.add_argument("--data", choices=("memory", "torch", "grain"), default="memory")
    parser.add_argument("--steps", type=int, help="in a round, instead of the task's own number")
    parser.add_argument("--python", type=_pair, action="append", default=[], help="SIDE=PYTHON")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds to wait for quiet")
    parser.add_argument("--first-step", action="store_true", help="time starts instead")
    parser.add_argument(
        "--long",
        type=int,
        nargs="?",
        const=100_000,
        metavar="STEPS",
        help="time a long run instead",
    )
    parser.add_argument("--write", action="store_true", help="keep it in benchmarks/results")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"Received {sorted(unknown)}; expected some of {', '.join(TASKS)}")
    if unknown := {side for side in options.sides if ":" not in side} - set(SIDES):
        parser.error(f"Received {sorted(unknown)}; expected some of {', '.join(SIDES)}")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _pair(text: str) -> tuple[str, str]:
    side, _, python = text.partition("=")
    return side, str(Path(python).absolute())


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
