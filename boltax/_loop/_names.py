"""What is followed by name, compared with the names of metrics as soon as these are known.

The names of a validation are traced before the first step, those of training with it. Where code
of a user's may add metrics nobody knows them before it runs, and then nothing is refused here.
"""

import difflib
from collections.abc import Callable, Collection, Iterable

from boltax._base._monitor import Followed, check_monitors, followed_of
from boltax._build._parts import Parts
from boltax._loop._validations import Validations
from boltax.callbacks._base import Callback, overriding
from boltax.callbacks._early_stopping import EarlyStopping
from boltax.errors import ConfigurationError
from boltax.optim._plateau import Evaluations, check_metrics

_ADDING = ("on_log", "on_training_epoch_end", "on_validation_epoch_end")
"""Hooks whose metrics reach the history, in which a callback looks for what it follows."""


def check_loaders(parts: Parts, validations: Validations) -> None:
    """Refuses to follow a metric of a validation, or of an evaluation, that there is not.

    Raises:
        ConfigurationError: naming it.
    """
    own = followed_of(parts, owner="")
    if validations.evaluations:
        if not _is_adding(parts):
            _check_named([own, *_of_callbacks(parts)], validations)
        return
    stopping = [followed_of(c) or own for c in parts.callbacks if isinstance(c, EarlyStopping)]
    others = [f for f in _of_callbacks(parts) if f.name.startswith("val/")]
    for each in (own, *stopping, *others):  # of these the first two look after validations alone
        if each is not None and not each.name.startswith("train/"):
            raise ConfigurationError(
                f"Received monitor {each.name!r} but no val_loader; expected one to compute it "
                "from. Write train_model(train_loader, val_loader, ...), or monitor a train/ "
                "metric."
            )


def _check_named(followed: Collection[Followed | None], validations: Validations) -> None:
    """Refuses what follows an evaluation that never runs."""
    names = [name for name in validations.evaluations if name]
    for each in followed if names else ():
        if each is None or not each.name.startswith("val/"):
            continue
        name, _, metric = each.name.removeprefix("val/").partition("/")
        if name in names:
            continue
        last = metric or name
        near = next(iter(difflib.get_close_matches(name, names, 1)), names[0])
        raise ConfigurationError(
            f"Received monitor {each.name!r} for evaluations named {', '.join(names)}; expected a "
            f"metric of one of these. Write 'val/{near}/{last}'."
        )


def check_validation_names(
    parts: Parts,
    names: Collection[str],
    evaluations: Evaluations | None,
    known_later: Callable[[Iterable[str]], list[str]] = lambda _: [],
) -> None:
    """Refuses what follows a metric that the validation does not have.

    Args:
        parts: whose monitor and callbacks may follow one.
        names: the names of all metrics of a validation, ``val/...``.
        evaluations: what the optimizer follows.
        known_later: picks the names that nobody knows yet.

    Raises:
        MetricsError: naming it, and what was probably meant.
    """
    followed = [f.name for f in (*_of_trainer(parts), *_of_callbacks(parts))]
    names = {*names, *known_later([*followed, *(evaluations.metrics if evaluations else ())])}
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


def _is_adding(parts: Parts) -> bool:
    """Whether somebody may add metrics to those of a validation."""
    is_own = parts.overrides("on_validation_epoch_end") or parts.overrides("eval_model")
    return is_own or _adding(parts.callbacks, _ADDING)


def _of_trainer(parts: Parts) -> list[Followed]:
    followed = followed_of(parts, owner="")
    return [] if followed is None or parts.overrides("is_new_model_better") else [followed]


def _of_callbacks(parts: Parts) -> list[Followed]:
    return [f for callback in parts.callbacks if (f := followed_of(callback)) is not None]


def _adding(callbacks: Collection[Callback], hooks: Collection[str]) -> bool:
    """Whether one of these hooks is a user's, who may log metrics from it; none of ours does."""
    called = (getattr(c, hook) for hook in hooks for c in overriding(callbacks, hook))
    return any(not str(getattr(hook, "__module__", "")).startswith("boltax.") for hook in called)
