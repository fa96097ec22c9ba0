"""Checks of a trainer's constructor arguments, before anything is built."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import jax

from boltax._base._containers import plain_mapping
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax._base._whole import is_whole
from boltax._build._foreign_options import check_hyperparameters
from boltax._build._methods import base_of, overrides
from boltax.data._batches import to_host
from boltax.data._module import DataModule
from boltax.errors import ConfigurationError, noting, unknown_name
from boltax.parallel._parallel import Parallel, as_parallel

LOGGER_PARAMS = ("base_log_dir", "logger_name", "logger_type", "project_name", "log_dir")
_SIMILAR = 0.85
_SEED_BITS = 63


def logger_params_of(value: Any) -> dict[str, Any]:
    """The argument `logger_params` as a dict of known names.

    Raises:
        ConfigurationError: for something else.
    """
    given = value if isinstance(value, str) else "TensorBoard"
    example = f'logger_params={{"logger_type": "{given}"}}'
    params = plain_mapping(value, "logger_params", example)
    for name in params:
        if name not in LOGGER_PARAMS:
            raise unknown_name("logger parameter", name, LOGGER_PARAMS)
    return params


def check_names(cls: type, hparams: Mapping[str, Any], *, is_new: bool) -> None:
    """Refuses hyperparameters whose names are nearly arguments, or belong elsewhere.

    Args:
        cls: the trainer's class.
        hparams: the arguments that its constructor does not know.
        is_new: whether the run begins here; that of a stored one may have been begun with anything.

    Raises:
        ConfigurationError: naming the first of them.
    """
    own = [
        name
        for name in inspect.signature(base_of(cls).__init__).parameters
        if name not in ("self", "hparams")
    ]
    for name in hparams:
        if difflib.get_close_matches(name, own, n=1, cutoff=_SIMILAR):
            raise unknown_name("argument", name, own)
    if is_new:
        check_hyperparameters(hparams, cls.__name__, own)


def check_options(cls: type, loop: Any, checkpoint: Any) -> None:
    """Refuses options that are none, and those of the step where boltax does not make the step.

    Raises:
        ConfigurationError: naming the first of them, and what to write.
    """
    for name, value, kind in (
        ("loop", loop, LoopOptions),
        ("checkpoint", checkpoint, CheckpointOptions),
    ):
        if not isinstance(value, kind):
            raise ConfigurationError(
                f"Received {name}={value!r}; expected {kind.__name__}. Write "
                f"{name}=boltax.{kind.__name__}(...)."
            )
    needs = {"ema": "create_jitted_functions", "log_norms": "create_jitted_functions"}
    if not overrides(cls, "loss_function"):
        needs |= dict.fromkeys(("microbatches", "remat", "precision"), "create_functions")
        if isinstance(loop.log_norms, str):
            needs["log_norms"] = "create_functions"
    for name, method in needs.items():
        value = getattr(loop, name)
        if value == getattr(LoopOptions(), name) or not overrides(cls, method):
            continue
        write = "loss_function" if method == "create_functions" else "create_functions"
        raise ConfigurationError(
            f"Received LoopOptions({name}={value!r}) for {cls.__name__}, which writes its steps "
            f"itself in {method}; expected steps that boltax can complete. Write {write} instead, "
            f"or leave {name} out and do it in your own step."
        )


def parallel_of(value: Any, cls: type, *, is_debug: bool) -> Parallel | None:
    """The argument `parallel`, as an object.

    Raises:
        ConfigurationError: when it is none, or boltax does not compile the steps.
    """
    parallel = as_parallel(value)
    if parallel is not None and (is_debug or overrides(cls, "create_jitted_functions")):
        cause = "debug=True" if is_debug else "a create_jitted_functions of its own"
        raise ConfigurationError(
            f"Received parallel={value!r} for {cls.__name__} with {cause}, whose steps boltax "
            "does not compile; expected steps that it compiles for the devices. Leave out "
            f"parallel, or {cause}."
        )
    return parallel


def check_positive(**values: Any) -> None:
    """Refuses what is not a whole number of at least 1; those of NumPy are whole numbers, too."""
    for name, value in values.items():
        if value is not None and not is_whole(value, 1):
            raise ConfigurationError(
                f"Received {name}={value!r}; expected a whole number of at least 1."
            )


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1, as Python has it."""
    check_positive(**{name: value})
    if value is None:
        raise ConfigurationError(f"Received {name}=None; expected a whole number of at least 1.")
    return int(value)


def seed_of(value: Any) -> int:
    """The argument `seed` as Python has it.

    Raises:
        ConfigurationError: for one from which JAX makes no key.
    """
    if not is_whole(value) or not -(2**_SEED_BITS) <= int(value) < 2**_SEED_BITS:
        raise ConfigurationError(
            f"Received seed={value!r} ({type(value).__name__}); expected a whole number of at most "
            "64 bits. Write seed=42."
        )
    return int(value)


def example_of(value: Any, cls: type, data: Any = None) -> Any:
    """The argument `exmp_input`, with NumPy's arrays; that of a data module where there is none.

    Raises:
        ConfigurationError: when the model's variables cannot follow from it.
    """
    if value is None and isinstance(data, DataModule) and overrides(cls, "loss_function"):
        value = data.example()
    if value is None:
        if overrides(cls, "run_model_init") or overrides(cls, "init_model"):
            return None
        raise ConfigurationError(
            f"Received no exmp_input for {cls.__name__}; expected an example batch, from which the "
            "shapes of the model's variables follow. Write exmp_input=next(iter(train_loader))."
        )
    _check_keys(value)
    with noting("exmp_input"):
        return to_host(value)[0]


def _check_keys(batch: Any, path: str = "exmp_input") -> None:
    """Refuses dicts whose keys JAX cannot bring into an order."""
    if isinstance(batch, Mapping):
        kinds = sorted({type(key).__name__ for key in batch})
        if len(kinds) > 1:
            raise ConfigurationError(
                f"Received {path} as a dict with keys {list(batch)!r} ({', '.join(kinds)}); "
                "expected keys of one type, which JAX can sort. Write strings for all of them."
            )
        for key, part in batch.items():
            _check_keys(part, f"{path}[{key!r}]")
    elif isinstance(batch, list | tuple):
        for number, part in enumerate(batch):
            if not isinstance(part, jax.Array):
                _check_keys(part, f"{path}[{number}]")
