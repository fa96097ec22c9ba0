"""Builds what trains a model from `optimizer_hparams`: a dict, a transformation, or a function."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard

import optax

from boltax.errors import OptimizerError, noting
from boltax.optim._adapt import in_common_dtype, requiring, robust, with_axes
from boltax.optim._by_path import describe_freeze, with_lr_scale, without_frozen
from boltax.optim._horizon import Horizon, Schedule
from boltax.optim._learning_rate import ScheduledLearningRate
from boltax.optim._named import by_name
from boltax.optim._plateau import PlateauLearningRate
from boltax.optim._regularization import describe_mask, mask_function
from boltax.optim._schedules import resolve
from boltax.optim._settings import Settings, read
from boltax.optim._spikes import watching_spikes

OptimizerHparams: TypeAlias = (
    Mapping[str, Any]
    | optax.GradientTransformation
    | Callable[[int | None], optax.GradientTransformation]
    | None
)

Traced: TypeAlias = Mapping[str, Any]
"""Values in place of those of `optimizer_hparams`, by the same names, which may be traced."""

NOTHING_TRACED: Traced = MappingProxyType({})
# Longer than any run: lets `check_hparams` build everything before the length of the run is known.
_SOME_STEPS = 10**9


@dataclass(frozen=True)
class Optimizer:
    """What trains a model, with the regularisation that belongs into its loss.

    Attributes:
        tx: the transformation. Its `update` takes any extra argument (`value=loss`, `loss=loss`,
            `grad`, `value_fn`), and hands on what the optimizer knows.
        l2_regularization: coefficient of `l2_penalty` in the loss; 0 for none.
        describe: one line for logs.
        metrics: the metrics of the validation that it asks for; see `TrainState.evaluations`.
    """

    tx: optax.GradientTransformationExtraArgs
    l2_regularization: float
    describe: str
    metrics: frozenset[str] = frozenset()


def build(optimizer_hparams: OptimizerHparams, total_steps: int | None) -> Optimizer:
    """The optimizer that `optimizer_hparams` describes.

    A dict has these keys, each optional, beside the optimizer's own arguments:

    - ``optimizer``: a name from optax or optax.contrib, or ``"velo"``, ``"celo"``,
      ``"celo_adam"``; ``"adamw"``.
    - ``lr``: the learning rate, the peak of the schedule. 1e-3, except where the method is made for
      another: 1.0 for adadelta, cocob, dadapt_adamw, dog, dowg, momo, prodigy, schedule_free_sgd,
      0.01 for momo_adam, 0.0025 for schedule_free_adamw. lbfgs finds its own, polyak_sgd has none.
    - ``schedule``: a name, ``{"name": ..., **arguments}``, a function from step to learning rate,
      or ``"constant"`` for none; see `schedules`. ``"warmup_cosine"``: from 0 to `lr` in `warmup`
      steps, then half a cosine to 1 % of it at the end of the run; but ``"constant"`` for cocob,
      dog, dowg, lbfgs, polyak_sgd, rprop and schedule_free_*.
    - ``warmup``: steps, or a fraction of the run; 0.
    - ``gradient_clip``: a global norm, None for no clipping, or one of ``{"norm": x}``,
      ``{"value": x}``, ``{"adaptive": x}``. 1.0; but None for lbfgs, momo, momo_adam and
      polyak_sgd, which find their step from the loss and the true gradients.
    - ``weight_decay``: decoupled decay, see below; none.
    - ``decay_mask``: which parameters decay: ``"all"``; ``"kernels"``, no biases and norms; a
      regular expression over paths such as ``"Dense_0/kernel"``; or a function from the parameters
      to a tree of bools. ``"all"``.
    - ``l2_regularization``: coefficient of ``0.5 * c * |params|^2`` in the loss; none.
    - ``lr_scale``: ``{"encoder/": 0.1}``: factors of the learning rate for the parameters in whose
      paths a regular expression is found. The first that is found counts; decoupled decay is scaled
      with it; none.
    - ``freeze``: a regular expression over paths, a list of them, or a function from the parameters
      to a tree of bools: these parameters are not trained, do not decay, do not enter the norm that
      clips, and take no memory in the optimizer; none.

    - ``on_spike``: what is done where the loss jumps more than 6 standard deviations above the mean
      of the last 100 steps: ``"warn"`` names step and batch and logs ``train/loss_spikes``;
      ``"skip"`` also leaves out the update; None, the default, does not look.

    Or it has the one key ``optimizers``, a dict from each name at the top of the parameters to what
    could stand in place of the whole dict: ``{"optimizers": {"generator": {"optimizer": "adam",
    "lr": 1e-4}, "discriminator": {...}}}``. A step then may update the parts one by one; see
    `TrainState.apply_gradients`.

    `weight_decay` is ``p <- p - lr_t * weight_decay * p`` beside the optimizer's own step: it
    follows the schedule, and passes neither through momentum nor through a preconditioner. With
    SGD::

        m <- momentum * m + g
        p <- p - lr_t * (m + weight_decay * p)

    The UvA guide adds ``weight_decay * p`` to the gradient before the momentum; here that is
    `l2_regularization`. The methods' own definitions differ in detail for lamb (its trust ratio
    scales the decay too), novograd (momentum averages it), prodigy and dadapt_adamw (``lr_t`` is
    the step size that they estimate), and momo (``lr_t / (1 + lr_t * weight_decay)``). What optax
    would decay by default is not decayed.

    The learning rate (read by `learning_rate`) and the weight decay are values in the optimizer's
    state, so they can change without compiling again. Parameters in less than float32 keep their
    dtype; the optimizer computes in float32.

    Some methods ask for more than gradients: polyak_sgd, momo and momo_adam for the loss, lbfgs and
    sophia for ``value_fn``, a function from parameters to the loss (lbfgs for ``grad`` too); an
    update without it is an error. sm3 takes no parameters without axes. The parameters that
    schedule_free_* train are those at which gradients are taken;
    `optax.contrib.schedule_free_eval_params` gives their average.

    The learned optimizers `velo`, `celo` and `celo_adam` need the loss, the number of steps, and
    their ``weights``. They have no learning rate, schedule, clipping or decoupled decay.

    Args:
        optimizer_hparams: the dict; or a transformation, which is used as it is, without schedule
            and clipping; or a function ``total_steps -> transformation``; or None for the defaults.
            It is not changed.
        total_steps: optimizer updates of the whole run; None when unknown.

    Raises:
        UnknownNameError: for an optimizer, schedule or argument that does not exist.
        OptimizerError: for settings that contradict each other, cannot be used, or need the number
            of steps when it is unknown.

    Example:
        >>> build({"lr": 1e-3, "warmup": 100, "gradient_clip": None}, total_steps=4690).describe
        'adamw, lr 0.001 warmup_cosine (warmup 100 of 4690)'
    """
    if optimizer_hparams is None:
        optimizer_hparams = {}
    if isinstance(optimizer_hparams, Mapping):
        if "optimizers" in optimizer_hparams:
            return _from_several(optimizer_hparams, total_steps)
        return from_settings(read(optimizer_hparams), total_steps)
    if _is_transformation(optimizer_hparams):
        return Optimizer(robust(optimizer_hparams), 0.0, "the given optax transformation")
    return _from_function(_checked_function(optimizer_hparams), total_steps)


def check_hparams(optimizer_hparams: OptimizerHparams) -> None:
    """Raises every error of `build` that can be seen before the number of steps is known.

    A function that makes a transformation is not called.

    Args:
        optimizer_hparams: as for `build`.

    Raises:
        UnknownNameError: as `build`.
        OptimizerError: as `build`.

    Example:
        >>> check_hparams({"optimizer": "sgd", "momentum": 0.9})
        >>> check_hparams({"optimizer": "sdg"})
        Traceback (most recent call last):
            ...
        boltax.errors.UnknownNameError: Received optimizer 'sdg'; expected one of: ... Did you mean
        'sgd'?
    """
    if isinstance(optimizer_hparams, Mapping) and "optimizers" in optimizer_hparams:
        for name, hparams in several(optimizer_hparams).items():
            with noting(f"optimizer_hparams['optimizers'][{name!r}]"):
                check_hparams(hparams)
    elif optimizer_hparams is None or isinstance(optimizer_hparams, Mapping):
        build(optimizer_hparams, _SOME_STEPS)
    elif not _is_transformation(optimizer_hparams):
        _checked_function(optimizer_hparams)


def _is_transformation(value: Any) -> TypeGuard[optax.GradientTransformation]:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def _checked_function(value: Any) -> Callable[[int | None], Any]:
    if callable(value) and not isinstance(value, type):
        return value
    raise OptimizerError(
        f"Received optimizer_hparams={value!r} ({type(value).__name__}); expected a dict, an optax "
        "transformation, a function total_steps -> transformation, or None for the defaults. "
        "Write for instance optimizer_hparams={'optimizer': 'adamw', 'lr': 1e-3}."
    )


def _from_function(function: Callable[[int | None], Any], total_steps: int | None) -> Optimizer:
    name = getattr(function, "__name__", type(function).__name__)
    with noting(f"optimizer_hparams, the function {name}", f"total_steps={total_steps}"):
        tx = function(total_steps)
    if _is_transformation(tx):
        words = f"the optax transformation from {name}(total_steps={total_steps})"
        return Optimizer(robust(tx), 0.0, words)
    raise OptimizerError(
        f"Received {tx!r} ({type(tx).__name__}) from the function {name} in optimizer_hparams; "
        "expected an optax transformation. Write for instance lambda total_steps: "
        "optax.adam(optax.cosine_decay_schedule(1e-3, total_steps))."
    )


def several(hparams: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value of the key ``optimizers``, checked; each optimizer by itself is not."""
    others, several = [key for key in hparams if key != "optimizers"], hparams["optimizers"]
    if others:
        raise OptimizerError(
            f"Received {', '.join(map(str, others))} beside optimizers; expected optimizers alone, "
            "because each of them has its own settings. Write "
            f"{{'optimizers': {{name: {{{others[0]!r}: ...}}}}}}."
        )
    if not isinstance(several, Mapping) or not several:
        raise OptimizerError(
            f"Received optimizers={several!r}; expected a dict from each name at the top of the "
            "parameters to its optimizer. Write for instance {'optimizers': {'generator': "
            "{'optimizer': 'adam'}, 'discriminator': {'optimizer': 'adam'}}}."
        )
    for name, inner in several.items():
        if isinstance(inner, Mapping) and inner.get("l2_regularization"):
            raise OptimizerError(
                f"Received l2_regularization={inner['l2_regularization']} for the optimizer of "
                f"{name}; expected it in the loss, because it may not be known which loss is that "
                f"of {name}. Add boltax.optim.l2_penalty(params[{name!r}], coefficient) to it."
            )
        if isinstance(inner, Mapping) and "optimizers" in inner:
            raise OptimizerError(
                f"Received optimizers inside the optimizer of {name}; expected one optimizer for "
                f"each name at the top of the parameters. Write {{{name!r}: {{'optimizer': ...}}}}."
            )
    return several


def _from_several(hparams: Mapping[str, Any], total_steps: int | None) -> Optimizer:
    found: dict[str, Optimizer] = {}
    for name, inner in several(hparams).items():
        with noting(f"optimizer_hparams['optimizers'][{name!r}]"):
            found[name] = build(inner, total_steps)
    return together(found)


def together(found: Mapping[str, Optimizer]) -> Optimizer:
    """One optimizer of several, each for the part of the parameters with its name."""
    words = "; ".join(f"{name}: {optimizer.describe}" for name, optimizer in found.items())
    metrics = frozenset[str]().union(*(optimizer.metrics for optimizer in found.values()))
    tx = by_name({name: optimizer.tx for name, optimizer in found.items()})
    return Optimizer(tx, 0.0, words, metrics)


def from_settings(
    settings: Settings, total_steps: int | None, traced: Traced = NOTHING_TRACED
) -> Optimizer:
    """The optimizer of settings; the values of `traced` take the place of theirs in its state."""
    schedule, entry = schedule_of(settings, total_steps), settings.entry
    plateau = schedule and schedule.plateau
    steps = None if total_steps is None else max(total_steps, 1)
    plain, clip = _injected(settings, schedule, steps, traced), _clipping(settings, traced)
    plain = with_lr_scale(plain, settings.lr_scale)
    tx = in_common_dtype(robust(plain if clip is None else optax.chain(clip, plain)))
    if entry.has_axes_only:
        tx = with_axes(tx, entry.name)
    needs_loss = plateau is not None and plateau.metric is None and "value" not in entry.needs
    needs_loss |= settings.on_spike is not None and "value" not in entry.needs
    needs = ("value", *entry.needs) if needs_loss else entry.needs
    tx = requiring(watching_spikes(tx, settings.on_spike), entry.name, needs)
    return Optimizer(
        without_frozen(tx, settings.freeze),
        settings.l2_regularization,
        _describe(settings, schedule),
        frozenset() if plateau is None or plateau.metric is None else frozenset({plateau.metric}),
    )


def needs_total_steps(optimizer_hparams: OptimizerHparams) -> bool:
    """Whether the length of the run is in the optimizer: in its schedule, or in its method.

    Example:
        >>> needs_total_steps({"schedule": "cosine"}), needs_total_steps({"schedule": "constant"})
        (True, False)
    """
    if _is_transformation(optimizer_hparams):
        return False
    if callable(optimizer_hparams):
        return True
    if isinstance(optimizer_hparams, Mapping) and "optimizers" in optimizer_hparams:
        return any(map(needs_total_steps, several(optimizer_hparams).values()))
    try:
        build(optimizer_hparams, None)
    except OptimizerError:
        return True
    return False


def schedule_of(settings: Settings, total_steps: int | None) -> Schedule | None:
    """The schedule; None where the optimizer goes without a learning rate of ours."""
    # A run of no steps (num_epochs=0) still has an optimizer.
    run = Horizon(None if total_steps is None else max(total_steps, 1), settings.warmup)
    default_lr = settings.entry.default_lr
    if default_lr is None and settings.lr is None and not callable(settings.schedule):
        return None
    return resolve(settings.schedule, settings.lr, default_lr or 0.0, run)


def _injected(
    settings: Settings, schedule: Schedule | None, total_steps: int | None, traced: Traced
) -> optax.GradientTransformation:
    """The optimizer, with the learning rate and a given weight decay as values in its state."""
    if settings.entry.takes_total_steps:
        arguments = {**settings.arguments, "total_steps": total_steps}
        settings = dataclasses.replace(settings, arguments=arguments)
    own = {name: traced[name] for name in sorted(traced.keys() & settings.entry.arguments)}
    make = _taking(functools.partial(_with_values, settings), own)
    with noting(f"optimizer {settings.entry.name!r} of optimizer_hparams"):
        # What is injected is built at the first step, and its errors come as late: so build once.
        plain = _with_values(settings, schedule and schedule.base, settings.weight_decay)
    if schedule is None and not own:
        return plain
    lr = None if schedule is None else traced.get("lr", schedule.base)
    if schedule is not None and schedule.plateau is not None:
        lr = PlateauLearningRate(schedule.shape, lr, schedule.plateau)
    elif schedule is not None and schedule.shape is not None:
        lr = ScheduledLearningRate(schedule.shape, lr)
    decay = traced.get("weight_decay", settings.weight_decay)
    return optax.inject_hyperparams(make)(learning_rate=lr, weight_decay=decay, **own)


def _taking(
    make: Callable[..., optax.GradientTransformation], own: Traced
) -> Callable[..., optax.GradientTransformation]:
    """`make` with a signature in which optax finds every value that is to be in the state."""

    def made(**values: Any) -> optax.GradientTransformation:
        return make(**values)

    kind = inspect.Parameter.KEYWORD_ONLY
    names = ("learning_rate", "weight_decay", *own)
    vars(made)["__signature__"] = inspect.Signature([inspect.Parameter(n, kind) for n in names])
    return made


def _with_values(
    settings: Settings, learning_rate: Any, weight_decay: Any, **own: Any
) -> optax.GradientTransformation:
    """The optimizer of optax with these values, which may be traced; None leaves one out."""
    entry = settings.entry
    given = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    arguments = {**settings.arguments, **own, **_own_values(settings, **given)}
    tx = entry.factory(**arguments)
    if entry.decay != "appended" or weight_decay is None:
        return tx
    mask = mask_function(settings.decay_mask)
    return optax.chain(tx, optax.add_decayed_weights(-learning_rate * weight_decay, mask))


def _own_values(settings: Settings, learning_rate: Any, weight_decay: Any) -> dict[str, Any]:
    """What the optimizer itself is given of learning rate, decay and mask."""
    entry, values = settings.entry, dict[str, Any]()
    if learning_rate is not None:
        values["learning_rate"] = learning_rate
    if entry.decay == "argument":  # 0 and not nothing: optax decays by default in several of them
        values["weight_decay"] = 0.0 if weight_decay is None else weight_decay
        if entry.mask_argument is not None:
            values[entry.mask_argument] = mask_function(settings.decay_mask)
    return values


_CLIPPINGS: Mapping[str, Callable[[float], optax.GradientTransformation]] = {
    "norm": optax.clip_by_global_norm,
    "value": optax.clip,
    "adaptive": optax.adaptive_grad_clip,
}


def _clipping(settings: Settings, traced: Traced) -> optax.GradientTransformation | None:
    if settings.clip is None:
        return None
    kind, limit = settings.clip
    if "gradient_clip" not in traced:
        return _CLIPPINGS[kind](limit)

    def clip(gradient_clip: Any) -> optax.GradientTransformation:
        return _CLIPPINGS[kind](gradient_clip)

    return optax.inject_hyperparams(clip)(gradient_clip=traced["gradient_clip"])


def _describe(settings: Settings, schedule: Schedule | None) -> str:
    words = [settings.entry.name]
    words += [] if schedule is None else [schedule.describe]
    words += [] if settings.clip is None else [f"clip {settings.clip[0]} {settings.clip[1]:g}"]
    if settings.weight_decay:
        words.append(f"decay {settings.weight_decay:g} on {describe_mask(settings.decay_mask)}")
    words += [f"l2 {settings.l2_regularization:g}"] if settings.l2_regularization else []
    words += [f"lr of /{key}/ x {factor:g}" for key, factor in settings.lr_scale.items()]
    words += [] if settings.on_spike is None else [f"{settings.on_spike} on loss spikes"]
    words += [] if settings.freeze is None else [f"frozen {describe_freeze(settings.freeze)}"]
    return ", ".join(words)
