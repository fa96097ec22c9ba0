"""The loop of a population, in pseudocode.

    states of all members, in groups                    `_states`
    while a member has epochs left:                     one pass over the training data
        for each chunk of batches:
            for each group: state, metrics = step(state, metrics, batch)    compiled, asynchronous;
                                                                            on a CPU side by side
            save when due; leave on a signal
        metrics of each member; one whose steps were not finite ends
        validation, each example once for each member; schedules that follow it are told
        best variables of each member are kept, on the device
        members that have trained for all their epochs end
        records -> loggers
        scheduler: Stop, Replace, Overwrite             `_requests`
        groups that nobody needs any more are given up
        save when due
    best models of all members -> members/<number>/checkpoints/best

Data goes one way, as in a run of one trainer. A step is that of a single run, on a state with one
more axis; or the very step of a single run, for one member after the other.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Chunk, Mode, Plan
from boltax._base._monitor import is_better
from boltax._loop._evaluate import draw
from boltax._step._bodies import Evaluation, Training
from boltax._step._ema import evaluated
from boltax._step._fused import MOST_STEPS
from boltax._step._state import evaluations_of, variables_of
from boltax.data._cursor import consumed
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source
from boltax.errors import TrainingError, noting
from boltax.metrics._accumulate import Metrics, SavedMetrics, compute, rebuilt
from boltax.optim._plateau import check_metrics, next_evaluations
from boltax.tune._layout import decide, shrink
from boltax.tune._memory import check_wanted
from boltax.tune._requests import carry_out
from boltax.tune._run import EMPTY, Layout, PopulationRun, monitors
from boltax.tune._saved import is_save_due, save_population, write_best
from boltax.tune._schedulers import Member, Status, as_requests
from boltax.tune._used import check_used


def train(run: PopulationRun) -> Generator[PopulationRun]:
    """Trains until no member has epochs left; yields after each pass."""
    while run.training or not run.is_trained:
        if run.is_trained:
            run.epoch += 1
            run.is_trained, run.metrics = False, None
        _steps(run)
        _end_epoch(run)
        yield run
    for member in run.members:
        write_best(run, member)
    run.saver.wait()


def _steps(run: PopulationRun) -> None:
    """The training steps of a pass."""
    left = _batches_left(run)
    for drawn in _chunks(run, left):
        if not run.step:
            check_used(run, drawn.form)
        chunk = decide(run, drawn) if run.layout is None else drawn
        if run.metrics is None or isinstance(run.metrics[0], SavedMetrics):
            run.metrics = _empty(run, chunk, run.metrics)
        metrics, chunks = run.metrics, [run.batches.on(chunk, device) for device in run.used]
        if not run.is_checked:
            if chunk.plan.mode is Mode.SINGLE:
                run.steps.train.precompile((), Training(run.states[0], metrics[0]), chunks[0].feed)
            check_wanted(run, run.layout or Layout(1), chunk)
        run.is_saveable = False
        with run.ledger.spent("device"):
            run.send_each(partial(_step, run, metrics, chunks), is_timed=_is_timed(chunk))
        run.step += chunk.steps
        run.cursor, run.is_saveable = chunk.cursors[-1], True
        if run.signals.received is not None or is_save_due(run):
            save_population(run)
        run.signals.poll()


def _step(run: PopulationRun, metrics: list[Any], chunks: Sequence[Chunk], index: int) -> None:
    """Sends off steps of a group."""
    step, carry = run.steps_of(index).train, Training(run.states[index], metrics[index])
    own = chunks[index % len(chunks)]
    (run.states[index], metrics[index]), _ = step((), carry, own)


def _is_timed(chunk: Chunk) -> bool:
    """Whether the steps of a chunk are waited for, to learn how they are best sent off."""
    return chunk.plan.window is not None


def _chunks(run: PopulationRun, left: int | None) -> Generator[Chunk]:
    """The batches of a pass, in chunks as the step wants them."""
    is_first, run.is_resumed = run.is_resumed, False
    done = consumed(run.cursor, run.epoch)
    begin, place = run.step, run.cursor if is_first or done else None
    every = run.save_trigger.steps
    if run.layout is not None:
        run.steps.train.restart()

    def plan(drawn: int) -> Plan:
        if run.layout is None:
            return Plan()  # the first batch shows how members are best laid out
        distance = MOST_STEPS if left is None else max(left - drawn, 1)
        if every:
            distance = min(distance, every - (begin + drawn) % every)
        passes = max(run.passes_left - 1, 0)
        remaining = None if left is None else (left - drawn + passes * left) * len(run.states)
        return run.steps.train.plan(distance, remaining)

    yield from prefetch_to_device(
        run.source.epoch(run.epoch, place),
        plan,
        limit=left,
        depth=run.trainer.loop.prefetch if run.layout is not None else 1,
        copy=not run.source.owns_batches,
        is_compiled=True,
    )


def _batches_left(run: PopulationRun) -> int | None:
    planned = run.source.num_batches
    return None if planned is None else max(planned - consumed(run.cursor, run.epoch), 0)


def _empty(
    run: PopulationRun, chunk: Chunk, saved: list[Metrics | SavedMetrics] | None
) -> list[Metrics | SavedMetrics]:
    """Metrics of no batch for each group, or those of a checkpoint."""
    empty = [run.steps.empty_train(state, chunk, None) for state in run.states]
    if saved is None:
        return list(empty)
    return [rebuilt(old, like=new) for old, new in zip(saved, empty, strict=True)]


def _end_epoch(run: PopulationRun) -> None:
    """What follows the steps of a pass, up to the requests of the scheduler."""
    run.is_saveable = False
    if run.metrics is None:
        raise TrainingError(
            f"Received no batch for epoch {run.epoch}; expected at least one for each member."
        )
    if isinstance(run.metrics[0], SavedMetrics):  # resumed where no batch was left
        raise TrainingError(
            f"Received a loader without the rest of epoch {run.epoch}, in which the population was "
            "saved; expected the data of the run that goes on. Give the same train_loader."
        )
    with run.ledger.spent("device"):
        _count_epoch(run, _by_member(run, run.metrics))
    run.is_trained, run.metrics = True, None
    training = run.training
    every = run.trainer.check_val_every_n_epoch
    is_last = any(member.epoch == run.num_epochs for member in training)
    if training and (run.val_source is None or is_last or run.epoch % every == 0):
        if run.val_source is not None:
            with run.ledger.spent("evaluation"):
                _validate(run, run.val_source)
                _tell_optimizers(run)
        _keep_best(run)
        _finish(run)
        _record(run)
        view = run.view()
        with noting(f"scheduler {type(run.scheduler).__name__}", f"epoch {run.epoch}"):
            requests = as_requests(run.scheduler.on_validation_epoch_end(view), run.scheduler)
        carry_out(run, requests)
    else:
        _record(run)
    for member in run.members:
        if not member.is_training and member.number not in run.written and run.training:
            write_best(run, member)
    shrink(run)
    run.is_saveable = True
    if run.signals.received is not None or is_save_due(run, ended_epoch=run.epoch):
        save_population(run)
    run.signals.poll()


def _by_member(
    run: PopulationRun, metrics: list[Metrics | SavedMetrics] | list[Metrics]
) -> dict[int, Metrics]:
    """Accumulated metrics of each member, on the host."""
    host: list[Any] = jax.device_get(metrics)
    if run.size == 1:
        return {n: m for n, m in zip(run.occupants, host, strict=True) if n != EMPTY}
    return {
        number: jax.tree.map(lambda leaf, place=place: leaf[place], group)
        for index, group in enumerate(host)
        for place, number in enumerate(run.group(index))
        if number != EMPTY
    }


def _count_epoch(run: PopulationRun, metrics: Mapping[int, Metrics]) -> None:
    """Gives each member the metrics of its epoch; one whose steps were not finite ends."""
    run.in_pass = tuple(member.number for member in run.training)
    for member in run.training:
        own = metrics[member.number]
        step = member.step + int(own.batches)
        after = replace(member, epoch=member.epoch + 1, step=step, metrics=compute(own, "train/"))
        if int(own.left_out) and run.trainer.loop.on_nonfinite == "stop":
            reason = f"the loss or a gradient was not finite at step {step + 1}"
            after = replace(after, status=Status.DIVERGED, reason=reason)
        run.members[member.number] = after


def _validate(run: PopulationRun, source: Source) -> None:
    """The exact metrics of each member over the validation data."""
    steps, metrics, drawn = run.steps, list[Any](), 0
    states = [evaluated(state) for state in run.states]
    for chunk in draw(
        steps,
        source,
        limit=run.trainer.loop.limit_val_batches,
        prefetch=run.trainer.loop.prefetch,
        passes=1 + max(run.passes_left, 0),
        members=len(run.states),
    ):
        if not metrics:
            metrics = [steps.empty_eval(state, chunk, None) for state in states]
        chunks = [run.batches.on(chunk, device) for device in run.used]
        drawn += chunk.steps * chunk.size
        constants = [Evaluation(state, np.int32(drawn)) for state in states]
        send = partial(_evaluate, run, constants, metrics, chunks)
        run.send_each(send, is_timed=_is_timed(chunk))
    if not metrics:
        raise TrainingError("Received a val_loader without batches; expected at least one.")
    for number, own in _by_member(run, metrics).items():
        member = run.members[number]
        if not member.is_training:
            continue
        if int(own.examples) != drawn:
            raise TrainingError(
                f"Received {drawn} examples from the val_loader but counted {int(own.examples)} "
                f"for member {number}; expected the same number. An evaluation step must return "
                "metrics for the whole batch."
            )
        run.members[number] = replace(member, metrics={**member.metrics, **compute(own, "val/")})


def _evaluate(
    run: PopulationRun,
    constants: Sequence[Evaluation],
    metrics: list[Any],
    chunks: Sequence[Chunk],
    index: int,
) -> None:
    """Sends off evaluation steps of a group."""
    evaluate, own = run.steps_of(index).evaluate, chunks[index % len(chunks)]
    metrics[index], _ = evaluate(constants[index], metrics[index], own)


def _tell_optimizers(run: PopulationRun) -> None:
    """Puts what the optimizer of each member follows of its own validation into its state."""
    for index, state in enumerate(run.states):
        if (before := evaluations_of(state)) is None:
            return
        group = [run.members[n] if n != EMPTY else None for n in run.group(index)]
        followed = {name: np.full(len(group), np.nan) for name in before.metrics}
        for row, member in enumerate(group):
            if member is None or not member.is_training:
                continue
            with noting(f"the validation of member {member.number}", f"epoch {member.epoch}"):
                check_metrics(before, member.metrics)
            for name, values in followed.items():
                values[row] = member.metrics[name]
        if run.size == 1:
            followed = {name: values[0] for name, values in followed.items()}
        run.states[index] = state.replace(evaluations=next_evaluations(before, followed))


def _keep_best(run: PopulationRun) -> None:
    """Keeps the variables of the members whose validation is the best they had."""
    better: set[int] = set()
    for member in run.training:
        is_new = run.val_source is None or run.trainer.is_new_model_better(
            dict(member.metrics), None if member.best is None else dict(member.best)
        )
        if is_new:
            better.add(member.number)
            best = {**member.metrics, "epoch": member.epoch, "step": member.step}
            run.members[member.number] = replace(member, best=best)
            run.written.discard(member.number)
    for index, state in enumerate(run.states):
        are_new = [number in better for number in run.group(index)]
        if any(are_new):
            new, old = variables_of(evaluated(state)), run.best[index]
            run.best[index] = run.rows.chosen(are_new, new, old, run.size)


def _finish(run: PopulationRun) -> None:
    for member in run.training:
        if member.epoch >= run.num_epochs:
            run.members[member.number] = replace(
                member, status=Status.FINISHED, reason=f"trained for {member.epoch} epochs"
            )


def _record(run: PopulationRun) -> None:
    """Hands the metrics of this pass to the loggers: of each member, of the best, and the mean."""
    shown = [run.members[number] for number in run.in_pass]
    record: dict[str, Any] = {"epoch": run.epoch, "population/training": len(run.training)}
    for member in shown:
        numbers = _scalars(member.metrics)
        row = {"member": member.number, "epoch": member.epoch, "step": member.step}
        run.history.append({**row, **member.metrics})
        record |= {f"member_{member.number:03d}/{name}": v for name, v in numbers.items()}
    names = dict.fromkeys(name for member in shown for name in _scalars(member.metrics))
    for name in names:
        values = [m.metrics[name] for m in shown if name in m.metrics]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            record[f"mean/{name}"] = math.fsum(finite) / len(finite)
    best = best_of(run, shown)
    if best is not None:
        record |= {f"best/{name}": v for name, v in _scalars(best.metrics).items()}
        record["best/member"] = best.number
    with run.ledger.spent("logging"):
        run.trainer.log_metrics(record, run.step)


def best_of(run: PopulationRun, members: list[Member]) -> Member | None:
    """The member with the best metrics of its last epoch."""
    best: Member | None = None
    known = [m for m in members if any(name in m.metrics for name, _ in monitors(run))]
    for member in known:
        if is_better(monitors(run), member.metrics, None if best is None else best.metrics):
            best = member
    return best


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: v for name, v in metrics.items() if isinstance(v, int | float)}
