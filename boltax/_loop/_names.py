"""What is followed by name, compared with the names of metrics as soon as these are known.

The names of a validation are traced before the first step, those of training with it. Where code
of a user's may add metrics nobody knows them before it runs, and then nothing is refused here.
"""

from collections.abc import Collection

from boltax._base._monitor import Followed, check_monitors, followed_of
from boltax._base._types import Loader
from boltax._build._parts import Parts
from boltax.callbacks._base import Callback, overriding
from boltax.callbacks._early_stopping import EarlyStopping
from boltax.errors import ConfigurationError
from boltax.optim._plateau import Evaluations, check_metrics

_ADDING = ("on_log", "on_training_epoch_end", "on_validation_epoch_end")
"""Hooks whose metrics reach the history, in which a callback looks for what it follows."""


def check_loaders(parts: Parts, val_loader: Loader) -> None:
    """Refuses to follow a metric of the validation where there is none.

    Raises:
        ConfigurationError: naming it.
    """
    if val_loader is not None:
        return
    own = followed_of(parts, owner="")
    stopping = [followed_of(c) or own for c in parts.callbacks if isinstance(c, EarlyStopping)]
    others = [f for f in _of_callbacks(parts) if f.name.startswith("val/")]
    for each in (own, *stopping, *others):  # of these the first two look after validations alone
        if each is not None and not each.name.startswith("train/"):
            raise ConfigurationError(
                f"Received monitor {each.name!r} but no val_loader; expected one to compute it "
                "from. Write train_model(train_loader, val_loader, ...), or monitor a train/ "
                "metric."
            )


def check_validation_names(
    parts: Parts, names: Collection[str], evaluations: Evaluations | None
) -> None:
    """Refuses what follows a metric that the validation does not have.

    Args:
        parts: whose monitor and callbacks may follow one.
        names: the names of all metrics of a validation, ``val/...``.
        evaluations: what the optimizer follows.

    Raises:
        MetricsError: naming it, and what was probably meant.
    """
    if parts.overrides("on_validation_epoch_end") or parts.overrides("eval_model"):
        return
    if not _adding(parts.callbacks, ("on_validation_epoch_end",)):
        check_monitors(_of_trainer(parts), names, ("val",))
        if evaluations is not None:
            check_metrics(evaluations, names)
    if not _adding(parts.callbacks, _ADDING):
        check_monitors(_of_callbacks(parts), names, ("val",))


def check_training_names(parts: Parts, names: Collection[str]) -> None:
    """Refuses what follows metrics of training, ``train/...``, that a step does not give."""
    if parts.overrides("train_epoch") or _adding(parts.callbacks, _ADDING):
        return
    check_monitors([*_of_trainer(parts), *_of_callbacks(parts)], names, ("train",))


def _of_trainer(parts: Parts) -> list[Followed]:
    followed = followed_of(parts, owner="")
    return [] if followed is None or parts.overrides("is_new_model_better") else [followed]


def _of_callbacks(parts: Parts) -> list[Followed]:
    return [f for callback in parts.callbacks if (f := followed_of(callback)) is not None]


def _adding(callbacks: Collection[Callback], hooks: Collection[str]) -> bool:
    """Whether one of these hooks is a user's, who may log metrics from it; none of ours does."""
    called = (getattr(c, hook) for hook in hooks for c in overriding(callbacks, hook))
    return any(not str(getattr(hook, "__module__", "")).startswith("boltax.") for hook in called)
