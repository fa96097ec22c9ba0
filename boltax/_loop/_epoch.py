"""One pass of training steps over the data; `_fit` has its pseudocode and what stands around it."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from boltax._base._chunks import Chunk, Mode
from boltax._loop._counters import Stage
from boltax._loop._derived import derived_names
from boltax._loop._midway import finish_validation, is_validation_due, validate_within
from boltax._loop._record import (
    MOST_DUE,
    begin_record,
    begin_records,
    merge_records,
    write_records,
)
from boltax._loop._saving import is_save_due, save_resume
from boltax._loop._stream import stream
from boltax._loop._trainees import Trainees, Watch
from boltax._progress._progress import advance_examples
from boltax._step._bodies import Training
from boltax._step._fused import MOST_STEPS
from boltax.data._prefetch import one_item_each
from boltax.data._source import Source
from boltax.errors import TrainingError
from boltax.metrics._accumulate import Metrics, SavedMetrics, plain_names


def run_epoch(trainees: Trainees, source: Source) -> list[Metrics] | None:
    """Trains on what the running epoch has left of the data.

    Args:
        trainees: what is trained.
        source: the training data.

    Returns:
        The metrics of the epoch for each state, on the device, or since the last validation within
        it; None where no step came after that, or a run that was resumed had no step left.

    Raises:
        TrainingError: when there was no batch at all.
        NonFiniteError: at a step that was not finite, where that ends the run.
    """
    run = trainees.run
    done, left = run.counters.steps_done, _steps_left(trainees, source)
    items = one_item_each(stream(trainees, source, left), run.ledger)
    total = None if left is None else done + left
    bar = trainees.hooks.tracker(items, desc="Training", total=total, leave=False, **already(done))
    watch = trainees.watch()
    with _last_words(trainees, watch, bar):
        for chunk in bar:
            if chunk is None:
                continue  # counted as a step; its chunk comes with the last one
            _send(trainees, watch, chunk)
            # as soon as it costs no waiting, so that a mistake in the evaluation shows early
            if run.sanity_check is not None and run.sanity_check.is_ready:
                run.sanity_check.finish()
            advance_examples(bar, chunk.steps * chunk.size)
            trainees.after_steps()
            # behind the next steps, which are on their way: the host need not wait for a record
            write_records(trainees, watch, bar, most_due=MOST_DUE)
            # before anybody acts on a clock, a signal or a callback
            run.agree()
            if is_validation_due(trainees, source):
                # before the save, which then holds the validation, and before the next batch
                validate_within(trainees, watch, bar)
                run.agree(at_once=True)
            is_saved, is_signalled = _is_saved(trainees), run.signals.received is not None
            # asked after the hooks, one of which may have asked to stop
            is_last = run.should_stop()
            if trainees.must_write_at_once or is_saved or is_signalled or is_last:
                # before the look: records up to a bad step are written, whatever it raises
                write_records(trainees, watch, bar)
            if is_saved or is_signalled or is_last:
                # before the save: no state is saved that a step has spoiled
                watch.look(up_to=run.step)
            if is_saved:
                save_resume(trainees)
            if is_signalled:
                # after the save, which holds this step
                run.signals.poll()
            if is_last or run.should_stop():
                # the cursor is that of the last consumed batch: what is ahead of it was not trained
                run.is_cut = _is_cut(trainees, source)
                break
        write_records(trainees, watch, bar)
        watch.look(up_to=run.step)
        if run.is_cut:
            # before the epoch ends: a resume goes on with its next step
            save_resume(trainees)
    return _whole_epoch(trainees)


def _steps_left(trainees: Trainees, source: Source) -> int | None:
    """Steps that the epoch has left; a validation that was interrupted is finished before."""
    run = trainees.run
    if run.stage is Stage.MIDWAY:
        if not run.validations.ask(run.step):  # it was its time then
            run.validations.take_all()
        finish_validation(trainees)
        if run.should_stop():
            run.is_cut = _is_cut(trainees, source)
            return 0
    return run.steps_left(source.num_batches)


def _send(trainees: Trainees, watch: Watch, drawn: Chunk) -> None:
    """Sends off the steps of a chunk, counts them, and ends the intervals of records."""
    run, every, begin = trainees.run, trainees.parts.loop.log_every, trainees.run.step
    chunk = trainees.ready(drawn)
    ends_records = chunk.plan.mode is Mode.LOOP and trainees.has_record_loop
    outputs: list[Any] = [None] * len(trainees.states)
    with run.ledger.spent("device"):
        until_due: Any = ()
        if trainees.has_record_loop:
            distance = min(every - begin % every, MOST_STEPS + 1) if ends_records else 1
            until_due = trainees.steps.placement.number(distance)
        interval, placed = interval_of(trainees, chunk), trainees.placed(chunk)

        def send(index: int) -> None:
            carry = Training(trainees.states[index], interval[index])
            step, own = trainees.steps_of(index).train, placed[index % len(placed)]
            (state, interval[index]), outputs[index] = step(until_due, carry, own)
            trainees.put(index, state)

        trainees.send_each(len(outputs), send, is_timed=chunk.plan.window is not None)
    before = run.counters.cursor
    run.count_steps(chunk.steps, chunk.size, chunk.cursors[-1])
    if ends_records:
        if due := [*range(begin - begin % every + every, run.step + 1, every)]:
            begin_records(trainees, due, chunk.size, outputs[0][1])
    elif run.step % every == 0:
        begin_record(trainees)
    # last, since it raises if a bad step has arrived already: the records up to it are due
    watch.add(chunk, outputs[0][0] if ends_records else outputs[0], before)


def interval_of(trainees: Trainees, chunk: Chunk) -> list[Any]:
    """The metrics since the last record, for each state; begun if this is the first chunk."""
    metrics = trainees.run.metrics
    held = metrics.interval
    if held is None or isinstance(held[0], SavedMetrics):
        saved: Any = held or [None] * len(trainees.states)
        begun = [
            trainees.steps_of(index).empty_train(state, chunk, saved[index])
            for index, state in enumerate(trainees.states)
        ]
        _check_names(trainees, begun[0])
        metrics.interval = begun
    interval: Any = metrics.interval
    return interval


def _check_names(trainees: Trainees, empty: Metrics) -> None:
    """Compares what is followed with the names of training, as soon as its step is traced."""
    if trainees.run.metrics.examples or not trainees.steps.train.is_compiled:
        return
    one = trainees.one_of(empty)
    if (names := plain_names(one, "train/")) is not None:
        names = derived_names(trainees.parts.derive, names, "train/")
    if names is not None:
        trainees.check_training_names(names)


def _whole_epoch(trainees: Trainees) -> list[Metrics] | None:
    """The metrics of the epoch for each state; from now on no interval is under way."""
    run, metrics = trainees.run, trainees.run.metrics
    if run.counters.is_validated:
        return None  # there was no step behind the last validation
    if metrics.interval is not None and not isinstance(metrics.interval[0], SavedMetrics):
        metrics.epoch, metrics.interval = merge_records(trainees), None
    whole: Any = metrics.epoch
    if whole is not None and not isinstance(whole[0], SavedMetrics):
        return whole
    if run.counters.record or metrics.interval is not None:
        return None  # resumed where the epoch has no step left
    raise TrainingError(
        f"Received no batch for epoch {run.epoch}; expected at least one step before the stop."
    )


def _is_saved(trainees: Trainees) -> bool:
    return trainees.run.is_saveable and is_save_due(trainees)


def _is_cut(trainees: Trainees, source: Source) -> bool:
    """Whether it is a limit that ends the epoch, before the data do."""
    run = trainees.run
    is_end = source.num_batches is not None and run.counters.steps_done >= source.num_batches
    return run.is_saveable and not run.is_asked_to_stop and not is_end


def already(done: int, total: int | None = None) -> dict[str, int]:
    """What a progress bar that does not begin at 0 has to know."""
    if not done:
        return {}
    return {"initial": done} if total is None else {"initial": done, "total": total}


@contextmanager
def _last_words(trainees: Trainees, watch: Watch, bar: Any) -> Generator[None]:
    """Adds the step to an exception, and writes the record that is due; around the whole loop."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised after this many completed steps: {trainees.run.where('train')}")
        with suppress(Exception):
            write_records(trainees, watch, bar)
        raise
