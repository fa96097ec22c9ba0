"""The counters of a run: all that changes in training and is no array. Frozen and replaced.

A resume checkpoint holds them as `to_json` gives them, beside the arrays of the state and of the
accumulated metrics. What else a checkpoint holds (callbacks, configuration, members of a
population) stands beside them under names of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from boltax._base._types import Cursor, Json, ScalarMetrics
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.data._cursor import consumed, cursor_from_json, cursor_to_json


class Stage(Enum):
    """Where in an epoch a run is, or goes on from: at these points all that it needs is counted.

    An interruption or an exception in between has the run go on from the one before.
    """

    TRAIN = "train"
    """Between two steps of the epoch, or before its first."""
    MIDWAY = "midway"
    """A validation within the epoch is next; its training since the last one is recorded."""
    VALIDATE = "validate"
    """The steps are done and recorded; the validation is next, if one is due."""
    COMPLETE = "complete"
    """The epoch is done; also the start, as epoch 0."""


@dataclass(frozen=True)
class Counters:
    """Where a run is.

    Attributes:
        epoch: the running epoch, counted from 1; of a population a pass over the data.
        step: completed steps; of a population those of all passes, each a step of every member.
        stage: where in the epoch the run is.
        cursor: the place in the data of the last consumed batch.
        record: the means over the epoch, when its steps are done; in a checkpoint within the epoch
            those up to its step, which are the epoch's when no batch is left. Where validations
            come within the epoch it is the means since the last one.
        row: the running row of the history, as far as it is known.
        logged: what callbacks logged with the records of the running epoch.
        best: metrics of the best validation so far.
        history: one row for each finished epoch, or each validation (and member).
        validated: the step of the last validation; None before the first.
        stop_reason: why the run ends before its last epoch, if a callback asked for it: that also
            holds after a resume, as a limit of one call does not.
        seconds: that the run has trained for.
        seconds_of_epoch: that the running epoch has.
    """

    epoch: int = 0
    step: int = 0
    stage: Stage = Stage.COMPLETE
    cursor: Cursor | None = None
    record: ScalarMetrics = field(default_factory=dict[str, Any])
    row: ScalarMetrics = field(default_factory=dict[str, Any])
    logged: ScalarMetrics = field(default_factory=dict[str, Any])
    best: ScalarMetrics | None = None
    history: tuple[dict[str, Any], ...] = ()
    stop_reason: str | None = None
    validated: int | None = None
    seconds: float = 0.0
    seconds_of_epoch: float = 0.0

    @property
    def is_validated(self) -> bool:
        """Whether there was a validation after the last step."""
        return self.validated == self.step

    @property
    def epochs_done(self) -> int:
        """Epochs whose steps are done."""
        return self.epoch - (self.stage in (Stage.TRAIN, Stage.MIDWAY))

    @property
    def steps_done(self) -> int:
        """Steps of the running epoch that are done."""
        return consumed(self.cursor, self.epoch)

    @property
    def point(self) -> tuple[int, Stage, int]:
        """The moment that a resume checkpoint of now would be of."""
        return self.epoch, self.stage, self.step

    def to_json(self) -> Json:
        """The counters as plain JSON."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "stage": self.stage.value,
            "data": {"cursor": None if self.cursor is None else cursor_to_json(self.cursor)},
            "record": plain_metrics(self.record),
            "row": plain_metrics(self.row),
            "logged": plain_metrics(self.logged),
            "best": None if self.best is None else plain_metrics(self.best),
            "history": [plain_metrics(row) for row in self.history],
            "stop_reason": self.stop_reason,
            "validated": self.validated,
            "seconds": self.seconds,
            "seconds_of_epoch": self.seconds_of_epoch,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The counters that `to_json` gave.

        Raises:
            KeyError: when something is missing; `TypeError` or `ValueError` when it is no such
                value.
        """
        cursor, best = stored["data"]["cursor"], stored["best"]
        return cls(
            epoch=int(stored["epoch"]),
            step=int(stored["step"]),
            stage=Stage(stored["stage"]),
            cursor=None if cursor is None else cursor_from_json(cursor),
            record=read_metrics(stored["record"]),
            row=read_metrics(stored["row"]),
            logged=read_metrics(stored["logged"]),
            best=None if best is None else read_metrics(best),
            history=tuple(read_metrics(row) for row in stored["history"]),
            stop_reason=stored["stop_reason"],
            validated=stored.get("validated"),  # older checkpoints have none
            seconds=float(stored["seconds"]),
            seconds_of_epoch=float(stored["seconds_of_epoch"]),
        )
