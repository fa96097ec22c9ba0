"""What a population writes: resume checkpoints of all of it, and the best model of each member.

runs/MLP/version_0/
  members.csv  epochs.csv          the table
  checkpoints/resume/<step>/       all members, their metrics, who they are; the counters
  members/007/                     the folder of an ordinary run, for member 7
    hparams.json  checkpoints/best/<step>/
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import SingleDeviceSharding

from boltax._base._types import PyTree
from boltax._build._stored import variant, write_variant
from boltax._loop._saving import state_tree
from boltax._step._state import variables_of
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._metrics_json import plain_metrics, read_metrics
from boltax.checkpoint._plain import plain
from boltax.checkpoint._resume import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Job
from boltax.data._cursor import cursor_from_json, cursor_to_json
from boltax.data._fingerprint import check_fingerprint
from boltax.errors import CheckpointError, noting
from boltax.metrics._accumulate import SavedMetrics
from boltax.parallel._devices import Device
from boltax.tune._lanes import most_lanes
from boltax.tune._run import Layout, PopulationRun, monitors
from boltax.tune._schedulers import Member, Status
from boltax.tune._table import Table
from boltax.tune._values import Varied

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


def is_save_due(run: PopulationRun, *, ended_epoch: int | None = None) -> bool:
    """Whether to save a resume checkpoint now."""
    if not run.trainer.checkpoint.keep_last or run.saver.is_busy:
        return False
    return run.save_trigger.is_due(
        step=run.step, seconds=time.monotonic() - run.saved_at, ended_epoch=ended_epoch
    )


def save_population(run: PopulationRun) -> None:
    """Has a resume checkpoint of this moment written in the background."""
    if not run.trainer.checkpoint.keep_last:
        return
    run.saved_at = time.monotonic()
    with run.ledger.spent("checkpoints"):
        run.trainer.logger.flush()
        metrics = None
        if run.metrics is not None:
            metrics = [
                m.leaves if isinstance(m, SavedMetrics) else jax.tree.leaves(run.rows.copy(m))
                for m in run.metrics
            ]
        arrays = {
            "states": [state_tree(run.rows.copy(state)) for state in run.states],
            "best": [run.rows.copy(best) for best in run.best],
            "metrics": metrics,
        }
        step, progress = run.step, _progress(run)
        checkpoints = ResumeCheckpoints(
            RunDirectory(run.trainer.log_dir).resume, keep=run.trainer.checkpoint.keep_last
        )
        table, folder = table_of(run), Path(run.trainer.log_dir)

        def write() -> None:
            checkpoints.save(step, arrays, progress)
            write_table(table, folder)

        run.saver.submit(Job(f"the resume checkpoint of step {step}", "resume", write))


def restore_population(run: PopulationRun) -> bool:
    """Goes on where the newest good resume checkpoint of the trainer's folder was saved.

    Returns:
        Whether there was one.

    Raises:
        CheckpointError: when all are damaged, or of other members.
        DataError: when the checkpoint was saved with other training data.
    """
    checkpoints = ResumeCheckpoints(RunDirectory(run.trainer.log_dir).resume)
    anything = dict.fromkeys(("states", "best", "metrics"), ...)
    if not checkpoints.steps() or (found := checkpoints.restore(anything)) is None:
        return False
    progress = found.progress
    try:
        members = [_read_member(stored) for stored in progress["members"]]
        _check_members(run, progress["given"])
        check_fingerprint(progress["data"]["fingerprint"], run.source.fingerprint(), "train_loader")
        layout = Layout(**progress["layout"])
        number = len(found.arrays["states"])
        form = run.maker.form()
        one = {"states": state_tree(form), "best": variables_of(form)}
        if run.is_spread or layout.devices > 1:  # the groups stay, and so do the numbers
            layout = replace(layout, devices=len(run.devices))
        lanes = min(layout.lanes, most_lanes(run.devices[: layout.devices]))
        run.layout, run.members = replace(layout, lanes=lanes), members
        devices = [run.device_of(index) for index in range(number)]
        template = {
            name: [_with_axis(tree, layout.size, device) for device in devices]
            for name, tree in one.items()
        }
        arrays = checkpoints.restore(template | {"metrics": ...}, found.step)
        _set(run, progress, {} if arrays is None else arrays.arrays)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"Received {found.folder}, whose progress.json is not that of a population "
            f"({type(error).__name__}: {error}); expected one that Population.train_model saved. "
            "Give the population a trainer with a folder of its own."
        ) from error
    with noting(f"scheduler {type(run.scheduler).__name__}.load_state_dict"):
        run.scheduler.load_state_dict(progress["scheduler"])
    run.trainer.logger.resume(run.step)
    run.trainer._made.progress.note(
        f"Goes on from step {run.step}, epoch {run.epoch}, saved {progress['time']}"
    )
    return True


def _set(
    run: PopulationRun,
    progress: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> None:
    form = run.maker.form()
    # The state of one member has the static parts; they belong to no array.
    run.states = [
        form.replace(**state, tx=run.maker.optimizer.optimizer.tx) for state in arrays["states"]
    ]
    run.best = list(arrays["best"])
    run.metrics = None
    if arrays["metrics"] is not None:
        run.metrics = [SavedMetrics(list(leaves)) for leaves in arrays["metrics"]]
    run.occupants = [int(number) for number in progress["occupants"]]
    run.epoch, run.step = int(progress["epoch"]), int(progress["step"])
    run.is_trained = bool(progress["is_trained"])
    cursor = progress["data"]["cursor"]
    run.cursor = None if cursor is None else cursor_from_json(cursor)
    run.is_resumed = run.cursor is not None
    run.history = [read_metrics(row) for row in progress["history"]]
    run.started = time.monotonic() - float(progress["seconds"])
    run.written = {int(number) for number in progress["written"]}


def _progress(run: PopulationRun) -> dict[str, Any]:
    """All of a population that is no array, as it is now."""
    layout = run.layout or Layout(1)
    with noting(f"scheduler {type(run.scheduler).__name__}.state_dict"):
        scheduler = dict(run.scheduler.state_dict())
    return {
        "population": 1,
        "step": run.step,
        "epoch": run.epoch,
        "is_trained": run.is_trained,
        "layout": {
            "size": layout.size,
            "devices": layout.devices,
            "seconds": layout.seconds,
            "compile_seconds": layout.compile_seconds,
            "lanes": layout.lanes,
        },
        "occupants": list(run.occupants),
        "members": [_plain_member(member) for member in run.members],
        "given": run.given,
        "written": sorted(run.written),
        "history": [plain_metrics(row) for row in run.history],
        "scheduler": scheduler,
        "seconds": time.monotonic() - run.started,
        "data": {
            "cursor": None if run.cursor is None else cursor_to_json(run.cursor),
            "fingerprint": run.source.fingerprint(),
        },
        "config": plain(run.trainer.config),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _plain_member(member: Member) -> dict[str, Any]:
    return {
        "number": member.number,
        "seed": member.seed,
        "values": dict(member.values),
        "epoch": member.epoch,
        "step": member.step,
        "metrics": plain_metrics(member.metrics),
        "best": None if member.best is None else plain_metrics(member.best),
        "status": member.status.value,
        "reason": member.reason,
        "replaces": member.replaces,
        "copied_from": list(member.copied_from),
    }


def _read_member(stored: Mapping[str, Any]) -> Member:
    values: dict[str, Any] = dict(stored)
    values["metrics"] = read_metrics(stored["metrics"])
    values["best"] = None if stored["best"] is None else read_metrics(stored["best"])
    values["status"] = Status(stored["status"])
    values["copied_from"] = tuple(stored["copied_from"])
    return Member(**values)


def _check_members(run: PopulationRun, given: list[Any]) -> None:
    if given != run.given:
        changed = [n for n, (a, b) in enumerate(zip(given, run.given, strict=False)) if a != b]
        raise CheckpointError(
            f"Received a population of {len(run.given)} members for a folder that holds one of "
            f"{len(given)}"
            + (f", and others from member {changed[0]} on" if changed else "")
            + "; expected the same members, to go on with them. Give the members that the "
            "population was started with, or a trainer with a folder of its own."
        )


def _with_axis(tree: PyTree, size: int, device: Device) -> PyTree:
    axis, sharding = (size,) if size > 1 else (), SingleDeviceSharding(device)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*axis, *x.shape), x.dtype, sharding=sharding), tree
    )


def write_best(run: PopulationRun, member: Member) -> None:
    """Has the best variables of a member written to its folder in the background."""
    if member.best is None or member.number in run.written or not run.has_row(member.number):
        return
    row = run.row_of(member.number)
    variables = run.rows.row(run.best, run.size, row)
    run.written.add(member.number)
    best, trainer, varied = dict(member.best), run.trainer, run.varied

    def write() -> None:
        folder = member_folder(trainer, member.number)
        if not RunDirectory(folder).hparams.exists():
            write_variant(trainer, folder, _changes(trainer, varied, member))
        step = int(best["step"])
        metrics = {name: value for name, value in best.items() if "/" in name}
        BestCheckpoints(RunDirectory(folder).best).save(step, variables, metrics)

    run.saver.submit(Job(f"the best model of member {member.number}", f"{member.number}", write))


def member_folder(trainer: "TrainerModule", number: int) -> Path:
    """The folder of a member, which is that of an ordinary run."""
    return Path(trainer.log_dir) / "members" / f"{number:03d}"


def trainer_of(trainer: "TrainerModule", varied: Varied, member: Member) -> "TrainerModule":
    """An ordinary trainer for a member, in its folder; its state has shapes and no values yet."""
    folder = member_folder(trainer, member.number)
    return variant(trainer, folder, _changes(trainer, varied, member))


def _changes(trainer: "TrainerModule", varied: Varied, member: Member) -> dict[str, Any]:
    """The constructor arguments of a member that are not the trainer's."""
    values = varied.complete(member.values, member.number)
    changes: dict[str, Any] = {n: values[n] for n in varied.loss_names} | {"seed": member.seed}
    if isinstance(trainer.optimizer_hparams, Mapping):
        changes["optimizer_hparams"] = varied.optimizer_hparams(values)
    return changes


def table_of(run: PopulationRun) -> Table:
    """The table of all members, as it is now."""
    rows = [
        {
            "member": member.number,
            "seed": member.seed,
            **run.varied.complete(member.values, member.number),
            "status": member.status.value,
            "reason": member.reason,
            "epoch": member.epoch,
            "step": member.step,
            **{n: v for n, v in (member.best or {}).items() if "/" in n},
        }
        for member in run.members
    ]
    return Table(rows=rows, history=list(run.history), monitors=monitors(run))


def write_table(table: Table, folder: Path) -> None:
    """Writes ``members.csv`` and ``epochs.csv``."""
    table.to_csv(folder / "members.csv")
    if table.history:
        table.to_csv(folder / "epochs.csv", history=True)
