"""What a run leaves on disk: its folder, its best models, and the arguments of its trainer.

    from boltax.checkpoint import BestCheckpoints, RunDirectory

    run = RunDirectory("runs/ResNet/version_0")
    best = BestCheckpoints(run.best).restore()
    best.variables["params"], best.metrics, best.step

Plain files and no pickle: reading any of them executes nothing.
"""

from boltax.checkpoint._best import Best, BestCheckpoints
from boltax.checkpoint._encode import NotStored
from boltax.checkpoint._rundir import RunDirectory, create_run_directory, open_run_directory

__all__ = [
    "Best",
    "BestCheckpoints",
    "NotStored",
    "RunDirectory",
    "create_run_directory",
    "open_run_directory",
]
