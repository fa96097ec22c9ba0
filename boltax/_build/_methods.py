"""The methods of a trainer's class: what a subclass overrides, and what nothing ever calls."""

import difflib
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

from boltax.errors import ConfigurationError

_LOSS = "loss_function(self, model, batch, train)"
_START = "on_training_start(self)"
_EPOCH_END = "on_training_epoch_end(self, epoch_idx)"
_VALIDATION_END = "on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader)"
_GRADIENTS = "on_gradients(self, gradients, *, loss, state, updates)"
_CALLBACK = "a boltax.callbacks.Callback, which sees every step"

FOREIGN: Mapping[str, str] = {
    "training_step": _LOSS,
    "validation_step": _LOSS,
    "test_step": _LOSS,
    "predict_step": "predict_function(self, model, batch)",
    "configure_optimizers": "optimizer_hparams=... in the constructor, or init_optimizer",
    "configure_callbacks": "callbacks=[...] in the constructor",
    "on_fit_start": _START,
    "on_train_start": _START,
    "on_train_begin": _START,
    "on_fit_end": "on_training_end(self)",
    "on_train_end": "on_training_end(self)",
    "on_train_epoch_start": _EPOCH_END,
    "on_training_epoch_start": _EPOCH_END,
    "on_epoch_start": _EPOCH_END,
    "on_epoch_begin": _EPOCH_END,
    "on_train_epoch_end": _EPOCH_END,
    "on_epoch_end": _EPOCH_END,
    "training_epoch_end": _EPOCH_END,
    "on_validation_start": _VALIDATION_END,
    "on_validation_epoch_start": _VALIDATION_END,
    "on_validation_end": _VALIDATION_END,
    "validation_epoch_end": _VALIDATION_END,
    "on_test_start": "on_training_end(self)",
    "on_test_epoch_end": "on_training_end(self)",
    "on_test_end": "on_training_end(self)",
    "on_train_batch_start": _CALLBACK,
    "on_train_batch_end": _CALLBACK,
    "on_validation_batch_end": _CALLBACK,
    "on_batch_end": _CALLBACK,
    "on_after_backward": _GRADIENTS,
    "on_before_optimizer_step": _GRADIENTS,
    "configure_gradient_clipping": _GRADIENTS,
}
"""Methods that other libraries' trainers call, and what stands for them here."""
_ATTRIBUTES: Mapping[str, str] = {
    "log": 'return loss, {"acc": ...} in loss_function, or self.logger.log_metrics(metrics, step)',
    "log_dict": "return loss, {...} from loss_function, or self.logger.log_metrics(metrics, step)",
    "current_epoch": "the epoch_idx of the hook, or self.run.epoch",
    "global_step": "int(self.state.step)",
    "params": "self.state.params",
    "optimizer": "self.state.tx",
    "trainer": "self",
    "fit": "self.train_model(train_loader, val_loader)",
    "evaluate": "self.eval_model(loader)",
    "predict": "self.predict_model(loader)",
}
_CALLED = (
    "loss_function",
    "predict_function",
    "create_functions",
    "create_jitted_functions",
    "init_logger",
    "init_model",
    "init_optimizer",
    "run_model_init",
    "print_tabulate",
    "is_new_model_better",
)
"""Methods that boltax calls and a user does not, so that a name near them is a slip; and hooks."""
_ASSIGNED = ("train_step", "eval_step", "state", "model")
_SIMILAR = 0.85


def overrides(trainer: object, method: str) -> bool:
    """Whether a trainer's class has its own version of a method.

    Args:
        trainer: the trainer or its class.
        method: the name.
    """
    cls = trainer if isinstance(trainer, type) else type(trainer)
    return getattr(cls, method) is not getattr(base_of(cls), method)


def overridden(cls: type) -> frozenset[str]:
    """The names of all methods of `TrainerModule` of which a class has its own version."""
    base = base_of(cls)
    names = (name for name, _ in inspect.getmembers(base, inspect.isfunction))
    return frozenset(n for n in names if getattr(cls, n) is not getattr(base, n))


def is_trainer(value: object) -> bool:
    """Whether a value is a `TrainerModule`, which the folders before `trainer` may not import."""
    return any(cls.__module__ == "boltax.trainer" for cls in type(value).__mro__)


def base_of(cls: type) -> Any:
    """`TrainerModule` itself."""
    return next(base for base in cls.__mro__ if base.__module__ == "boltax.trainer")


def check_methods(cls: type) -> None:
    """Refuses a class that lacks a loss, or whose methods nothing would ever call.

    Raises:
        ConfigurationError: naming the first of them, and what to write.
    """
    for name, owner in _own_methods(cls):
        if name in _ASSIGNED:
            raise ConfigurationError(
                f"Received {owner.__name__} with a method {name}, which the trainer sets itself; "
                "expected steps under the names that boltax calls. Write create_functions(self), "
                "which returns train_step and eval_step."
            )
    if not overrides(cls, "loss_function") and not overrides(cls, "create_functions"):
        meant = next((name for name, _ in _own_methods(cls) if FOREIGN.get(name) == _LOSS), None)
        was = f" but with {meant}" if meant else ""
        raise ConfigurationError(
            f"Received {cls.__name__} with neither loss_function nor create_functions{was}; "
            "expected one of them. Write def loss_function(self, model, batch, train): ... return "
            "loss, {}"
        )
    called = _names_used(cls)
    if (
        overrides(cls, "on_gradients")
        and not overrides(cls, "loss_function")
        and "on_gradients" not in called
    ):
        raise ConfigurationError(
            f"Received {cls.__name__} with on_gradients and without loss_function, whose gradients "
            "it would get; expected both. Write loss_function, or change the gradients in "
            "create_functions before state.apply_gradients has them."
        )
    for name, owner in _own_methods(cls):
        meant = None if name in called else _meant(name, base_of(cls))
        if meant is not None:
            raise ConfigurationError(
                f"Received {owner.__name__} with a method {name}, which nothing calls; expected "
                f"the name of a method that boltax calls. Write {meant}. (A method of your own "
                "that is called from elsewhere needs another name.)"
            )


def missing_attribute(trainer: object, name: str, *, is_begun: bool) -> AttributeError:
    """The error for an attribute that a trainer does not have."""
    cls = type(trainer)
    if not is_begun and not hasattr(cls, name):
        return AttributeError(
            f"Received {cls.__name__}.{name} before the constructor of boltax.TrainerModule has "
            f"run; expected its __init__ to call that one. Write super().__init__(...) in "
            f"{cls.__name__}.__init__, with the arguments that it has received."
        )
    known = {n for n in (*dir(cls), *vars(trainer)) if not n.startswith("_")}
    if name in _ATTRIBUTES:
        advice = f" Write {_ATTRIBUTES[name]}."
    elif near := difflib.get_close_matches(name, known, n=1, cutoff=0.7):
        advice = f" Did you mean {near[0]!r}?"
    else:
        advice = " Set it before super().__init__() if loss_function uses it."
    return AttributeError(
        f"Received {cls.__name__}.{name}; expected an attribute that the trainer has.{advice}",
        name=name,
        obj=trainer,
    )


def refuse_copy(trainer: object) -> TypeError:
    """The error for a trainer that is copied or pickled."""
    name = type(trainer).__name__
    return TypeError(
        f"Received {name} to copy or to pickle; expected to leave it as it is: a trainer owns the "
        "memory of its state, which each step reuses, its folder and its loggers. For another "
        f"trainer with its weights write {name}.load_from_checkpoint(trainer.log_dir), for its "
        "values jax.device_get(trainer.state), for another run a second constructor call."
    )


def _own_methods(cls: type) -> Iterator[tuple[str, type]]:
    """The functions that classes below `TrainerModule` define, with the class of each."""
    base = base_of(cls)
    for owner in cls.__mro__:
        if issubclass(owner, base) and owner is not base:
            for name, value in vars(owner).items():
                if inspect.isfunction(value) and not name.startswith("_"):
                    yield name, owner


def _names_used(cls: type) -> set[str]:
    """Every name that the code of a class speaks of: what is among these may be called by it."""
    base = base_of(cls)
    names: set[str] = set()
    codes = [
        function.__code__
        for owner in cls.__mro__
        if owner not in base.__mro__
        for function in vars(owner).values()
        if inspect.isfunction(function)
    ]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        names.update(part for part in code.co_consts if isinstance(part, str))  # of a getattr
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return names


def _meant(name: str, base: type) -> str | None:
    """What was probably meant by a method of a user's class; None when it is one of its own."""
    if hasattr(base, name):
        return None
    if name in FOREIGN:
        return FOREIGN[name]
    known = {n: getattr(base, n) for n in dir(base) if n in _CALLED or n.startswith("on_")}
    near = difflib.get_close_matches(name, known, n=1, cutoff=_SIMILAR)
    return f"{near[0]}{_signature(known[near[0]])}" if near else None


def _signature(function: Any) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"
