"""Proves for a user's trainer that a resumed run equals the uninterrupted one."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np

from boltax._base._chunks import Chunk, Plan
from boltax._base._types import PyTree
from boltax.checkpoint._dtypes import is_key
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import ConfigurationError
from boltax.trainer import TrainerModule

_MOST_NAMED = 20
_OF_THE_CALL = ("time", "seconds", "seconds_of_epoch", "config")
"""Parts of a checkpoint's progress that are not about the run."""


class _InterruptionError(Exception):
    """Ends a run as a fault in user code would."""


def assert_resumes_exactly(
    make_trainer: Callable[[str], TrainerModule],
    make_loaders: Callable[[], Sequence[Any]],
    *,
    num_epochs: int = 2,
    interrupt_at: int | Iterable[int] | None = None,
    folder: str | os.PathLike[str] | None = None,
    **arguments: Any,
) -> None:
    """Trains, and trains again with interruptions, and compares all that the two runs have left.

    The state with every parameter, moment and key, the metrics of all epochs, the place in the
    data, the state of callbacks, ``history.csv`` and ``metrics/*.json`` have to be equal bit for
    bit. An interrupted run goes on with a new trainer and new loaders, as in a new process.

    Args:
        make_trainer: ``(log_dir) -> trainer``: makes a new trainer that writes to this folder,
            ``logger_params={"log_dir": log_dir}``.
        make_loaders: makes new loaders: for training, and where wanted for validation and test.
        num_epochs: epochs to train.
        interrupt_at: after how many steps to interrupt, once or several times; by default after the
            first step and in the middle.
        folder: where the two runs write; by default a temporary folder, which is deleted.
        **arguments: further ones of `train_model`, such as ``validate_every=3``.

    Raises:
        AssertionError: naming every array, metric and file that differs.
        ConfigurationError: when a step to interrupt at is never reached.

    Example:
        >>> import flax.linen as nn, numpy as np, boltax as bx
        >>> class Regressor(bx.TrainerModule):
        ...     def loss_function(self, model, batch, train):
        ...         return ((model(batch[0]) - batch[1]) ** 2).mean(-1), {}
        >>> def make_loaders():
        ...     x = np.ones((8, 2), np.float32)
        ...     return [bx.data.ArrayLoader((x, x), batch_size=2, shuffle=True)]
        >>> def make_trainer(log_dir):
        ...     return Regressor(
        ...         nn.Dense, {"features": 2}, {"lr": 0.1}, 2 * (np.ones((2, 2), np.float32),),
        ...         logger_params={"log_dir": log_dir}, enable_progress_bar=False,
        ...     )
        >>> assert_resumes_exactly(make_trainer, make_loaders)
    """
    arguments["num_epochs"] = num_epochs
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            _compare(make_trainer, make_loaders, arguments, interrupt_at, Path(temporary))
    else:
        _compare(make_trainer, make_loaders, arguments, interrupt_at, Path(folder))


def _compare(
    make_trainer: Callable[[str], TrainerModule],
    make_loaders: Callable[[], Sequence[Any]],
    arguments: dict[str, Any],
    interrupt_at: int | Iterable[int] | None,
    folder: Path,
) -> None:
    folders = folder / "uninterrupted", folder / "resumed"
    trainer = make_trainer(str(folders[0]))
    metrics = [trainer.train_model(*make_loaders(), **arguments)]
    steps = trainer.run.step if trainer.run else 0
    if interrupt_at is None:
        interrupt_at = sorted({1, max(1, steps // 2)})
    points = [interrupt_at] if isinstance(interrupt_at, int) else sorted(interrupt_at)
    if not all(0 < point < steps for point in points):
        raise ConfigurationError(
            f"Received interrupt_at={points} for a run of {steps} steps; expected steps from 1 to "
            f"{steps - 1}."
        )
    for point in points:
        trainer = make_trainer(str(folders[1]))
        trainer._made.steps = dataclasses.replace(
            trainer._made.steps, train=_Interrupted(trainer, point)
        )
        with contextlib.suppress(_InterruptionError):
            trainer.train_model(*make_loaders(), **arguments, resume=True)
    trainer = make_trainer(str(folders[1]))
    metrics.append(trainer.train_model(*make_loaders(), **arguments, resume=True))
    last = [_last(path) for path in folders]
    found = [
        *_differences("metrics", *metrics),
        *_differences("state", *(each.arrays["state"] for each in last)),
        *_differences("run", *(_about_the_run(each) for each in last)),
        *_differing_files(*folders),
    ]
    if found:
        more = f"\n... and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        listed = "\n".join(f"  {text}" for text in found[:_MOST_NAMED])
        raise AssertionError(
            f"the run that was interrupted after step {', '.join(map(str, points))} and resumed "
            f"differs from the uninterrupted one:\n{listed}{more}"
        )


class _Interrupted:
    """A trainer's step that raises when a number of steps are done; near there it goes one by one.

    Args:
        trainer: whose step.
        last: the number.
    """

    def __init__(self, trainer: TrainerModule, last: int) -> None:
        self._trainer, self._step, self._last = trainer, trainer._made.steps.train, last
        self.is_compiled = self._step.is_compiled

    @property
    def flops(self) -> int | None:
        """As the step."""
        return self._step.flops

    def precompile(self, *args: Any, **options: Any) -> Future[Any] | None:
        """As the step."""
        return self._step.precompile(*args, **options)

    def restart(self) -> None:
        """As the step."""
        self._step.restart()

    def plan(self, distance: int, remaining: int | None, until_due: int | None = None) -> Plan:
        """As the step; it is asked some chunks ahead."""
        plan = self._step.plan(distance, remaining, until_due)
        return plan if self._done + 4 * plan.steps < self._last else Plan()

    def __call__(self, constants: Any, carry: Any, chunk: Chunk) -> tuple[Any, Any]:
        """As the step, until it raises."""
        if self._done >= self._last:
            raise _InterruptionError
        return self._step(constants, carry, chunk)

    @property
    def _done(self) -> int:
        return self._trainer.run.step if self._trainer.run else 0


def _last(folder: Path) -> Resume:
    template = {"state": ..., "interval": ..., "epoch": ...}
    found = ResumeCheckpoints(RunDirectory(folder).resume).restore(template)
    if found is None:
        raise ConfigurationError(
            f"Received a trainer that left no resume checkpoint in {folder}; expected one. Give it "
            "logger_params={'log_dir': log_dir} and CheckpointOptions(keep_last=...) of at least 1."
        )
    return found


def _about_the_run(resume: Resume) -> dict[str, Any]:
    return {name: v for name, v in resume.progress.items() if name not in _OF_THE_CALL}


def _differences(name: str, left: PyTree, right: PyTree) -> list[str]:
    """What is not bitwise the same, leaf by leaf."""
    leaves = [
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
        for t in (_without_times(left), _without_times(right))
    ]
    found: list[str] = []
    for path in {**leaves[0], **leaves[1]}:
        if path not in leaves[0] or path not in leaves[1]:
            found.append(f"{name}{path} is only in one of the two")
        elif text := _difference(leaves[0][path], leaves[1][path]):
            found.append(f"{name}{path}: {text}")
    return found


def _without_times(tree: PyTree) -> PyTree:
    if isinstance(tree, dict):
        return {k: _without_times(v) for k, v in tree.items() if not str(k).startswith("time/")}
    return [_without_times(item) for item in tree] if isinstance(tree, list) else tree


def _difference(left: Any, right: Any) -> str:
    if isinstance(left, str) or isinstance(right, str):
        return "" if left == right else f"{left!r} against {right!r}"
    if isinstance(left, jax.Array) and is_key(left.dtype):
        left, right = jax.random.key_data(left), jax.random.key_data(right)
    one, other = np.asarray(left), np.asarray(right)
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype}{list(one.shape)} against {other.dtype}{list(other.shape)}"
    if one.tobytes() == other.tobytes():
        return ""
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return f"differs by up to {gap:.3g}" if one.size > 1 else f"{left} against {right}"


def _differing_files(left: Path, right: Path) -> list[str]:
    names = {
        path.relative_to(folder).as_posix()
        for folder in (left, right)
        for path in (folder / "history.csv", *(folder / "metrics").glob("*.json"))
    }
    differing = [name for name in sorted(names) if _bytes(left / name) != _bytes(right / name)]
    return [f"{name} differs" for name in differing]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
