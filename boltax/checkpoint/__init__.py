"""What a run leaves on disk: its folder, its checkpoints, and the arguments of its trainer.

    from boltax.checkpoint import BestCheckpoints, RunDirectory

    run = RunDirectory("runs/ResNet/version_0")
    best = BestCheckpoints(run.best).restore()
    best.variables["params"], best.metrics, best.step

Plain files and no pickle: reading any of them executes nothing, and reads nothing outside of the
run's folder. Each checkpoint has a manifest with the checksums of its files, which are compared
before it is loaded.
"""

from boltax.checkpoint._best import Best, BestCheckpoints
from boltax.checkpoint._differences import Difference
from boltax.checkpoint._encode import NotStored
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._manifest import verify_folder
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._resume_checkpoints import Resume, ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory, create_run_directory, open_run_directory

__all__ = [
    "Best",
    "BestCheckpoints",
    "Difference",
    "NotStored",
    "Resume",
    "ResumeCheckpoints",
    "RunDirectory",
    "RunLock",
    "create_run_directory",
    "load_variables",
    "open_run_directory",
    "verify_folder",
]
