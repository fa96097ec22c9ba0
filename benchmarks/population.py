"""Examples per second over all members of a population, beside the same members one by one.

    python benchmarks/population.py [--tasks T1s,T1,CNN,T3] [--members 1,4,16,64] [--rounds 5]
                                    [--steps N] [--processes] [--out FILE.md]

Sides, each warmed up first and then measured in turn, round by round, in one process:

- population: one pass of `boltax.tune.Population`, laid out as it chose by measuring;
- in turn: one epoch of a single boltax run, with its fused steps, for each member;
- by hand: one epoch of a hand-written loop, a donated state and one dispatch a step, for each.

The last two are timed for one member, compiled before, and count `members` times. With
``--processes`` whole processes are timed too, from their start to their end with imports and
compilation, without a compilation cache: one that trains a population, and one that trains a single
member, which counts `members` times. A number is the median of the rounds; in brackets, how many
times faster the population is, by the clock and by the time of the processors, which other
processes on the machine change less.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from suite.linen_models import MODELS, make_model, make_optimizer, per_example
from suite.tasks import TASKS, Task, make_data

import boltax as bx
from boltax._build._parts import renewed_parts
from boltax._loop._counters import Stage
from boltax._loop._start import start_run
from boltax._loop._trainees import Loaders
from boltax.data import ArrayLoader
from boltax.tune import Population

SMALL = {
    "CNN": Task(
        "CNN",
        "cnn",
        "CNN 8/16/16 with BatchNorm, 14x14x1, batch 32",
        (14, 14, 1),
        (8, 16, 16, 10),
        32,
        64,
        16,
        fuse=4,
        is_unrolled=True,
    ),
    "T3": Task(
        "T3",
        "lm",
        "causal transformer, d 32, 1 layer, 4 heads, 32 tokens of 256, batch 16",
        (32,),
        (256, 32, 1, 4),
        16,
        64,
        16,
    ),
}
HPARAMS = {"optimizer": "adam", "lr": 1e-3, "schedule": "constant", "gradient_clip": None}


class Classifier(bx.TrainerModule):
    """The task's model with its loss."""

    def loss_function(self, model: Any, batch: Any, train: bool) -> Any:
        loss, hits = per_example(model(batch[0]), batch[1])
        return loss, {"acc": hits}


def make_trainer(task: Task, data: Any, folder: str) -> Classifier:
    """An ordinary trainer."""
    return Classifier(
        MODELS[task.kind],
        {"sizes": task.sizes},
        HPARAMS,
        exmp_input=tuple(array[: task.batch] for array in data),
        logger_params={"base_log_dir": folder, "logger_type": "csv"},
        enable_progress_bar=False,
    )


def make_loader(task: Task, data: Any) -> ArrayLoader:
    """The training data, in another order in each epoch."""
    return ArrayLoader(data, task.batch, shuffle=True, drop_last=True)


def population(task: Task, data: Any, members: int, folder: str) -> tuple[Callable[[], None], Any]:
    """One pass of a population, as a function, and its members."""
    rates = [1e-3 * 1.02**number for number in range(members)]
    given = [{"seed": number, "lr": rate} for number, rate in enumerate(rates)]
    many = Population(make_trainer(task, data, folder), given)
    parts = renewed_parts(many.trainer)
    run = start_run(parts, Loaders(make_loader(task, data)), 10**6, None, None)
    trainees = many._prepared(parts, run, None)  # noqa: SLF001 - the loop by hand
    trainees.start()

    def one_pass() -> None:
        run.begin_epoch()
        trainees.train(None)
        trainees.validate(None)
        trainees.end_epoch(is_validated=True)
        run.count(stage=Stage.COMPLETE)
        jax.block_until_ready(trainees.states)

    return one_pass, trainees


def in_turn(task: Task, data: Any, folder: str) -> Callable[[], None]:
    """One epoch of a single run, as a function."""
    trainer, loader = make_trainer(task, data, folder), make_loader(task, data)
    trainer.init_optimizer(10**6, task.steps)

    def epoch() -> None:
        trainer.train_epoch(loader)
        jax.block_until_ready(trainer.state)

    return epoch


def by_hand(task: Task, data: Any) -> Callable[[], None]:
    """One epoch of a hand-written loop, as a function."""
    model, tx = make_model(task), make_optimizer()
    variables = dict(model.init(jax.random.key(0), jnp.asarray(data[0][: task.batch])))
    params = variables.pop("params")
    loader, state = make_loader(task, data), [(params, variables, tx.init(params))]

    def step(state: Any, batch: Any) -> tuple[Any, jax.Array]:
        params, others, opt_state = state

        def loss_of(params: Any) -> Any:
            logits, changed = model.apply(
                {"params": params, **others}, batch[0], train=True, mutable=list(others)
            )
            return per_example(logits, batch[1])[0].mean(), changed

        (loss, others), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        return (params, dict(others), opt_state), loss

    compiled, epochs = jax.jit(step, donate_argnums=0), itertools.count(1)

    def epoch() -> None:
        for batch, _ in loader.epoch(next(epochs)):
            state[0], _ = compiled(state[0], batch)
        jax.block_until_ready(state[0])

    return epoch


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds of one call: by the clock, and of all processors together."""
    began, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - began, time.process_time() - used


def compare(task: Task, numbers: list[int], rounds: int) -> list[str]:
    """The lines of the report for a task."""
    data = make_data(task)[0]
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        single, hand = in_turn(task, data, folder), by_hand(task, data)
        for _ in range(3):
            single(), hand()
        for number in numbers:
            began = time.perf_counter()
            together, run = population(task, data, number, folder)
            together()
            first = time.perf_counter() - began
            for _ in range(50):  # until it is known how steps are best sent off
                together()
                if getattr(run.steps.train, "chosen", None) is not None:
                    break
            sides = {"population": together, "in turn": single, "by hand": hand}
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, side in sides.items():
                    seconds[name].append(timed(side))
            lines.append(_line(task, number, run.size, seconds, first))
            print(task.name, lines[-1], flush=True)
    return lines


def _line(
    task: Task, number: int, size: int, seconds: dict[str, list[tuple[float, float]]], first: float
) -> str:
    """The row of the report for a number of members."""
    middle = {
        name: [statistics.median(values) for values in zip(*rounds, strict=True)]
        for name, rounds in seconds.items()
    }
    (clock, used), total = middle.pop("population"), task.steps * task.batch * number
    cells = [f"{number}", f"{size}", f"{total / clock:,.0f}"]
    for alone_clock, alone_used in middle.values():
        ratios = f"{alone_clock * number / clock:.2f}; {alone_used * number / used:.2f}"
        cells.append(f"{total / alone_clock / number:,.0f} ({ratios})")
    return f"| {' | '.join([*cells, f'{first:.1f}'])} |"


def whole_process(task: Task, members: int, steps: int, epochs: int) -> float:
    """Seconds of a process that trains so many members, from its start to its end."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["BOLTAX_COMPILATION_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as folder:
        arguments = (task.name, str(members), str(steps), str(epochs), folder)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, __file__, "--whole", *arguments],
            env={**environment, "JAX_ENABLE_COMPILATION_CACHE": "false"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - began


def train_whole(name: str, members: str, steps: str, epochs: str, folder: str) -> None:
    """What such a process does."""
    task = {**TASKS, **SMALL}[name].shortened(int(steps))
    data = make_data(task)[0]
    trainer, loader = make_trainer(task, data, folder), make_loader(task, data)
    if int(members) == 0:
        trainer.train_model(loader, num_epochs=int(epochs))
    else:
        given = [{"seed": number, "lr": 1e-3} for number in range(int(members))]
        Population(trainer, given).train_model(loader, num_epochs=int(epochs))


def _section(task: Task, options: argparse.Namespace, lines: list[str]) -> list[str]:
    about = f"{task.steps} steps a pass; examples/s over all members, median of {options.rounds}"
    head = "| members | in one program | population | in turn | by hand, one dispatch a step "
    return [
        f"## {task.name}: {task.about}",
        "",
        f"{about} rounds.",
        "",
        f"{head}| first pass, s |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
    ]


def _processes(task: Task, members: int, epochs: int) -> list[str]:
    alone = whole_process(task, 0, task.steps, epochs)
    together = whole_process(task, members, task.steps, epochs)
    line = (
        f"Whole processes, {epochs} epochs: a population of {members} {together:.1f} s; one single "
        f"run {alone:.1f} s, {members} of them {alone * members:.0f} s "
        f"({alone * members / together:.1f} times as long)."
    )
    print(line, flush=True)
    return [line, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="T1s,T1,CNN,T3")
    parser.add_argument("--members", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--whole", nargs=5)
    options = parser.parse_args()
    if options.whole:
        train_whole(*options.whole)
        return
    numbers, report = [int(n) for n in options.members.split(",")], list[str]()
    for name in options.tasks.split(","):
        task = {**TASKS, **SMALL}[name].shortened(options.steps)
        report += _section(task, options, compare(task, numbers, options.rounds))
        if options.processes:
            report += _processes(task, numbers[-1], options.epochs)
    text = "\n".join(report)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
