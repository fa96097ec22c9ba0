"""From a source of batches and the events of a run to chunks: what goes to the device together."""

from collections.abc import Iterator

from boltax._base._chunks import Chunk, Plan
from boltax._base._options import LoopOptions
from boltax._base._types import Loader
from boltax._loop._run import Run
from boltax._loop._trainees import Trainees
from boltax._step._fused import MOST_STEPS
from boltax.data._first_batches import FirstBatches
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source, check_ends
from boltax.errors import ConfigurationError


def open_train_source(run: Run, train_loader: Loader, loop: LoopOptions) -> Source:
    """The training data as the loop reads them; an empty loader is an error."""
    source = run.source(train_loader, "train_loader", loop.steps_per_epoch)
    if loop.overfit_batches is not None:
        source = FirstBatches(source, loop.overfit_batches, "train_loader")
    if source.num_batches == 0:
        next(source.epoch(1), None)  # raises the error that says what to look at
    return source


def stream(trainees: Trainees, source: Source, left: int | None) -> Iterator[Chunk]:
    """The batches of the running epoch, in chunks that end where something is due.

    Args:
        trainees: what is trained.
        source: the training data.
        left: steps to the end of the epoch; None when nobody knows.
    """
    run, loop = trainees.run, trainees.parts.loop
    begin, every = run.step, loop.log_every
    if left is None and run.limits.deadline is None:
        check_ends(source, "Say where an epoch ends with LoopOptions(steps_per_epoch=...)")
    trainees.steps.train.restart()

    def still(drawn: int) -> int | None:
        return None if left is None else left - drawn

    def prepare(first: Chunk) -> None:
        trainees.prepare(first, steps_to_event(trainees, begin, left))

    def plan(drawn: int) -> Plan:
        at = begin + drawn
        distance = steps_to_event(trainees, at, still(drawn))
        return trainees.plan(distance, at, still(drawn), every - at % every)

    return prefetch_to_device(
        source.epoch(run.epoch, run.place()),
        plan,
        limit=left,
        depth=loop.prefetch,
        copy=not source.owns_batches,
        is_compiled=trainees.steps.train.is_compiled,
        begin=prepare,
        size_of=trainees.steps.size_of,
        placement=trainees.steps.placement,
    )


def steps_to_event(trainees: Trainees, step: int, left: int | None) -> int:
    """Steps that may go off together: to the next one after which the host looks at the state.

    Args:
        trainees: what is trained.
        step: the step that is done.
        left: steps to the end of the epoch, if known.

    Raises:
        ConfigurationError: for somebody who asks for a step that is over.
    """
    every = trainees.parts.loop.log_every
    ends = [MOST_STEPS]
    # a program that ends intervals by itself goes past a record, unless somebody looks at it
    if trainees.must_write_at_once or not trainees.has_record_loop:
        ends.append(every - step % every)
    if save_every := trainees.run.clock.trigger.steps:
        ends.append(save_every - step % save_every)
    ends.extend(each - step % each for each in trainees.run.validations.steps)
    if (least := trainees.run.limits.min_steps) > step:  # from there on the run may be stopped
        ends.append(least - step)
    ends.extend(trainees.next_events(step))
    if left is not None:
        ends.append(left)
    return max(1, min(ends))


def steps_to_next(name: str, step: int, following: int) -> int:
    """Steps to the one that a callback asks for.

    Raises:
        ConfigurationError: when it is over.
    """
    if following <= step:
        raise ConfigurationError(
            f"Received {following} from {name}.next_step({step}); expected a later step, or None. "
            "Return step + 1 for the next one."
        )
    return following - step
