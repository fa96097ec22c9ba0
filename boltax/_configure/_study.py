"""A study of a configuration: its `space` gives values for some of its names.

space:
optimizer_hparams.lr: {log: [1e-4, 1e-1]}     # a number between two others, on a log scale
loop.ema: {range: [0.9, 0.999]}               # a number between two others
model_hparams.width: [64, 128]                # one of these
"""

from collections.abc import Callable, Mapping
from typing import Any

from boltax._configure._configuration import Configuration, first_batch
from boltax._configure._mapping import changed, put
from boltax.errors import ConfigurationError

Made = tuple[Callable[..., Any], Mapping[str, Any], tuple[Any, Any, Any]]


def study_of(mapping: Mapping[str, Any]) -> Made:
    """What a study needs: a function from hyperparameters to a trainer, the space, and the loaders.

    Raises:
        ConfigurationError: for a configuration without a space, or with one that is none.
    """
    space = mapping.get("space")
    if not isinstance(space, Mapping) or not space:
        raise ConfigurationError(
            f"Received a configuration with space: {space!r}; expected what the study varies. "
            "Write space: {optimizer_hparams.lr: {log: [1e-4, 1e-1]}}."
        )
    forms = {str(name): _form(str(name), form) for name, form in space.items()}
    loaders = Configuration.of(
        _with(mapping, {name: _one(f) for name, f in forms.items()})
    ).loaders()
    example, train = first_batch(loaders[0])

    def make_trainer(**hyperparameters: Any) -> Any:
        return Configuration.of(_with(mapping, hyperparameters)).trainer(example)

    return make_trainer, forms, (train, *loaders[1:])


def _with(mapping: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    result = changed(mapping, [])
    for name, value in values.items():
        put(result, name, value)
    return result


def _form(name: str, form: Any) -> Any:
    """A form of the space as `boltax.tune` has it; what is wrong with its ends is said there."""
    if isinstance(form, list):
        return form
    if isinstance(form, Mapping) and len(form) == 1:
        kind, ends = next(iter(form.items()))
        if kind in ("log", "range") and isinstance(ends, list) and len(ends) == 2:
            return ("log", *ends) if kind == "log" else tuple(ends)
    raise ConfigurationError(
        f"Received {name}: {form!r} in the space; expected {{log: [LOW, HIGH]}}, {{range: [LOW, "
        f"HIGH]}} or a list of choices. Write {name}: {{log: [1e-4, 1e-1]}}."
    )


def _one(form: Any) -> Any:
    return form[0] if isinstance(form, list) else form[-1]
