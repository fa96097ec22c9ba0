"""Steps whose loss or gradient is not finite: noticed, named, stored to be run again.

The device says for each step whether it was bad, and keeps the state from before it; the host looks
at what has arrived, without waiting. So a bad step is known a few steps later, by its exact number.
"""

import dataclasses
import logging
import shutil
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._chunks import Chunk
from boltax._base._trees import describe_leaf, path_name, tree_bytes
from boltax._base._types import Batch, Cursor, Outputs, PyTree, State
from boltax._build._parts import Parts
from boltax._loop._one import One
from boltax._loop._saving import OPTIONAL, state_tree
from boltax._step._state import trained_params_of
from boltax._step._steps import compile_init
from boltax.checkpoint._arrays import write_arrays
from boltax.checkpoint._files import write_json
from boltax.checkpoint._folders import commit_folder, temporary_folder, temporary_path
from boltax.checkpoint._spec import batch_spec
from boltax.data._cursor import consumed
from boltax.errors import NonFiniteError, ProcessError, RunDirectoryError
from boltax.metrics._accumulate import Metrics

MOST_AHEAD = 16
"""Dispatches that may be on their way: with one more the host waits, and holds no more batches."""
LOOK_EVERY = 8
"""Single steps on small batches after which the host looks; at each, that costs as much as a step
that is sent off."""
MOST_HELD = 2**20
"""Bytes of such a batch: those that are on their way are held."""
MOST_STORED = 3
"""Bad steps of a run that are stored and told one by one; the others are only counted."""
_KEPT = "The state from before that step is kept, and saved as a resume checkpoint."
_LOST = "The state is not finite and not saved; the last resume checkpoint is."
_log = logging.getLogger("boltax")


class Sent(NamedTuple):
    """Steps on their way.

    Attributes:
        are_bad: what the device will say, for each step.
        step: the number of the last one.
        chunk: their batches.
        before: the cursor before the first.
    """

    are_bad: Any
    step: int
    chunk: Chunk
    before: Cursor | None


class BadStep(NamedTuple):
    """A bad step.

    Attributes:
        step: its number.
        batch: its batch, on the device.
        before: the cursor before it.
    """

    step: int
    batch: Batch
    before: Cursor | None


class NonFiniteWatch:
    """The steps of a single run on their way, and the count of those that were bad.

    Args:
        one: the run.
    """

    def __init__(self, one: One) -> None:
        self._one, self._run = one, one.run
        self._on_their_way: deque[Sent] = deque()
        # steps that are called as they are have no device that leaves out those after a bad one
        self._is_compiled = one.parts.steps.train.is_compiled

    def add(self, chunk: Chunk, outputs: Outputs, before: Cursor | None) -> None:
        """Watches steps that were sent off, and now and then looks at those that have arrived."""
        self._on_their_way.append(Sent(outputs, self._run.step, chunk, before))
        if len(self._on_their_way) % LOOK_EVERY and self._may_wait(chunk):
            return
        too_many = len(self._on_their_way) - MOST_AHEAD
        self.look(up_to=self._on_their_way[too_many - 1].step if too_many > 0 else 0)

    def _may_wait(self, chunk: Chunk) -> bool:
        """Whether a chunk may be held for longer than it needs: a single small batch."""
        return self._is_compiled and chunk.steps == 1 and tree_bytes(chunk.feed) <= MOST_HELD

    def look(self, *, up_to: int) -> None:
        """Acts on the steps that have arrived, and waits for some.

        Args:
            up_to: the number of the last step to wait for.

        Raises:
            NonFiniteError: for the first bad one, where that ends the run. Run and state are those
                of the step before it.
        """
        arrived: list[Sent] = []
        is_alone = self._run.agreement is None  # else all processes look at the same steps
        while self._on_their_way and (
            self._on_their_way[0].step <= up_to
            or (is_alone and self._on_their_way[0].are_bad.is_ready())
        ):
            arrived.append(self._on_their_way.popleft())
        if not arrived:
            return
        with self._run.ledger.spent("device"):
            flags = jax.device_get([sent.are_bad for sent in arrived])
        for sent, are_bad in zip(arrived, flags, strict=True):
            if not are_bad.any():
                continue
            for index in np.flatnonzero(np.atleast_1d(are_bad)[: sent.chunk.steps]).tolist():
                before = sent.chunk.cursors[index - 1] if index else sent.before
                step = sent.step - sent.chunk.steps + 1 + index
                self._act(BadStep(step, sent.chunk.batch(index), before))

    def _act(self, step: BadStep) -> None:
        one, run = self._one, self._run
        run.nonfinite += 1
        is_end = one.parts.loop.on_nonfinite == "stop"
        if is_end:
            self._on_their_way.clear()
            self._go_back(step)
        done = consumed(step.before, run.epoch)
        where = f"step {step.step} (epoch {run.epoch}, batch {done + 1})"
        found, folder = "", None
        if run.nonfinite <= MOST_STORED:
            found = diagnose(one.parts, one.live.state, step.batch)
            folder = _store(one, step, where, found)
        if is_end:
            # A step of the user's that takes the memory of the old state cannot be undone.
            placement = one.parts.steps.placement
            params = jax.tree.leaves(placement.to_host(trained_params_of(one.live.state)))
            run.is_saveable &= not any(map(_nonfinite, params))
            raise _error(one.parts.name, where, found, folder, is_kept=run.is_saveable)
        if run.nonfinite <= MOST_STORED or run.nonfinite % 100 == 0:
            is_skipped = one.parts.loop.on_nonfinite == "skip"
            _log.warning(
                "The loss or a gradient is not finite at %s; %s%s. That is number %d in this run.",
                where,
                "its update is left out" if is_skipped else "training goes on with it",
                f". {found}" if found else "",
                run.nonfinite,
            )

    def _go_back(self, step: BadStep) -> None:
        """Counts as if the bad step and those after it had not been sent off.

        On the device they have changed nothing.
        """
        run, metrics = self._run, self._run.metrics
        run.count(step=step.step - 1, cursor=step.before)
        kept = (due.up_to(run.step) for due in metrics.due)
        metrics.due = deque(due for due in kept if due.steps)
        if metrics.interval is not None and isinstance(metrics.interval[0], Metrics):
            none = self._one.parts.steps.placement.put(np.int32(0))
            metrics.interval = [dataclasses.replace(metrics.interval[0], left_out=none)]


def diagnose(parts: Parts, state: State, batch: Batch) -> str:
    """Names what is not finite first: in the batch, the state, the loss, or else the gradients.

    Args:
        parts: of the trainer whose step it was.
        state: the state before the step; what is found with a later one may differ.
        batch: the batch, on the device.
    """
    trees: list[tuple[str, Any]] = [("batch", batch), ("state", state_tree(state))]
    with jax.transfer_guard("allow"):
        if not parts.overrides("create_functions"):
            loss, grads = compile_init(parts.loss_steps.gradients)(state, batch)
            trees += [("loss", loss), ("gradient", grads)]
        elif not parts.overrides("create_jitted_functions"):  # else it may take the state
            new, metrics = parts.steps.train_step(state, batch)
            trees += [("metrics", metrics), ("new state", state_tree(new))]
        for name, tree in trees:
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                if (count := _nonfinite(parts.steps.placement.to_host(leaf))) is not None:
                    what = f"{path_name(path, name)}: {describe_leaf(leaf)}"
                    return f"The first that is not finite is {what}, in {count} values"
    return "With the state of now, all that was looked at is finite"


def _nonfinite(leaf: PyTree) -> str | None:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
        return None
    values = np.asarray(leaf)
    bad = ~np.isfinite(values.astype(np.complex128 if values.dtype.kind == "c" else np.float64))
    return f"{int(bad.sum())} of {bad.size}" if bad.any() else None


def _store(one: One, step: BadStep, where: str, found: str) -> Path | None:
    """Stores state and batch so that `boltax replay` can run the step again; None if it cannot."""
    run, state = one.run, one.live.state
    folder = one.parts.directory.nonfinite / str(step.step)
    processes, what = one.parts.steps.placement.group, "storing a step"
    temporary = temporary_path(folder)

    def begin() -> bool:
        if len([path for path in folder.parent.glob("[0-9]*") if path != folder]) >= MOST_STORED:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        temporary_folder(folder)
        return True

    try:
        if not processes.of_first(what, begin):
            return None
        spec = batch_spec(step.batch, one.parts.names)
        arrays = {"state": state_tree(state), "batch": jax.tree.leaves(step.batch)}
        processes.together(what, lambda: write_arrays(temporary, "arrays", arrays))
        report = {
            "step": step.step,
            "where": where,
            "found": found,
            "policy": one.parts.loop.on_nonfinite,
            "state_of_step": int(jax.device_get(state.step)),
            "batch": spec,
            "optional": [name for name in OPTIONAL if name in arrays["state"]],
            "num_epochs": run.limits.num_epochs,
            "steps_per_epoch": run.train_source.num_batches,
        }

        def commit() -> None:
            write_json(temporary / "report.json", report)
            commit_folder(folder)

        processes.by_first(what, commit)
    except (RunDirectoryError, ProcessError, OSError) as error:
        if processes.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
        _log.warning("The step could not be stored to be run again: %s", error)
        return None
    return folder


def _error(
    name: str, where: str, found: str, folder: Path | None, *, is_kept: bool
) -> NonFiniteError:
    replay = f"boltax replay {folder} --trainer FILE.py:{name}"
    shown = f" The step is stored; to see where it comes from, write: {replay}." if folder else ""
    return NonFiniteError(
        f"Received a loss or gradient that is not finite at {where}. {found}; expected finite "
        f"numbers. {_KEPT if is_kept else _LOST}{shown} To leave such steps out, write "
        "LoopOptions(on_nonfinite='skip'); a lower learning rate or gradient clipping may prevent "
        "them."
    )
