"""The training loop. Read this first: its pseudocode, with every hook in the order of its call.

    train_model
        one writer in the run's folder; signals are noted
        an older run makes way, unless it goes on       nothing of it is deleted
        trainer.init_optimizer                          the state gets its optimizer
        resume: state, counters, place in the data, files as they were
        one validation batch                            a mistake shows now, not after an hour
        trainer.on_training_start                       Callback.on_training_start
        with `validate_at_start`: a validation          as below, with a row of step 0
        for each epoch:
            Callback.on_training_epoch_start            stage TRAIN
            trainer.train_epoch:
                for each chunk of batches:              on the device ahead of its use; a chunk
                                                        ends where something below is due
                    state, metrics = step(state, metrics, batch)      compiled, asynchronous,
                                                        all steps of the chunk in one dispatch
                    loss not finite? stop, skip or continue
                    one validation batch, once          as soon as its step is compiled
                    at `callback.next_step`:            Callback.on_step_end
                    every `log_every` steps:            record -> Callback.on_log, loggers
                    with `validate_every`:              stage MIDWAY: a validation as below, with a
                                                        row of its own; then stage TRAIN again
                    save when due; stop?                max_steps, max_time, a callback's Stop
            record of the epoch -> loggers
            trainer.on_training_epoch_end               Callback.on_training_epoch_end
                                                        stage VALIDATE
            every `check_val_every_n_epoch` epochs, or where `validate_every` ends on this step,
            and after the last:
                trainer.eval_model
                trainer.on_validation_epoch_end         Callback.on_validation_epoch_end
                record -> loggers, metrics/*.json
                trainer.is_new_model_better? trainer.save_model
            row of the epoch -> history.csv             stage COMPLETE
            save when due; stop?
        save
        trainer.on_training_end                         Callback.on_training_end
        trainer.load_model, trainer.eval_model          on the test set; Callback.on_test_end
    on a signal: save, close, leave
    on any exception: Callback.on_exception, save, loggers and progress are closed, and it goes on

Data goes one way. What a run changes is the state, the accumulated metrics, and the counters, with
the cursor of the last consumed batch: these are what `_saving` writes and `_resume` brings back, to
the last of the stages that was reached. The host waits for the device only where a record is
written: behind the next chunk, unless a callback has to see it with its state. The steps themselves
are in `_epoch.py`, the records in `_record.py`.

What is trained is one state with the hooks of its trainer (`_single.py`), or the states of all
members of a population (`boltax/tune/_members.py`), which go through the same lines: there the
hooks of each moment are those of the members, their scheduler and their table.
"""

import os
from collections.abc import Callable, Iterator

from boltax._base._types import ScalarMetrics
from boltax._loop._around import AnyTrainees, around
from boltax._loop._begin import begin
from boltax._loop._counters import Stage
from boltax._loop._epoch import already
from boltax._loop._midway import maybe_validate_at_start
from boltax._loop._saving import check_saved, is_save_due, save_resume
from boltax._loop._trainees import Loaders, Trainees
from boltax._process._user_files import refuse_training
from boltax._progress._progress import set_metrics
from boltax.checkpoint._end_file import forget_end
from boltax.checkpoint._lock import RunLock


def fit(
    make: Callable[[RunLock], AnyTrainees],
    folder: str,
    loaders: Loaders,
    resume: bool | str | os.PathLike[str] | None,
) -> tuple[AnyTrainees, ScalarMetrics]:
    """Trains, validates, keeps the best, tests on it; see `TrainerModule.train_model`.

    Args:
        make: gives what is trained, a single run or the members of a population; called with the
            folder's lock when no other run holds it.
        folder: the trainer's.
        loaders: the data.
        resume: whether to go on, and with which run.

    Returns:
        What was trained, and the metrics of the test; none without one.

    Raises:
        NotSavedError: last, when the run has ended, but is not on the disk.
    """
    refuse_training()  # while a command loads the file with the trainer
    tested: ScalarMetrics = {}
    with around(make, folder, loaders) as trainees:
        run, parts = trainees.run, trainees.parts
        begin(trainees, loaders, resume)
        if parts.steps.placement.group.is_first:
            forget_end(parts.folder)
        _epochs(trainees, loaders)
        # before the hooks at the end, which may fail: the last state is on its way to the disk
        save_resume(trainees)
        trainees.end_training()
        # what follows is about the best models, and not about the last state
        run.is_saveable = False
        if loaders.test is not None:
            tested = trainees.test(loaders.test)
        check_saved(parts, run, tested)
        # last, when nothing can fail any more
        parts.logger.finalize("success")
    return trainees, tested


def _epochs(trainees: Trainees, loaders: Loaders) -> None:
    run, parts = trainees.run, trainees.parts
    maybe_validate_at_start(trainees)
    if run.stage is not Stage.COMPLETE:
        run.should_stop()  # notes the limit that ended the steps of an epoch which is resumed
    total = run.epoch + (0 if run.is_over else trainees.epochs_left())
    if run.limits.num_epochs == run.limits.max_steps and run.train_source.num_batches is None:
        total = None  # so many steps of a stream, whatever its epochs are
    done = already(run.epoch - (run.stage is not Stage.COMPLETE))
    numbers = _numbers(trainees)
    bar = trainees.hooks.tracker(numbers, desc="Epochs", unit="epoch", total=total, **done)
    for _ in bar:
        if run.stage is Stage.COMPLETE:
            run.begin_epoch()
            trainees.on_epoch_start()
        if run.stage in (Stage.TRAIN, Stage.MIDWAY):
            trainees.train(loaders.train)
        run.agree(at_once=True)
        # before the validation, which it must not wait behind
        if run.sanity_check is not None:
            run.sanity_check.finish()
        # asked after the steps, whose hooks may have asked to stop: then this is the last one
        is_validated = trainees.is_validation_due()
        if is_validated:
            trainees.validate(loaders.val)
            run.validations.note(run.step)
        set_metrics(bar, trainees.end_epoch(is_validated=is_validated))
        # from here on a resume goes on with the next epoch
        run.count(stage=Stage.COMPLETE)
        run.agree(at_once=True)
        if is_save_due(trainees, ended_epoch=run.epoch):
            save_resume(trainees)
        # after the save, which holds this epoch
        run.signals.poll()
        if run.stop_reason:
            break
    if run.stop_reason:
        parts.progress.note(f"Stopped after epoch {run.epoch}, step {run.step}: {run.stop_reason}")


def _numbers(trainees: Trainees) -> Iterator[int]:
    """The numbers of the epochs that are to be trained, the running one first."""
    run = trainees.run
    while run.stage is not Stage.COMPLETE or (not run.is_over and trainees.epochs_left() > 0):
        yield run.epoch + (run.stage is Stage.COMPLETE)
