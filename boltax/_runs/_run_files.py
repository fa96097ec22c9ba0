"""A run as its folder has it: what it was given, how far it came, what it reached.

Plain files are read, no array and no code. What is missing or damaged is left out: a table of many
runs must not fail for one of them.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from boltax._base._monitor import GUIDE_ORDER, direction_of
from boltax._runs._member_files import is_member, rows_of_member
from boltax.checkpoint._end_file import read_end
from boltax.checkpoint._files import read_json
from boltax.checkpoint._lock import is_held
from boltax.checkpoint._metrics_json import read_metrics
from boltax.checkpoint._progress_json import decode_progress
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._step_folders import folders_in
from boltax.errors import BoltaxError
from boltax.loggers._history import History

NOT_OF_THE_MODEL = {
    *("constructor", "exmp_input", "logger_params", "enable_progress_bar", "debug"),
    *("model_class", "check_val_every_n_epoch", "checkpoint", "callbacks"),
}
"""What of ``hparams.json`` is no hyperparameter: runs that differ in these alone are alike."""


@dataclass(frozen=True)
class RunFiles:
    """A run.

    Attributes:
        path: its folder.
        name: how it is called beside others.
        stored: its ``hparams.json``.
        history: one row for each epoch.
        best: metrics of the best validation.
        tested: metrics of the test.
        state: ``"running"``, ``"finished"``, ``"stopped"``, ``"interrupted"``, ``"failed"``,
            ``"pruned"``, or ``"new"`` for one that has not trained.
        reason: of its end, where it has one.
        step: completed steps.
        epoch: the last epoch.
        seconds: where the time of its last process went; empty where nobody knows.
        changed: when it last wrote something, in seconds since 1970.
    """

    path: Path
    name: str
    stored: Mapping[str, Any] = field(default_factory=dict[str, Any])
    history: tuple[Mapping[str, Any], ...] = ()
    best: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tested: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state: str = "new"
    reason: str | None = None
    step: int = 0
    epoch: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    changed: float = 0.0

    @property
    def model(self) -> str:
        """The name of the model's class."""
        return str(self.stored.get("model_class", "?"))

    @property
    def age(self) -> float:
        """Seconds since it last wrote something."""
        return max(time.time() - self.changed, 0.0)

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """Every hyperparameter by a flat name: ``{"optimizer_hparams.lr": 0.001, ...}``."""
        own = {name: v for name, v in self.stored.items() if name not in NOT_OF_THE_MODEL}
        given = _given(self.stored)
        loop = given.get("loop")
        if isinstance(loop, Mapping) and isinstance(loop.get("__dataclass__"), Mapping):
            own["loop"] = loop["__dataclass__"].get("fields", {})
        return dict(_flat(own, ""))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of the best validation and of the test."""
        both = {**self.best, **self.tested}
        return {n: float(v) for n, v in both.items() if isinstance(v, int | float)}

    @property
    def monitor(self) -> tuple[str, str] | None:
        """The metric that tells the best model, and its direction, where there is one."""
        given = _given(self.stored).get("monitor")
        pair = given.get("__tuple__") if isinstance(given, Mapping) else given
        if isinstance(pair, list) and len(pair) == 2:
            return str(pair[0]), str(pair[1])
        known = (pair for pair in GUIDE_ORDER if pair[0] in self.best)
        return next(known, None)

    def to_json(self) -> dict[str, Any]:
        """All of it but the history, as plain JSON; numbers that JSON lacks are words."""
        return {
            "run": self.name,
            "path": str(self.path),
            "model": self.model,
            "state": self.state,
            "reason": self.reason,
            "step": self.step,
            "epoch": self.epoch,
            "age_seconds": round(self.age, 1),
            "metrics": {n: v if math.isfinite(v) else str(v) for n, v in self.metrics.items()},
            "hyperparameters": self.hyperparameters,
        }


def read_run(folder: str | Path, name: str = "") -> RunFiles:
    """The run in a folder, with what of its files can be read."""
    directory = RunDirectory(folder)
    stored = _json(directory.hparams)
    history = _history(directory)
    if is_member(directory.path):
        return _member(directory, name, stored)
    last: Mapping[str, Any] = history[-1] if history else {}
    end, progress = read_end(folder), {}
    if end is None:
        progress = _progress(directory)
    state, reason = _state(directory, bool(history), progress)
    if end is not None and state != "running":
        state, reason = end.how, end.reason
    steps = (end.step if end else 0, progress.get("step"), last.get("step"))
    epochs = (end.epoch if end else 0, progress.get("epoch"), last.get("epoch"))
    return RunFiles(
        Path(folder),
        name or str(folder),
        stored,
        history,
        _metrics(directory.metrics / "best_eval.json"),
        _metrics(directory.metrics / "test.json"),
        state,
        reason,
        max(n for n in steps if isinstance(n, int)),
        max(n for n in epochs if isinstance(n, int)),
        end.seconds if end else {},
        _changed(directory),
    )


def _member(directory: RunDirectory, name: str, stored: Mapping[str, Any]) -> RunFiles:
    """A member of a population, most of which stands in the tables of that."""
    folder = directory.path
    history = rows_of_member(folder, "epochs.csv")
    found = rows_of_member(folder, "members.csv")
    row = found[-1] if found else {}
    last: Mapping[str, Any] = history[-1] if history else {}
    kept = folders_in(directory.best).saved()
    best = _decoded(kept[-1].content) if kept else {}
    is_running = is_held(folder.parent.parent)
    return RunFiles(
        folder,
        name or str(folder),
        stored,
        history,
        best,
        state="running" if is_running else str(row.get("status", "interrupted")),
        reason=row.get("reason"),
        step=max(int(part.get("step", 0)) for part in (row, last)),
        epoch=max(int(part.get("epoch", 0)) for part in (row, last)),
        changed=_changed(directory),
    )


def _state(
    directory: RunDirectory, has_history: bool, progress: Mapping[str, Any]
) -> tuple[str, str | None]:
    """The state of a run that did not note its end."""
    if is_held(directory.path):
        return "running", None
    if not progress:
        return ("interrupted" if has_history else "new"), None
    total, step = progress.get("total_steps"), progress.get("step")
    is_whole = progress.get("stage") == "complete" and isinstance(total, int) and step == total
    reason = progress.get("stop_reason")
    return ("finished" if is_whole or reason else "interrupted"), reason


def _given(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    call = stored.get("constructor")
    named = call.get("named") if isinstance(call, Mapping) else None
    return named if isinstance(named, Mapping) else {}


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else str(name))
    else:
        is_plain = value is None or isinstance(value, str | int | float)
        yield path, value if is_plain else json.dumps(value)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except BoltaxError:
        return {}
    return value if isinstance(value, dict) else {}


def _metrics(path: Path) -> dict[str, Any]:
    return _decoded(_json(path))


def _decoded(stored: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(read_metrics(stored))
    except BoltaxError:
        return {}


def _history(directory: RunDirectory) -> tuple[dict[str, Any], ...]:
    if not directory.history.is_file():
        return ()
    try:
        return tuple(History(directory.history).rows())
    except (BoltaxError, OSError, ValueError):
        return ()


def _progress(directory: RunDirectory) -> dict[str, Any]:
    """What the newest resume checkpoint says of where the run is."""
    for saved in reversed(folders_in(directory.resume).saved()):
        try:
            return decode_progress(saved.content)
        except BoltaxError:
            continue
    return {}


def _changed(directory: RunDirectory) -> float:
    places = (
        *(directory.hparams, directory.history, directory.end, directory.metrics),
        *(directory.resume, directory.path),
    )
    times: list[float] = []
    for place in places:
        try:
            times.append(place.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def direction(runs: tuple[RunFiles, ...], metric: str) -> str:
    """``"min"`` or ``"max"``: which values of a metric are better."""
    monitored = (run.monitor for run in runs)
    known = (pair[1] for pair in monitored if pair is not None and pair[0] == metric)
    return next(known, None) or direction_of(metric) or "max"
