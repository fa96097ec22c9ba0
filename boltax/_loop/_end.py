"""What is done after the last epoch, or when something ends the run before it."""

import logging
from typing import TYPE_CHECKING, Any

import jax

from boltax._base._trees import is_deleted
from boltax._base._types import ScalarMetrics
from boltax._build._methods import overrides
from boltax._loop._notify import notify
from boltax._loop._run import Run, Stage
from boltax._loop._saving import finish_saving, save_resume, unwritten_best
from boltax.errors import TrainingError, noting

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

_log = logging.getLogger("boltax")


def test(trainer: "TrainerModule", run: Run, test_loader: Any) -> ScalarMetrics:
    """The metrics of the best model on the test set."""
    if run.best is None:
        trainer._made.progress.note(
            "No validation was finite, so there is no best model: the test uses the last one."
        )
    elif unwritten := unwritten_best(trainer):
        _log.warning("%s could not be written: the test uses the last model instead.", unwritten)
    else:
        trainer.load_model()
    with noting(f"{trainer._made.name}.eval_model", run.where("test")):
        metrics = trainer.eval_model(test_loader, log_prefix="test/")
    trainer.log_metrics(metrics, run.step)
    trainer.save_metrics("test", metrics)
    notify(trainer, run, "on_test_end", "test", metrics)
    return metrics


def end_early(trainer: "TrainerModule", run: Run, error: BaseException) -> None:
    """Saves what can be saved and closes the loggers; nothing here hides the error."""
    is_interrupted = run.signals.received is not None
    try:
        if not is_interrupted:
            notify(trainer, run, "on_exception", "train", error=error)
        elif isinstance(error, Exception):  # such as that of a loader whose workers got the signal
            _log.warning("On its way out the run met %s: %s", type(error).__name__, error)
        if run.is_saveable and not _is_pruned(error):
            _check_countable(trainer, run)
            save_resume(trainer, run)
            if not finish_saving(trainer, run) and trainer.checkpoint.keep_last:
                trainer._made.progress.note(
                    f"Saved step {run.step}: train_model(..., resume=True) goes on from there"
                )
    except Exception as failure:
        if is_interrupted:
            raise
        error.add_note(f"the run could not be saved: {type(failure).__name__}: {failure}")
    finally:
        is_pruned = _is_pruned(error)
        trainer.logger.finalize("success" if is_pruned or is_interrupted else "failed")


def _check_countable(trainer: "TrainerModule", run: Run) -> None:
    """Refuses a state that is ahead of the counters, as within a `train_epoch` of the user's."""
    state, step = trainer.state, run.step
    if run.stage is not Stage.TRAIN or not overrides(trainer, "train_epoch"):
        return
    if not is_deleted(state) and int(jax.device_get(state.step)) > step:
        raise TrainingError(
            f"Received an exception within {trainer._made.name}.train_epoch, which has its own "
            "loop; expected one between epochs, since nobody knows the place in the data. The last "
            "resume checkpoint is the place to go on from: resume=True."
        )


def _is_pruned(error: BaseException) -> bool:
    return type(error).__name__ == "TrialPruned"
