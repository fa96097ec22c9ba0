"""What is done and checked before the first epoch."""

from boltax._base._types import Loader
from boltax._build._place import ResumeFrom, shown
from boltax._loop._resume import resume_run
from boltax._loop._sanity_check import SanityCheck
from boltax._loop._saving import save_resume
from boltax._loop._trainees import Loaders, Trainees


def begin(trainees: Trainees, loaders: Loaders, resume: ResumeFrom) -> None:
    """Brings states, counters and folder to where the epochs begin, or go on."""
    run, parts = trainees.run, trainees.parts
    parts.progress.note(f"{parts.name} trains in {shown(parts.folder)}")
    # first, since a checkpoint is read into states of this form
    trainees.begin(loaders, run.train_source.num_batches)
    if resume is None or resume is False or not resume_run(trainees, resume):
        trainees.start()
    # before the hooks, which it need not wait for
    compiled = None if run.is_over else trainees.compile_ahead(loaders)
    if not run.step and parts.loop.sanity_check and _is_repeatable(run.validations.first_loader):
        run.sanity_check = SanityCheck(trainees, compiled)
    trainees.on_training_start()
    run.is_active = run.is_saveable = True
    if run.clock.is_due:
        # an older run's future is on the disk: this one's place has to be the newest
        save_resume(trainees)
    run.agree(at_once=True)
    run.signals.poll()


def _is_repeatable(loader: Loader) -> bool:
    """Whether there is a loader that gives what was read of it once more."""
    return loader is not None and not hasattr(loader, "__next__")
