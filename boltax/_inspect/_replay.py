"""Runs a stored step again: without compilation, one primitive after the other, looking for NaN.

    found = replay("runs/ResNet/version_0", Classifier)
    print(found)

What is loaded is arrays and JSON; the trainer's class comes from the caller.
"""

import os
import traceback
from pathlib import Path
from typing import Any

import jax

from boltax._build._parts import parts_of
from boltax._build._remade import rebuild
from boltax._loop._nonfinite import diagnose
from boltax._loop._saving import state_tree
from boltax.checkpoint._arrays import read_arrays
from boltax.checkpoint._files import read_json
from boltax.checkpoint._manifest import verify_folder
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._spec import zeros_from_spec
from boltax.errors import CheckpointError

_INSIDE = tuple(f"{os.sep}{name}{os.sep}" for name in ("jax", "flax", "optax", "boltax"))


def replay(run: str | os.PathLike[str], trainer_class: type[Any], exmp_input: Any = None) -> str:
    """Runs a step that was not finite once more, and says where it stops being finite.

    Args:
        run: a run's folder, for the step stored last, or a folder ``<run>/nonfinite/<step>``.
        trainer_class: the class of the trainer that stored it.
        exmp_input: an example batch, where the run could not store its shape.

    Returns:
        What was found: the primitive, and the line of the model or loss that called it.

    Raises:
        CheckpointError: when there is no such step, or its files are damaged.
    """
    folder = _find(Path(run))
    if faults := verify_folder(folder):
        raise CheckpointError(
            f"Received the step {folder}, which is damaged: {'; '.join(faults)}. Expected it as "
            "saved. Train until it happens again."
        )
    report = read_json(folder / "report.json")
    trainer = rebuild(trainer_class, folder.parents[1], exmp_input, {"enable_progress_bar": False})
    batch = zeros_from_spec(report["batch"], trainer._made.names)
    state, leaves = _load(trainer, folder, report)
    batch = jax.tree.unflatten(jax.tree.structure(batch), leaves)
    head = [f"{report['where']}: {report['found']}"]
    if report["state_of_step"] != report["step"] - 1:
        head.append(
            f"The state is that of step {report['state_of_step']}, not of the step before, as "
            f"on_nonfinite={report['policy']!r} goes on: it may not happen again."
        )
    train_step, _ = trainer.create_functions()
    for kind, check in (("NaN", jax.debug_nans), ("infinity", jax.debug_infs)):
        try:
            with jax.disable_jit(), check(True):
                train_step(state, batch)
        except FloatingPointError as error:
            return "\n".join([*head, f"The first {kind}: {_where(error)}"])
    finite = "Run without compilation, every primitive of the step gives finite numbers."
    return "\n".join([*head, finite, f"Compiled: {diagnose(parts_of(trainer), state, batch)}."])


def _find(path: Path) -> Path:
    if path.parent.name == "nonfinite" and path.is_dir():
        return path
    stored = [p for p in RunDirectory(path).nonfinite.glob("*") if p.name.isdigit()]
    if not stored:
        raise CheckpointError(
            f"Received {path}, which holds no step that was not finite; expected a run's folder "
            "with nonfinite/<step>. They are stored when a loss or gradient is not finite."
        )
    return max(stored, key=lambda p: int(p.name))


def _load(trainer: Any, folder: Path, report: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The state with its optimizer, and the leaves of the batch."""
    shapes = state_tree(trainer.state)
    made_later = {"opt_state", "hparams", *(report.get("optional") or ())}
    free = shapes | dict.fromkeys(made_later, ...)
    arrays = read_arrays(folder, "arrays", {"state": free, "batch": ...})
    variables = {n: v for n, v in arrays["state"].items() if free[n] is not ...}
    trainer.state = trainer.state.replace(**variables)
    trainer.init_optimizer(report["num_epochs"], report["steps_per_epoch"])
    template = {"state": state_tree(trainer.state), "batch": ...}
    state = read_arrays(folder, "arrays", template)["state"]
    return trainer.state.replace(**state), trainer._made.placement.put_feed(list(arrays["batch"]))


def _where(error: FloatingPointError) -> str:
    """The message, and the line of the user's code that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in _INSIDE)]
    message = str(error).splitlines()[0] if str(error) else "a number that is not finite"
    if not own:
        return message
    last = own[-1]
    return f"{message}\n  {last.filename}, line {last.lineno}, in {last.name}\n    {last.line}"
