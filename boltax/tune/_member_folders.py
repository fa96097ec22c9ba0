"""The folders of members, each that of an ordinary run, and the table of all of them.

runs/MLP/version_0/
  members.csv  epochs.csv          the table
  members/007/                     the folder of an ordinary run, for member 7
    hparams.json  checkpoints/best/<step>/
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boltax._build._remade import variant, write_variant
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.checkpoint._saver import Job
from boltax.parallel._parallel import Parallel
from boltax.trainer import TrainerModule
from boltax.tune._members import Members
from boltax.tune._schedulers import Member
from boltax.tune._table import Table
from boltax.tune._values import Varied


def write_best(members: Members, member: Member) -> None:
    """Has the best variables of a member written to its folder in the background."""
    if (
        member.best is None
        or member.number in members.written
        or not members.has_row(member.number)
    ):
        return
    parts, trainer, varied = members.parts, members.hooks, members.varied
    with members.run.ledger.spent("checkpoints"):  # it waits while two are to be written
        row = members.row_of(member.number)
        variables = members.rows.row(members.best, members.size, row)
        members.written.add(member.number)
        best = dict(member.best)

        def write() -> None:
            folder = member_folder(parts.folder, member.number)
            if not RunDirectory(folder).hparams.exists():
                write_variant(trainer, folder, _changes(trainer, varied, member))
            step = int(best["step"])
            metrics = {name: value for name, value in best.items() if "/" in name}
            BestCheckpoints(RunDirectory(folder).best).save(step, variables, metrics)

        what = f"the best model of member {member.number}"
        parts.saver.submit(Job(what, f"member {member.number}", write))


def member_folder(folder: str, number: int) -> Path:
    """The folder of a member, which is that of an ordinary run.

    Args:
        folder: that of the population.
        number: of the member.
    """
    return Path(folder) / "members" / f"{number:03d}"


def trainer_of(
    trainer: TrainerModule, varied: Varied, member: Member, parallel: Parallel | None = None
) -> TrainerModule:
    """An ordinary trainer for a member, in its folder; its state has shapes and no values yet.

    Args:
        trainer: of the population.
        varied: the hyperparameters that differ.
        member: which one.
        parallel: how it lay on several devices.
    """
    folder = member_folder(trainer.log_dir, member.number)
    lies = {} if parallel is None else {"parallel": parallel}
    return variant(trainer, folder, _changes(trainer, varied, member) | lies)


def _changes(trainer: TrainerModule, varied: Varied, member: Member) -> dict[str, Any]:
    """The constructor arguments of a member that are not the trainer's."""
    values = varied.complete(member.values, member.number)
    changes: dict[str, Any] = {n: values[n] for n in varied.loss_names} | {"seed": member.seed}
    if isinstance(trainer.optimizer_hparams, Mapping):
        changes["optimizer_hparams"] = varied.optimizer_hparams(values)
    return changes


def table_of(members: Members) -> Table:
    """The table of all members, as it is now."""
    rows = [
        {
            "member": member.number,
            "seed": member.seed,
            **members.varied.complete(member.values, member.number),
            "status": member.status.value,
            "reason": member.reason,
            "epoch": member.epoch,
            "step": member.step,
            **{n: v for n, v in (member.best or {}).items() if "/" in n},
        }
        for member in members.members
    ]
    return Table(rows=rows, history=members.run.history, monitors=members.monitors)


def write_table(table: Table, folder: str) -> None:
    """Writes ``members.csv`` and ``epochs.csv``."""
    table.to_csv(Path(folder) / "members.csv")
    if table.history:
        table.to_csv(Path(folder) / "epochs.csv", history=True)
