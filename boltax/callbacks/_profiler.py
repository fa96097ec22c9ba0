"""Records a profile of a few steps. Owns the trace while it runs, and does nothing else."""

import logging
import os
import sys
from pathlib import Path

import jax

from boltax._base._whole import is_whole
from boltax.callbacks._base import Callback, View
from boltax.errors import ConfigurationError

_log = logging.getLogger("boltax")


class Profiler(Callback):
    """Records what the device and the host do in a few steps, with `jax.profiler`.

    The device is idle when the recording begins and when it ends, so the trace holds these steps
    and no other; all other steps are as fast as without it. The first steps of a run compile, so
    record later ones. A validation or a save between the steps is in the trace as well: choose
    steps within one epoch.

    At the end it prints where the trace is. ``tensorboard --logdir FOLDER`` shows it, with
    ``pip install tensorboard xprof``; so does https://ui.perfetto.dev for the file
    ``*.trace.json.gz`` alone.

    A profile never ends a run: where none can be made, because another one is running or the folder
    cannot be written, a warning says so. A run that is resumed after the first of the steps
    records nothing. The numbers of the run are the same with and without it.

    Args:
        first_step: the number of the first step to record, from 1.
        num_steps: how many steps to record.
        folder: where the trace is written; by default ``profile`` in the folder of the run.

    Raises:
        ConfigurationError: when a number is no positive whole number, or the folder is no path.

    Example:
        >>> profiler = Profiler(first_step=100, num_steps=3)
        >>> profiler
        Profiler(first_step=100, num_steps=3, folder=None)
        >>> profiler.next_step(0), profiler.next_step(99), profiler.next_step(102)
        (99, 102, None)
    """

    def __init__(
        self,
        first_step: int = 10,
        num_steps: int = 5,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value in (("first_step", first_step), ("num_steps", num_steps)):
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"Received Profiler({name}={value!r}); expected a whole number of at least 1. "
                    "Write Profiler(first_step=10, num_steps=5) for the steps 10 to 14."
                )
        if folder is not None and not isinstance(folder, str | os.PathLike):
            raise ConfigurationError(
                f"Received Profiler(folder={folder!r}) of type {type(folder).__name__}; expected a "
                "path, or None for the folder of the run. Write folder='profiles'."
            )
        self.first_step = int(first_step)
        self.num_steps = int(num_steps)
        self.folder = folder
        self._is_recording = False

    def __repr__(self) -> str:
        return (
            f"Profiler(first_step={self.first_step}, num_steps={self.num_steps}, "
            f"folder={self.folder!r})"
        )

    def next_step(self, step: int) -> int | None:
        """The step before the first one to record, then the last one, then none."""
        return next((due for due in (self._begin, self._end) if due > step), None)

    def on_training_start(self, view: View) -> None:
        """Starts at once where the very next step is the first; says where it is too late."""
        if self._is_recording:  # a signal ended the last run within its steps
            self._stop()
        if view.step == self._begin:
            self._start(view)
        elif view.step > self._begin:
            _log.warning("The run goes on after step %d: %r records nothing.", view.step, self)

    def on_step_end(self, view: View) -> None:
        """Starts before the first step, and stops after the last one."""
        if view.step == self._begin:
            self._start(view)
        elif view.step == self._end and self._is_recording:
            self._finish(view)

    def on_training_end(self, view: View) -> None:
        """Stops where the run ends first."""
        if self._is_recording:
            self._finish(view)
        elif view.step < self._begin:
            _log.warning("The run ended after step %d: %r recorded nothing.", view.step, self)

    def on_exception(self, view: View, error: BaseException) -> None:
        """Stops, without waiting for a device that may have failed."""
        if self._is_recording and self._stop():
            self._tell(view)

    @property
    def _begin(self) -> int:
        """Completed steps before the first one to record."""
        return self.first_step - 1

    @property
    def _end(self) -> int:
        """Completed steps after the last one to record."""
        return self._begin + self.num_steps

    def _start(self, view: View) -> None:
        if self._is_recording:
            return
        jax.block_until_ready(view.state)  # the steps before are not to be in the trace
        path = self._path(view)
        try:
            path.mkdir(parents=True, exist_ok=True)  # now, since what fails at the end is lost
            jax.profiler.start_trace(path)
        except (RuntimeError, OSError) as error:
            _log.warning("%r records nothing: %s", self, error)
        else:
            self._is_recording = True

    def _finish(self, view: View) -> None:
        jax.block_until_ready(view.state)  # the steps were only sent off
        if self._stop():
            self._tell(view)

    def _stop(self) -> bool:
        """Ends the trace; returns whether it could be written."""
        self._is_recording = False
        try:
            jax.profiler.stop_trace()
        except (RuntimeError, OSError) as error:
            _log.warning("The trace of %r could not be written: %s", self, error)
            return False
        return True

    def _tell(self, view: View) -> None:
        path, is_empty = self._path(view), view.step == self._begin
        what = "no whole step" if is_empty else f"steps {self.first_step} to {view.step}"
        sys.stdout.write(
            f"Recorded a profile of {what} in {path}. To look at it: tensorboard --logdir {path}, "
            "with xprof installed; or open its *.trace.json.gz at https://ui.perfetto.dev.\n"
        )

    def _path(self, view: View) -> Path:
        return Path(view.log_dir, "profile") if self.folder is None else Path(self.folder)
