"""What a run is made of: one frozen value, from a trainer that was constructed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boltax._base._monitor import Monitor
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax._build._copies import Copies
from boltax._build._hooks import Live
from boltax._build._place import ResumeFrom
from boltax._progress._progress import Progress
from boltax._step._loss import LossSteps
from boltax._step._steps import Steps
from boltax.callbacks._base import Callback
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Saver
from boltax.loggers._group import LoggerGroup


@dataclass(frozen=True)
class Parts:
    """The parts of a trainer that the loop uses; nothing here changes while a run lasts.

    Attributes:
        name: of the trainer's class, for messages.
        steps: the compiled steps.
        loss_steps: the pure steps of `loss_function`.
        loop: options of the loop.
        checkpoint: what is kept on disk.
        callbacks: in the order of their calls.
        monitor: ``(metric, "min" or "max")`` that tells the best model; None for the guide's order.
        check_val_every_n_epoch: epochs between two validations.
        logger: all loggers.
        progress: shows progress and notes.
        saver: writes in the background.
        copies: copies of arrays for the saver.
        folder: the run's.
        config: the configuration, as it is stored with the run.
        summary: the table of the model's layers.
        names: where functions and classes of stored values are looked up.
        overridden: names of the methods that the trainer's class overrides.
        derive: gives further metrics from those that were computed; None where nothing does.
        root_key: the root random key, where a user's own steps may change that of the state.
        describe: has ``hparams.json`` and ``model.txt`` be those of the run that goes on.
    """

    name: str
    steps: Steps
    loss_steps: LossSteps
    loop: LoopOptions
    checkpoint: CheckpointOptions
    callbacks: tuple[Callback, ...]
    monitor: Monitor | None
    check_val_every_n_epoch: int
    logger: LoggerGroup
    progress: Progress
    saver: Saver
    copies: Copies
    folder: str
    config: Mapping[str, Any]
    summary: str
    names: Lookup
    overridden: frozenset[str]
    root_key: Any
    describe: Callable[[], None]
    derive: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None

    @property
    def directory(self) -> RunDirectory:
        """The folder with the names of what lies in it."""
        return RunDirectory(self.folder)

    def overrides(self, method: str) -> bool:
        """Whether the trainer's class has its own version of a method."""
        return method in self.overridden


def renewed_parts(trainer: Any, lock: RunLock, resume: ResumeFrom) -> Parts:
    """The parts for a run that begins: nothing of an older one waits, or lies, in its place.

    Args:
        trainer: a `TrainerModule`.
        lock: of its folder; afterwards that of the run's.
        resume: as for `train_model`.
    """
    parts: Parts = trainer._renewed_parts(lock, resume)  # noqa: SLF001
    return parts


def live_of(trainer: Any) -> Live:
    """Where a `TrainerModule` finds its state."""
    live: Live = trainer._made.live
    return live


def parts_of(trainer: Any) -> Parts:
    """The parts of a `TrainerModule`, for what stands beside its methods."""
    parts: Parts = trainer._parts
    return parts
