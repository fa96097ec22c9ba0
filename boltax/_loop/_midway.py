"""Validations that are not at the end of an epoch: within it, or before the first step.

    records up to this step are written            a validation ends the interval of a record
    training since the last validation is counted, stage MIDWAY
    trainees.validate                              as at the end of an epoch
    a row of the history                           stage TRAIN: the next batch is drawn behind this

What is interrupted in between goes on with the validation, and then with the batch that follows.
"""

from typing import Any

from boltax._loop._record import begin_record, write_records
from boltax._loop._trainees import Trainees, Watch
from boltax.data._source import Source


def is_validation_due(trainees: Trainees, source: Source) -> bool:
    """Whether a validation comes before the next step of the epoch.

    That after the last step comes with the end of the epoch, behind its record and its hooks.

    Args:
        trainees: what is trained.
        source: the training data.
    """
    run = trainees.run
    if not run.is_active or not run.validations.is_within_epochs:
        return False
    is_last = source.num_batches is not None and run.counters.steps_done >= source.num_batches
    return not is_last and run.validations.ask(run.step)


def validate_within(trainees: Trainees, watch: Watch, bar: Any) -> None:
    """Validates between two steps of an epoch.

    Args:
        trainees: what is trained.
        watch: is asked first whether a step was not finite.
        bar: shows the newest values.
    """
    run, metrics = trainees.run, trainees.run.metrics
    if run.step % trainees.parts.loop.log_every:
        begin_record(trainees)
    write_records(trainees, watch, bar)
    watch.look(up_to=run.step)
    since: Any = metrics.epoch  # the interval of the record has just been added to it
    with run.ledger.spent("device"):
        trainees.pause(since)
    metrics.epoch = None  # the next means begin here, with an interval that is empty
    finish_validation(trainees)


def finish_validation(trainees: Trainees) -> None:
    """Validates where the training is counted; a run that was interrupted goes on here."""
    run = trainees.run
    if run.sanity_check is not None and trainees.sanity_states():
        run.sanity_check.finish()
    trainees.validate(run.validations.given)
    trainees.go_on()
    run.validations.note(run.step)


def maybe_validate_at_start(trainees: Trainees) -> None:
    """Validates before the first step, where that is asked for."""
    run = trainees.run
    if not run.validations.is_at_start or run.step or run.counters.validated is not None:
        return
    run.validations.take_all()
    trainees.pause(None)
    finish_validation(trainees)
