"""Every optimizer of optax and optax.contrib by name, and ours, and what is particular about each.

The names and their arguments come from signatures; the tables below hold only what those cannot
say. Nothing is built here, and no optimizer is special anywhere else in the package.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Literal

import optax
import optax.contrib

from boltax.errors import OptimizerError, unknown_name
from boltax.optim._celo import celo, celo_adam
from boltax.optim._velo import velo

Decay = Literal["argument", "appended", "coupled", "none"]

DEFAULT_LR = 1e-3
DEFAULT_CLIP = 1.0
DEFAULT_SCHEDULE = "warmup_cosine"

# An argument of optax that has one name here, whatever the optimizer calls it.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "learning_rate": "lr",
        "weight_decay_rate": "weight_decay",
        "adam_weight_decay": "weight_decay",
        "mask": "decay_mask",
        "weight_decay_mask": "decay_mask",
        "warmup_steps": "warmup",
    }
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `boltax.optim` knows of one optimizer.

    Attributes:
        name: the name in optax, or of ours.
        factory: the function that makes it.
        arguments: its own arguments, as far as a user may write them.
        required: those of them that have no default.
        has_lr: whether it takes a learning rate at all.
        default_lr: the learning rate where the user gives none; None leaves it to the optimizer.
        schedule: the schedule where the user names none.
        lr_is_fixed: the learning rate is read once at the start, so no schedule can act on it.
        clip: the global norm to which gradients are clipped where the user says nothing; None for
            no clipping.
        decay: how decoupled decay is applied. ``"argument"``: by optax. ``"appended"``: ``-lr *
            weight_decay * p`` is added to the finished update. ``"coupled"``: optax adds it to the
            gradients, which is an L2 penalty and not decoupled. ``"none"``: the method has none.
        mask_argument: what optax calls the mask of the decay; None when it takes none.
        lr_is_whole: why its learning rate cannot differ between parameters; empty where it can.
        has_axes_only: whether every parameter must have an axis.
        needs: what `update` must be given besides gradients and parameters.
        presets: arguments of its own that get a value here where optax would warn.
        takes_total_steps: whether the factory is given the number of steps of the run.
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    arguments: frozenset[str]
    required: frozenset[str] = frozenset()
    has_lr: bool = True
    default_lr: float | None = DEFAULT_LR
    schedule: str = DEFAULT_SCHEDULE
    lr_is_fixed: bool = False
    clip: float | None = DEFAULT_CLIP
    decay: Decay = "none"
    mask_argument: str | None = None
    lr_is_whole: str = ""
    has_axes_only: bool = False
    needs: tuple[str, ...] = ()
    presets: Mapping[str, Any] = field(default_factory=dict[str, Any])
    takes_total_steps: bool = False

    @property
    def has_decay(self) -> bool:
        """Whether it takes decoupled decay."""
        return self.decay in ("argument", "appended")

    @property
    def takes_mask(self) -> bool:
        """Whether its decay can be kept to some of the parameters."""
        return self.decay == "appended" or (self.has_decay and self.mask_argument is not None)


_OURS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"celo": celo, "celo_adam": celo_adam, "velo": velo}
)

_LEARNED: dict[str, Any] = {
    "has_lr": False,  # they set their step by themselves, from the loss and the true gradients
    "default_lr": None,
    "schedule": "constant",
    "clip": None,
    "needs": ("value",),
    "takes_total_steps": True,
    "lr_is_whole": "it has no learning rate",
}

_ESTIMATES = "it estimates one step size for all of them"
_AVERAGES = "it averages its iterates, and a scaled step is not what leads from one to the next"

# What the signatures do not say. Clipping is off where the step size comes from the loss and the
# true gradients.
_PARTICULARS: dict[str, dict[str, Any]] = {
    "adadelta": {"default_lr": 1.0, "decay": "coupled"},
    # Its own `weight_decay_rate` ignores the learning rate, so the usual decay is appended instead.
    "adafactor": {"decay": "appended"},
    "celo": _LEARNED,
    "celo_adam": _LEARNED,
    "cocob": {"schedule": "constant", "decay": "coupled", "lr_is_whole": _ESTIMATES},
    "dadapt_adamw": {"lr_is_whole": _ESTIMATES},
    "dog": {"schedule": "constant", "decay": "coupled", "lr_is_whole": _ESTIMATES},
    "dowg": {"schedule": "constant", "decay": "coupled", "lr_is_whole": _ESTIMATES},
    "fromage": {"lr_is_whole": "its learning rate is no factor of its step"},
    "lars": {"decay": "coupled"},
    "lbfgs": {
        "default_lr": None,  # the line search finds the step size
        "schedule": "constant",
        "clip": None,
        "needs": ("value", "grad", "value_fn"),
        "lr_is_whole": "its line search finds one step for all of them",
    },
    "madgrad": {"decay": "coupled", "lr_is_whole": _AVERAGES},
    "momo": {"clip": None, "needs": ("value",), "lr_is_whole": _ESTIMATES},
    "momo_adam": {"clip": None, "needs": ("value",), "lr_is_whole": _ESTIMATES},
    # Its decay is split over two arguments, of which one takes no mask.
    "muon": {"decay": "appended"},
    "noisy_sgd": {"decay": "appended", "presets": {"key": 0}},
    "polyak_sgd": {
        "has_lr": False,
        "default_lr": None,
        "schedule": "constant",
        "clip": None,
        "needs": ("value",),
        "lr_is_whole": _ESTIMATES,
    },
    "prodigy": {"lr_is_whole": _ESTIMATES},
    "rprop": {
        "schedule": "constant",
        "lr_is_fixed": True,
        "lr_is_whole": "it reads the learning rate once, and adapts a step size for each number",
    },
    "schedule_free_adamw": {"schedule": "constant", "lr_is_whole": _AVERAGES},
    "schedule_free_sgd": {"schedule": "constant", "lr_is_whole": _AVERAGES},
    "sgd": {"decay": "appended"},
    "sign_sgd": {"decay": "appended"},
    "signum": {"decay": "appended"},
    "sm3": {"has_axes_only": True},
    "sophia": {"needs": ("obj_fn",)},
    "velo": _LEARNED,
}

# Arguments that are left out: deprecated in optax, or filled in.
_HIDDEN: dict[str, frozenset[str]] = {
    "noisy_sgd": frozenset({"seed"}),
    **dict.fromkeys(_OURS, frozenset({"total_steps"})),
}

NOT_BY_NAME: Mapping[str, str] = MappingProxyType(
    {
        "dpsgd": "it needs one gradient per example, which a training step does not compute",
        "lookahead": "it wraps another optimizer and keeps two copies of the parameters",
        "mechanize": "it wraps another optimizer",
        "optimistic_adam": "optax deprecated it in favour of 'optimistic_adam_v2'",
        "reduce_on_plateau": 'here it is a schedule: schedule={"name": "reduce_on_plateau"}',
        "sam": "it wraps two other optimizers",
        "schedule_free": (
            "it wraps another optimizer; 'schedule_free_adamw' and 'schedule_free_sgd' can be named"
        ),
    }
)
"""What optax has and a name alone cannot build, with the reason; the transformation itself can be
handed in."""

# What to write instead of `weight_decay` with an optimizer that has none.
_DECOUPLED_SIBLING: dict[str, str] = {"adamax": "adamaxw", "nadam": "nadamw"}


def lookup(name: object) -> Entry:
    """The optimizer of that name; upper and lower case are the same.

    Raises:
        UnknownNameError: when there is none.
        OptimizerError: when optax has it, but a dict cannot describe it.
    """
    known = entries()
    key = name.lower() if isinstance(name, str) else name
    if isinstance(key, str) and key in known:
        return known[key]
    if isinstance(key, str) and key in NOT_BY_NAME:
        raise OptimizerError(
            f"Received optimizer {name!r}; expected one that its name and arguments describe, and "
            f"{NOT_BY_NAME[key]}. Hand in the transformation itself as optimizer_hparams."
        )
    raise unknown_name("optimizer", name, known)


def decay_error(entry: Entry, weight_decay: float) -> OptimizerError:
    """The error for `weight_decay` with an optimizer that has no decoupled decay."""
    received = f"Received weight_decay={weight_decay:g} with optimizer {entry.name!r}"
    penalty = f"l2_regularization={weight_decay:g}"
    if entry.decay == "coupled":
        return OptimizerError(
            f"{received}; expected an optimizer with decoupled decay, but optax adds it to "
            "the gradients before they are scaled, which is an L2 penalty. Write "
            f"{penalty}, or hand in optax's {entry.name} itself as optimizer_hparams."
        )
    sibling = _DECOUPLED_SIBLING.get(entry.name, "adamw")
    return OptimizerError(
        f"{received}; expected an optimizer with decoupled decay, and {entry.name} has none. Write "
        f"optimizer={sibling!r}, weight_decay={weight_decay:g} for decoupled decay, or {penalty} "
        "for a penalty in the loss."
    )


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Every optimizer that can be built by name, sorted by it, with what is known of it.

    Example:
        >>> sgd = entries()["sgd"]
        >>> sorted(sgd.arguments), sgd.decay
        (['accumulator_dtype', 'momentum', 'nesterov'], 'appended')
    """
    found = {**_discover(optax), **_discover(optax.contrib), **_OURS}
    return MappingProxyType({name: _entry(name, found[name]) for name in sorted(found)})


def _discover(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in vars(module).items() if _is_optimizer(name, value)}


def _is_optimizer(name: str, value: object) -> bool:
    if name in NOT_BY_NAME or name.startswith(("_", "scale_by_")):
        return False
    if not isinstance(value, FunctionType | functools.partial):  # `nadam` is a partial
        return False
    return name in _PARTICULARS or "learning_rate" in inspect.signature(value).parameters


def _entry(name: str, factory: Callable[..., Any]) -> Entry:
    parameters = inspect.signature(factory).parameters
    masks = [argument for argument in ("mask", "weight_decay_mask") if argument in parameters]
    default_lr = getattr(parameters.get("learning_rate"), "default", None)
    hidden = {*RENAMED, "weight_decay"} | _HIDDEN.get(name, frozenset())
    own = {key: value for key, value in parameters.items() if key not in hidden}
    derived: dict[str, Any] = {
        "default_lr": default_lr if isinstance(default_lr, float) else DEFAULT_LR,
        "decay": "argument" if "weight_decay" in parameters else "none",
    }
    return Entry(
        name=name,
        factory=factory,
        arguments=frozenset(own),
        required=frozenset(key for key, value in own.items() if value.default is value.empty),
        mask_argument=masks[0] if masks else None,
        **(derived | _PARTICULARS.get(name, {})),
    )
