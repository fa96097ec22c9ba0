"""The doors into the loop: a run that begins, and an epoch that a trainer's method asks for."""

from boltax._base._evaluation import evaluations_of
from boltax._base._types import Loader, ScalarMetrics, State
from boltax._build._parts import Parts
from boltax._loop._agreement import Agreement
from boltax._loop._asked import Asked, validation_trigger
from boltax._loop._clock import SaveClock, save_trigger
from boltax._loop._derived import computed
from boltax._loop._epoch import run_epoch
from boltax._loop._limits import Limits, deadline_in, planned_epochs, planned_steps
from boltax._loop._names import check_loaders
from boltax._loop._run import Run
from boltax._loop._single import Single
from boltax._loop._spikes import tell_spikes
from boltax._loop._stream import open_train_source
from boltax._loop._trainees import Loaders
from boltax._loop._validations import Validations
from boltax.errors import TrainingError


def start_run(parts: Parts, loaders: Loaders, wanted: Asked) -> Run:
    """A run before its first step; its loaders are opened, and nothing on disk is touched.

    Raises:
        DataError: for a loader that cannot be read.
        ConfigurationError: for a monitor that no loader gives, or cadences that contradict.
    """
    placement = parts.steps.placement
    trigger = validation_trigger(wanted, parts.check_val_every_n_epoch, loaders.val)
    run = Run(
        clock=SaveClock(save_trigger(parts.checkpoint)),
        validations=Validations.of(trigger, loaders.val, is_at_start=wanted.validate_at_start),
        takes_new_data=wanted.new_data,
        placement=placement,
    )
    parts.steps.compilations.ledger = run.ledger
    run.agreement = None if placement.group.is_alone else Agreement(run, placement)
    tests = evaluations_of(loaders.test, "test_loader")
    for found, argument in ((run.validations.evaluations, "val_loader"), (tests, "test_loader")):
        for name, one in found.items():
            if one.loader is not None:
                run.source(one.loader, f"{argument}[{name!r}]" if name else argument)
    run.train_source = open_train_source(run, loaders.train, parts.loop)
    planned = run.train_source.num_batches
    num_epochs = planned_epochs(wanted.num_epochs, planned, wanted.max_steps)
    run.limits = Limits(
        num_epochs=num_epochs,
        max_steps=wanted.max_steps,
        deadline=deadline_in(wanted.max_seconds),
        total_steps=planned_steps(num_epochs, planned, wanted.max_steps),
        schedule_steps=wanted.schedule_steps,
        min_epochs=wanted.min_epochs,
        min_steps=wanted.min_steps,
    )
    check_loaders(parts, run.validations)
    return run


def train_epoch(single: Single, train_loader: Loader) -> ScalarMetrics:
    """One pass over the loader; returns the means over the epoch, named ``train/...``.

    Called by hand, outside of a run, each call is one more epoch.
    """
    run = single.run
    if not run.is_active:
        run.begin_epoch()
    source = open_train_source(run, train_loader, single.parts.loop)
    metrics = run_epoch(single, source)
    if metrics is None:  # resumed where the epoch has no step left
        return run.counters.record
    with run.ledger.spent("device"):
        tell_spikes(single, metrics[0])
        return computed(metrics[0], "train/", single.parts.derive)


def running(run: Run | None, state: State) -> Run:
    """The run of a trainer that has an optimizer.

    Raises:
        TrainingError: before there is one.
    """
    if run is None or state.tx is None:
        raise TrainingError(
            "Received a call that trains before there is an optimizer; expected train_model, or "
            "trainer.init_optimizer(num_epochs, num_steps_per_epoch) first."
        )
    return run
