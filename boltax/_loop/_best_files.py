"""The files of a single run beside its resume checkpoints: brought back to one of them."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from boltax._build._hooks import Hooks
from boltax._build._parts import Parts
from boltax._loop._run import Run
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.loggers._history import History

_log = logging.getLogger("boltax")


def restore_best(parts: Parts, run: Run, found: Resume) -> None:
    """Brings the best models back to those of the checkpoint, without any that came after it."""
    steps, own = list(found.progress["best_steps"]), parts.directory
    source = RunDirectory(found.folder.parents[2])
    is_own = source.path.resolve() == own.path.resolve()
    run.clock.best_steps = steps
    best = BestCheckpoints(own.best, keep=parts.checkpoint.keep_best)
    processes = parts.steps.placement.group
    if not is_own:
        best.take_over(BestCheckpoints(source.best), steps)
    else:
        kept = ResumeCheckpoints(own.resume).best_steps()
        processes.by_first("the best models", lambda: best.go_back(steps, kept))
    last = processes.of_first("the best model", lambda: best.steps()[-1:])
    if run.best is not None and steps[-1:] != last:
        _log.warning(
            "The best model so far, of step %s, is not in %s: the next validation counts as the "
            "best.",
            steps[-1] if steps else "?",
            own.best,
        )
        run.count(best=None)
    run.clock.kept = tuple(best.kept(steps)) if run.best is not None else ()


def write_files(parts: Parts, hooks: Hooks, run: Run) -> None:
    """Has the run's files hold what they held at the checkpoint."""
    if not parts.steps.placement.group.is_first:
        return
    own = parts.directory
    History(own.history, key=run.validations.key).replace(history_rows(run.counters.history))
    if run.best is not None:
        hooks.save_metrics("best_eval", run.best)
    for kind, last in (("eval_epoch_", run.epoch), ("eval_step_", run.step)):
        for path in own.metrics.glob(f"{kind}*.json"):
            number = path.stem.removeprefix(kind)
            if number.isdigit() and int(number) > last:
                path.unlink()


def history_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for ``history.csv``: numbers, and no times, so that a resumed run has the same file."""
    return [
        {
            name: value
            for name, value in row.items()
            if isinstance(value, int | float) and not name.startswith("time/")
        }
        for row in rows
    ]
