"""The runs below folders, and which of them are asked for: found, filtered, sorted."""

import difflib
import math
import operator
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boltax._runs._run_files import RunFiles, direction, read_run
from boltax.checkpoint._nearby import advice_on
from boltax.errors import ConfigurationError, RunDirectoryError, unknown_name

FACTS: dict[str, Callable[[RunFiles], Any]] = {
    "run": lambda run: run.name,
    "model": lambda run: run.model,
    "state": lambda run: run.state,
    "steps": lambda run: run.step,
    "epochs": lambda run: run.epoch,
    "age": lambda run: run.age,
}
"""What a run is asked beside its metrics and hyperparameters."""

_CONDITION = re.compile(r"\s*([^=<>!\s]+)\s*(==|=|!=|<=|>=|<|>)\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def find_runs(folders: Sequence[str | Path]) -> tuple[RunFiles, ...]:
    """The runs in folders and below, each named by its path from where the folders meet.

    Raises:
        RunDirectoryError: for a folder that does not exist, or that holds no run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        place = Path(folder).expanduser()
        runs = [*_runs_in(place)] if place.is_dir() else []
        if not runs:
            what = "in which there is no run" if place.is_dir() else "which is no folder"
            raise RunDirectoryError(
                f"Received {str(folder)!r}, {what}; expected the folder of a run, or one "
                f"with runs in it. {advice_on(folder)}"
            )
        found |= dict.fromkeys(path.resolve() for path in runs)
    names = short_names([*found])
    return tuple(read_run(path, name) for path, name in zip(found, names, strict=True))


def _runs_in(folder: Path) -> Iterator[Path]:
    """The folder, and those below it, that are runs; a run's own folders hold those of members."""
    for path, folders, files in os.walk(folder):
        is_run = "hparams.json" in files or "history.csv" in files
        if is_run:
            yield Path(path)
        left_out = {"checkpoints", "metrics", "nonfinite", "images", "figures"} if is_run else set()
        folders[:] = sorted(
            (name for name in folders if name[0] not in "._" and name not in left_out), key=natural
        )


def natural(name: str) -> list[Any]:
    """A key by which ``version_10`` comes behind ``version_9``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The paths from the deepest folder that all of them share.

    Example:
        >>> short_names([Path("/runs/MLP/version_0"), Path("/runs/CNN/version_0")])
        ['MLP/version_0', 'CNN/version_0']
    """
    if len(paths) == 1:
        return ["/".join(paths[0].parts[-2:])]
    parents = [str(path.parent) for path in paths]
    base = os.path.commonpath(parents)
    return [path.relative_to(base).as_posix() for path in paths]


@dataclass(frozen=True)
class Columns:
    """What may be asked of runs, by name.

    Attributes:
        runs: the runs.
        metrics: names of their metrics.
        hyperparameters: the flat names of their hyperparameters, by the shortest name that tells
            them apart: ``{"lr": "optimizer_hparams.lr"}``.
    """

    runs: tuple[RunFiles, ...]
    metrics: tuple[str, ...]
    hyperparameters: dict[str, str]

    @classmethod
    def of(cls, runs: Sequence[RunFiles]) -> "Columns":
        metrics = dict.fromkeys(name for run in runs for name in run.metrics)
        full = dict.fromkeys(name for run in runs for name in run.hyperparameters)
        return cls(tuple(runs), tuple(metrics), {_shortest(name, full): name for name in full})

    def differing(self) -> list[str]:
        """The short names of the hyperparameters that are not the same in all runs."""
        return [
            short
            for short, full in self.hyperparameters.items()
            if len({repr(run.hyperparameters.get(full)) for run in self.runs}) > 1
        ]

    def value(self, run: RunFiles, name: str) -> Any:
        """What a run has for a name; None where it has nothing.

        Raises:
            UnknownNameError: for a name that no run has.
        """
        if name in FACTS:
            return FACTS[name](run)
        if name in self.metrics:
            return run.metrics.get(name)
        full = self.hyperparameters.get(name, name)
        if full in self.hyperparameters.values():
            return run.hyperparameters.get(full)
        known = [*FACTS, *self.metrics, *self.hyperparameters]
        near = difflib.get_close_matches(name, known, 8, 0.3)
        raise unknown_name("column of the runs", name, near or known)

    def where(self, condition: str) -> "Columns":
        """The runs for which ``NAME=VALUE`` holds, or another comparison.

        Raises:
            ConfigurationError: for a condition that is none.
            UnknownNameError: for a name that no run has.
        """
        matched = _CONDITION.fullmatch(condition)
        if matched is None:
            raise ConfigurationError(
                f"Received the condition {condition!r}; expected a name, one of = != < <= > >=, "
                'and a value. Write --where "lr>=0.01" or --where state=finished.'
            )
        name, sign, text = matched.groups()
        kept = [run for run in self.runs if _holds(self.value(run, name), sign, text)]
        return Columns(tuple(kept), self.metrics, self.hyperparameters)

    def sorted_by(self, name: str | None, *, is_reversed: bool = False) -> "Columns":
        """The runs in order, the best first; those that have no value come last.

        Args:
            name: what to sort by; None for the metric that tells the best model of the first run
                that has one, and without such for the name of the run.
            is_reversed: whether to turn the order.
        """
        if name is None:
            monitors = (run.monitor for run in self.runs if run.monitor)
            name = next((monitor[0] for monitor in monitors), "run")
        key: str = name
        values = {id(run): self.value(run, key) for run in self.runs}
        known = [run for run in self.runs if _is_known(values[id(run)])]
        unknown = [run for run in self.runs if not _is_known(values[id(run)])]
        is_max = key in self.metrics and direction(self.runs, key) == "max"
        are_numbers = all(isinstance(values[id(run)], int | float) for run in known)
        known.sort(
            key=lambda run: values[id(run)] if are_numbers else natural(str(values[id(run)])),
            reverse=is_max != is_reversed,
        )
        return Columns((*known, *unknown), self.metrics, self.hyperparameters)


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _shortest(name: str, others: dict[str, None]) -> str:
    parts = name.split(".")
    for count in range(1, len(parts)):
        short = ".".join(parts[-count:])
        if short not in FACTS and sum(o == short or o.endswith(f".{short}") for o in others) == 1:
            return short
    return name


def _holds(value: Any, sign: str, text: str) -> bool:
    if value is None:
        return sign == "!=" if text != "None" else sign in ("=", "==")
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _COMPARE[sign](value, float(text))
        except ValueError:
            return sign == "!="
    return _COMPARE[sign](str(value), text)
