"""The resume checkpoints of a run on disk: all that a training needs to go on as if it never ended.

    checkpoints/resume/400/
      arrays/          the state and the running metrics, by orbax
      structure.json   their names, shapes and dtypes
      progress.json    epoch, place in the data, best metrics, counters
      manifest.json    the size and checksum of each file

It knows nothing of what the arrays and the progress mean. It keeps nothing open between two calls.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from boltax._base._types import PyTree
from boltax.checkpoint._arrays import read_arrays
from boltax.checkpoint._progress_json import decode_progress, encode_progress
from boltax.checkpoint._rundir import RunDirectory, locate
from boltax.checkpoint._step_folders import Saved, StepFolders
from boltax.errors import CheckpointError
from boltax.parallel._group import group


class Resume(NamedTuple):
    """A point from which a run goes on.

    Attributes:
        arrays: the tree of arrays, bitwise as it was saved.
        progress: plain JSON, with floats bit for bit as they were.
        step: completed optimizer updates at that time.
        folder: the folder of the checkpoint.
    """

    arrays: PyTree
    progress: dict[str, Any]
    step: int
    folder: Path


class ResumeCheckpoints:
    """The folder of a run's resume checkpoints.

    The one saved last is the newest, whatever its step is: a run that goes back to an older point
    counts its steps from there.

    Args:
        directory: the folder; made with the first save.
        keep: how many stay: the newest, and older ones to fall back on when it is damaged.

    Example:
        >>> import tempfile, numpy as np
        >>> checkpoints = ResumeCheckpoints(tempfile.mkdtemp(), keep=2)
        >>> checkpoints.save(10, {"w": np.ones(3, np.float32)}, {"epoch": 2})
        >>> checkpoints.restore({"w": ...}).progress
        {'epoch': 2}
    """

    def __init__(self, directory: str | Path, keep: int = 2) -> None:
        self.directory = Path(directory)
        self.keep = keep
        self._folders = StepFolders(directory, "progress", "arrays")

    def save(self, step: int, arrays: PyTree, progress: Mapping[str, Any]) -> None:
        """Saves a point, and deletes older ones beyond `keep`.

        Returns when everything is on the disk. A checkpoint saved before at the same step is
        replaced. When saving fails, all older ones are as they were.

        Args:
            step: completed optimizer updates; names the folder.
            arrays: nested containers of arrays, random keys, Python numbers and None.
            progress: plain JSON; floats may be NaN or infinite.

        Raises:
            CheckpointError: when one of the two holds something else.
            RunDirectoryError: when the files cannot be written.
        """
        self._folders.save(step, arrays, encode_progress(dict(progress)), keep=self.keep)

    def steps(self) -> list[int]:
        """The steps of the checkpoints, in the order of saving: the last is the newest.

        One whose order cannot be read, because it is damaged, comes first.
        """
        return [saved.step for saved in self._folders.saved()]

    def newest_step(self) -> int | None:
        """The step of the checkpoint saved last, good or damaged; None when there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best_steps(self) -> set[int]:
        """The steps of all best models that the checkpoints go back to.

        They are what their progress names ``"best_steps"``.
        """
        named = [saved.content.get("best_steps") for saved in self._folders.saved()]
        return {
            step
            for steps in named
            if isinstance(steps, list)
            for step in steps
            if type(step) is int
        }

    def restore(self, template: PyTree, step: int | None = None) -> Resume | None:
        """Loads a point, after its files were compared with their checksums.

        A damaged one is reported as a warning of the logger ``"boltax"`` with its files, and the
        one saved before it is loaded instead.

        Args:
            template: arrays, or `jax.ShapeDtypeStruct`, that the saved ones must match in name,
                shape and dtype; they are placed as these are. A part that is `...` is taken as
                stored: NumPy arrays in dicts, lists and tuples. None takes all as stored, on the
                default device.
            step: which one; by default the newest good one.

        Returns:
            The point; None when there is no checkpoint at all.

        Raises:
            CheckpointError: when all are damaged, or the one of `step` is, or does not exist, or
                when the arrays do not fit the template.
        """
        saved = self._find(step)
        if saved is None:
            return None
        read = partial(read_arrays, saved.folder, "arrays", template)
        arrays = group().together(f"reading the checkpoint {saved.folder}", read)
        return Resume(arrays, decode_progress(saved.content), saved.step, saved.folder)

    def peek(self, step: int | None = None) -> Resume | None:
        """The point that `restore` would load, without its arrays.

        Args:
            step: which one; by default the newest good one.

        Raises:
            CheckpointError: as `restore`.
        """
        saved = self._find(step)
        if saved is None:
            return None
        return Resume({}, decode_progress(saved.content), saved.step, saved.folder)

    def _find(self, step: int | None) -> Saved | None:
        saved = self._folders.find(step)
        if saved is None and step is not None:
            raise CheckpointError(
                f"Received step={step} for {self.directory}, which holds {_listed(self.steps())}; "
                "expected the step of one of them. Leave it out for the newest."
            )
        return saved


def locate_resume(checkpoint: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """Finds the run that is to go on.

    Args:
        checkpoint: a run's folder, or the folder of one resume checkpoint in it.

    Returns:
        The run's folder, and the step of the checkpoint; None for the newest.

    Raises:
        CheckpointError: when there is no resume checkpoint, saying what there is.
    """
    run, directory, step = locate(checkpoint)
    resume = RunDirectory(run).resume
    steps = ResumeCheckpoints(resume).steps()
    is_there = bool(steps) if step is None else directory.name == resume.name and step in steps
    if is_there:
        return run, step
    if not run.is_dir():
        there = "which does not exist"
    elif steps:
        there = f"while the run {run} holds {_listed(steps)}"
    else:
        is_run = RunDirectory(run).hparams.exists()
        there = f"a {'run' if is_run else 'folder'} without resume checkpoints"
    raise CheckpointError(
        f"Received {os.fspath(checkpoint)!r} to resume from, {there}; expected a run's folder "
        "(trainer.log_dir), or the folder of a resume checkpoint in it. Write "
        "train_model(..., resume='runs/MyModel/version_0')."
    )


def _listed(steps: list[int]) -> str:
    if not steps:
        return "no resume checkpoint"
    return f"resume checkpoints of the steps {', '.join(map(str, steps))}"
