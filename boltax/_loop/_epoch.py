"""One pass of training steps over the data; `_fit` has its pseudocode and what stands around it."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from boltax._base._chunks import Chunk, Mode, Plan
from boltax._base._types import ScalarMetrics
from boltax._loop._nonfinite import NonFiniteWatch, Sent
from boltax._loop._notify import notify
from boltax._loop._record import (
    MOST_DUE,
    begin_record,
    begin_records,
    merged,
    must_write_at_once,
    write_records,
)
from boltax._loop._run import Run
from boltax._loop._saving import is_save_due, save_resume
from boltax._progress._progress import advance_examples
from boltax._step._bodies import Training
from boltax._step._fused import MOST_STEPS, count_on_device
from boltax.callbacks._base import Callback, overriding
from boltax.data._prefetch import one_item_each, prefetch_to_device
from boltax.data._source import Source
from boltax.errors import ConfigurationError, TrainingError
from boltax.metrics._accumulate import Metrics, compute

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def run_epoch(trainer: "TrainerModule", train_loader: Any) -> ScalarMetrics:
    """One pass over the loader; returns the means over the epoch, named ``train/...``."""
    run = running(trainer)
    if not run.is_active:  # called by hand
        run.epoch += 1
        run.begin_epoch()
    source = open_train_source(trainer, run, train_loader)
    done, left = run.steps_done, run.steps_left(source.num_batches)
    callbacks = overriding(trainer.callbacks, "on_step_end")
    is_at_once = must_write_at_once(trainer)
    chunks = _chunks(trainer, run, source, callbacks, left, is_at_once=is_at_once)
    items = one_item_each(chunks, run.ledger)
    total = None if left is None else done + left
    bar = trainer.tracker(items, desc="Training", total=total, leave=False, **already(done))
    watch = NonFiniteWatch(trainer, run)
    with _last_words(trainer, run, watch, bar):
        for chunk in bar:
            if chunk is None:
                continue  # counted as a step; its chunk comes with the last one
            _send(trainer, run, watch, chunk)
            if run.sanity_check is not None and run.sanity_check.is_ready:
                run.sanity_check.finish()
            advance_examples(bar, chunk.steps * chunk.size)
            for callback in callbacks:
                if callback.next_step(run.step - 1) == run.step:
                    notify(trainer, run, "on_step_end", "train", only=callback)
            write_records(trainer, run, watch, bar, most_due=MOST_DUE)
            is_saved, is_signalled = _is_saved(trainer, run), run.signals.received is not None
            is_last = run.should_stop()
            if is_at_once or is_saved or is_signalled or is_last:
                write_records(trainer, run, watch, bar)
            if is_saved or is_signalled or is_last:
                watch.look(up_to=run.step)
            if is_saved:
                save_resume(trainer, run)
            if is_signalled:
                run.signals.poll()
            if is_last or run.should_stop():
                is_end = source.num_batches is not None and run.steps_done >= source.num_batches
                run.is_cut = run.is_saveable and not run.is_asked_to_stop and not is_end
                break
        write_records(trainer, run, watch, bar)
        watch.look(up_to=run.step)
        if run.is_cut:
            save_resume(trainer, run)
    if isinstance(run.interval, Metrics):
        run.accumulated, run.interval = merged(trainer, run), None
    if isinstance(run.accumulated, Metrics):
        with run.ledger.spent("device"):
            return compute(run.accumulated, "train/")
    if run.record:  # resumed where the epoch has no step left
        return run.record
    raise TrainingError(
        f"Received no batch for epoch {run.epoch}; expected at least one step before the stop."
    )


def _send(trainer: "TrainerModule", run: Run, watch: NonFiniteWatch, chunk: Chunk) -> None:
    """Sends the steps of a chunk to the device, counts them, and ends the intervals of records."""
    steps, every, begin = trainer._made.steps, trainer.loop.log_every, run.step
    is_loop = chunk.plan.mode is Mode.LOOP
    with run.ledger.spent("device"):
        until_due = count_on_device(min(every - begin % every, MOST_STEPS + 1) if is_loop else 1)
        carry = Training(trainer.state, _interval(trainer, run, chunk))
        (trainer.state, run.interval), outputs = steps.train(until_due, carry, chunk)
    before, run.cursor = run.cursor, chunk.cursors[-1]
    run.step += chunk.steps
    run.examples += chunk.steps * chunk.size
    if is_loop:
        if due := [*range(begin - begin % every + every, run.step + 1, every)]:
            begin_records(trainer, run, due, chunk.size, outputs[1])
    elif run.step % every == 0:
        begin_record(trainer, run)
    # last, since it raises if a bad step has arrived already: the records up to it are due
    watch.add(Sent(outputs[0] if is_loop else outputs, run.step, chunk, before))


def _interval(trainer: "TrainerModule", run: Run, chunk: Chunk) -> Any:
    """The metrics since the last record, begun if this is the first chunk."""
    if not isinstance(run.interval, Metrics):
        run.interval = trainer._made.steps.empty_train(trainer.state, chunk, run.interval)
    return run.interval


def _chunks(
    trainer: "TrainerModule",
    run: Run,
    source: Source,
    callbacks: tuple[Callback, ...],
    left: int | None,
    *,
    is_at_once: bool,
) -> Generator[Chunk]:
    """The batches of the epoch, in chunks that end where something is due."""
    begin, step, every = run.step, trainer._made.steps.train, trainer.loop.log_every
    step.restart()

    def distance(drawn: int, until_due: int) -> int:
        still = None if left is None else left - drawn
        ends = until_due if is_at_once else None
        return steps_to_event(run, callbacks, begin + drawn, still, ends)

    def prepare(first: Chunk) -> None:
        carry = Training(trainer.state, _interval(trainer, run, first))
        ahead = distance(0, every - begin % every)
        step.precompile(count_on_device(1), carry, first.feed, ahead)

    def plan(drawn: int) -> Plan:
        at, until_due = begin + drawn, every - (begin + drawn) % every
        total = run.total_steps if run.is_active else None  # else there may be further epochs
        left_in_all = None if total is None else total - at
        return step.plan(distance(drawn, until_due), left_in_all, until_due)

    yield from prefetch_to_device(
        source.epoch(run.epoch, run.place()),
        plan,
        limit=left,
        depth=trainer.loop.prefetch,
        copy=not source.owns_batches,
        is_compiled=step.is_compiled,
        begin=prepare,
    )


def steps_to_event(
    run: Run, callbacks: tuple[Callback, ...], step: int, left: int | None, until_due: int | None
) -> int:
    """Steps that may go off together: to the next one after which the host looks at the state.

    Args:
        run: the run.
        callbacks: those that are called after steps.
        step: the step that is done.
        left: steps to the end of the epoch, if known.
        until_due: steps to the next record, where a callback looks at the state then.
    """
    ends = (MOST_STEPS if until_due is None else until_due, *_events(run, callbacks, step))
    return max(1, min(ends if left is None else (*ends, left)))


def _events(run: Run, callbacks: tuple[Callback, ...], step: int) -> Generator[int]:
    """Steps to the next save, and to what callbacks ask for."""
    if every := run.save_trigger.steps:
        yield every - step % every
    for callback in callbacks:
        following = callback.next_step(step)
        if following is None:
            continue
        if following <= step:
            raise ConfigurationError(
                f"Received {following} from {type(callback).__name__}.next_step({step}); expected "
                "a later step, or None. Return step + 1 for the next one."
            )
        yield following - step


def _is_saved(trainer: "TrainerModule", run: Run) -> bool:
    return run.is_saveable and is_save_due(trainer, run)


def running(trainer: "TrainerModule") -> Run:
    """The run of a trainer that has an optimizer."""
    if trainer.run is None or trainer.state.tx is None:
        raise TrainingError(
            "Received a call that trains before there is an optimizer; expected train_model, or "
            "trainer.init_optimizer(num_epochs, num_steps_per_epoch) first."
        )
    return trainer.run


def open_train_source(trainer: "TrainerModule", run: Run, train_loader: Any) -> Source:
    """The training data as the loop reads them; an empty loader is an error."""
    source = run.source(train_loader, "train_loader", trainer.loop.steps_per_epoch)
    if source.num_batches == 0:
        next(source.epoch(1), None)  # raises the error that says what to look at
    return source


def already(done: int, total: int | None = None) -> dict[str, int]:
    """What a progress bar that does not begin at 0 has to know."""
    if not done:
        return {}
    return {"initial": done} if total is None else {"initial": done, "total": total}


@contextmanager
def _last_words(
    trainer: "TrainerModule", run: Run, watch: NonFiniteWatch, bar: Any
) -> Generator[None]:
    """Adds the step to an exception, and writes the record that is due; around the whole loop."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised after this many completed steps: {run.where('train')}")
        with suppress(Exception):
            write_records(trainer, run, watch, bar)
        raise
