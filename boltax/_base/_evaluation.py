"""Named evaluations: several loaders in place of one, each with a cadence or a function of its own.

    val_loader={"clean": clean, "shifted": Evaluation(shifted, every=1000)}

Values only; the loop reads the loaders and calls the functions.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from boltax._base._triggers import Every
from boltax.errors import ConfigurationError

Function = Callable[[Any, Any], Mapping[str, Any]]
"""``(trainer, loader) -> metrics``, on the host."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation with a cadence, or a function, of its own; it gets its name from the dict.

    Give it in the place of a loader: ``val_loader={"clean": loader, "fid": Evaluation(...)}``. Its
    metrics are ``val/<name>/...``, and may be the monitor.

    Attributes:
        loader: anything that yields batches; None for a function that needs none.
        every: steps between two of them, or a `boltax.Every`; None for each validation. It also
            comes after the last step.
        function: ``(trainer, loader) -> {name: value}``, called in the place of the evaluation with
            `loss_function`: for what is computed from a whole data set, or from samples. It finds
            the weights in ``trainer.state``, and may call ``trainer.predict_model(loader)`` or
            ``trainer.bind_model()``. In a population it is called for each member.

    Raises:
        ConfigurationError: for an evaluation of nothing, or a cadence that cannot be.

    Example:
        >>> Evaluation(function=lambda trainer, loader: {"norm": 1.0}, every=500).every
        Every(steps=500, minutes=None, epochs=None)
    """

    loader: Any = None
    _: KW_ONLY
    every: int | Every | None = None
    function: Function | None = None

    def __post_init__(self) -> None:
        if self.loader is None and self.function is None:
            raise ConfigurationError(
                "Received Evaluation() with neither a loader nor a function; expected one of them. "
                "Write Evaluation(loader), or Evaluation(function=lambda trainer, loader: {...})."
            )
        if self.function is not None and not callable(self.function):
            raise ConfigurationError(
                f"Received Evaluation(function={self.function!r}); expected a function of trainer "
                'and loader that returns metrics. Write function=lambda trainer, loader: {"x": 1}.'
            )
        every = self.every
        if isinstance(every, bool) or not isinstance(every, int | Every | None):
            raise ConfigurationError(
                f"Received Evaluation(every={every!r}); expected a number of steps, an Every, or "
                "None for each validation. Write every=1000."
            )
        if isinstance(every, int):
            object.__setattr__(self, "every", Every(steps=every))

    @property
    def trigger(self) -> Every | None:
        """When it is due; None for each validation."""
        return self.every if isinstance(self.every, Every) else None


def evaluations_of(given: Any, name: str) -> dict[str, Evaluation]:
    """The evaluations that an argument stands for: by name, or one whose name is empty.

    Args:
        given: a loader, a dict of loaders and evaluations, or None.
        name: the argument that it was, for messages.

    Raises:
        ConfigurationError: for an evaluation without a name, and a name that cannot be.
    """
    if given is None:
        return {}
    if any(isinstance(one, Evaluation) for one in _parts(given)):
        raise _without_name(given, name)
    if not is_named(given):
        return {"": Evaluation(given)}
    found: dict[str, Evaluation] = {}
    named: Mapping[Any, Any] = given
    for key, value in named.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ConfigurationError(
                f"Received {name} with the name {key!r}; expected a text without '/', which comes "
                f'between the phase and the metric. Write {name}={{"clean": loader}}.'
            )
        if value is None:
            raise ConfigurationError(
                f"Received {name} with {key!r}: None; expected a loader or an Evaluation for each "
                "name. Leave it out."
            )
        found[key] = value if isinstance(value, Evaluation) else Evaluation(value)
    return found


def _parts(given: Any) -> Collection[Any]:
    return given if isinstance(given, list | tuple) else (given,)


def is_named(given: Any) -> bool:
    """Whether it is a dict of evaluations, and not one of arrays, which is no loader."""
    if not isinstance(given, Mapping) or not given:
        return False
    values: list[Any] = list(given.values())
    return not any(hasattr(value, "shape") for value in values)


def prefix_of(phase: str, name: str) -> str:
    """What stands before the metrics of an evaluation: ``val/``, or ``val/clean/``."""
    return f"{phase}/{name}/" if name else f"{phase}/"


def all_names(evaluations: Mapping[str, Evaluation], names: Collection[str]) -> list[str]:
    """The names that the metrics of one evaluation have in all that are computed by the loss.

    Args:
        evaluations: by name.
        names: the metrics of one that has no name, ``val/...``.
    """
    of_loss = [name for name, one in evaluations.items() if one.function is None]
    metrics = [name.removeprefix("val/") for name in names]
    return [prefix_of("val", name) + metric for name in of_loss for metric in metrics]


def _without_name(given: Any, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"Received {name}={type(given).__name__} with an Evaluation that has no name; expected a "
        f'dict, since its metrics are called after it. Write {name}={{"shifted": Evaluation(...)}}.'
    )
