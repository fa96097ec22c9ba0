"""The space of a study: which hyperparameters `make_trainer` is called with.

    {
        "lr": ("log", 1e-4, 1e-1),        # a number between two others, drawn on a log scale
        "dropout": (0.0, 0.5),            # a number between two others
        "layers": (1, 4),                 # a whole number, since both ends are
        "features": [64, 128],            # one of these
        "momentum": optuna.distributions.FloatDistribution(0.0, 0.9, step=0.1),
    }

Or a function of the trial that returns the hyperparameters (Optuna's define-by-run), for those that
depend on each other. Knows nothing of trainers.
"""

import ast
import inspect
import json
import math
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from boltax._base._optional import import_optional
from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Space: TypeAlias = "Mapping[str, Any] | Callable[[optuna.Trial], Mapping[str, Any]]"

FORMS = (
    '(low, high), ("log", low, high), a list of choices, or an Optuna distribution; '
    'e.g. {"lr": ("log", 1e-4, 1e-1), "features": [64, 128]}'
)
SIMPLE = (bool, int, float, str, type(None))
"""What a choice may be, and what a hyperparameter is made of: plain JSON."""


def optuna_module() -> Any:
    """The package `optuna`."""
    return import_optional("optuna", extra="tune", purpose="boltax.tune.optimize")


class SearchSpace:
    """A space that is ready to be asked.

    Attributes:
        distributions: by name; empty for a function of the trial.
        function: the function of the trial, or None.

    Args:
        space: a dict, or a function; see the top of the file.

    Raises:
        ConfigurationError: for a form that is none of a space's.
    """

    def __init__(self, space: Space) -> None:
        self.function: Callable[..., Any] | None = None
        self.distributions: dict[str, BaseDistribution] = {}
        if isinstance(space, Mapping):
            self.distributions = {
                str(name): _distribution(str(name), form) for name, form in space.items()
            }
        elif callable(space):
            self.function = space
        if not self.distributions and self.function is None:
            raise ConfigurationError(
                f"Received space={space!r}; expected a dict from each hyperparameter to one of "
                f"{FORMS}; or a function of the trial that returns the hyperparameters."
            )

    def hyperparameters(self, trial: "optuna.Trial | optuna.trial.BaseTrial") -> dict[str, Any]:
        """What `make_trainer` is called with for a trial that was asked with `distributions`.

        Raises:
            ConfigurationError: when a function of the trial returns something else.
        """
        if self.function is None:
            return {name: trial.params[name] for name in self.distributions}
        chosen = self.function(trial)
        if not isinstance(chosen, Mapping):
            raise ConfigurationError(
                f"Received {chosen!r} from the space, a function of the trial; expected a dict of "
                'hyperparameters. Write return {"lr": trial.suggest_float("lr", 1e-4, 1e-1), ...}.'
            )
        named = {str(name): value for name, value in cast("Mapping[Any, Any]", chosen).items()}
        for name, value in named.items():
            if not _is_plain(value):
                raise ConfigurationError(
                    f"Received {name}={value!r} ({type(value).__name__}) from the space; expected "
                    "numbers, strings, None, or lists, tuples and dicts of these, which the "
                    "study's storage can keep. Return a name, and look it up in make_trainer."
                )
        return named

    def to_json(self) -> dict[str, Any] | str:
        """The space as plain JSON, to tell whether another one is the same."""
        if self.function is not None:
            return "a function of the trial"
        write = optuna_module().distributions.distribution_to_json
        return {name: json.loads(write(form)) for name, form in self.distributions.items()}

    def check_names(self, make_trainer: Callable[..., Any]) -> None:
        """Refuses hyperparameters that `make_trainer` does not take, and ones that it lacks.

        Raises:
            UnknownNameError: for a name that is none of its arguments.
            ConfigurationError: for an argument that nothing gives a value.
        """
        if self.function is None:
            check_arguments_of(make_trainer, self.distributions)


def check_arguments_of(make_trainer: Callable[..., Any], names: Mapping[str, Any]) -> None:
    """Refuses names that do not fit the arguments of `make_trainer`; see `check_names`."""
    parameters = inspect.signature(make_trainer).parameters.values()
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in names:
            if name not in {p.name for p in by_name}:
                raise unknown_name(
                    "hyperparameter in the space", name, [p.name for p in by_name] or ["none"]
                )
    missing = [p.name for p in by_name if p.default is p.empty and p.name not in names]
    if missing:
        raise ConfigurationError(
            f"Received a space with {', '.join(names) or 'nothing'} for a make_trainer that also "
            f"asks for {missing[0]!r}; expected a value for each of its arguments. Write "
            f"{missing[0]!r} into the space, or give it a default."
        )


def read_space(text: str, find: Callable[[str], Any]) -> Space:
    """The space that a command line names.

    Args:
        text: the dict itself, as in Python; a file that holds it; or a name in the user's file.
        find: gives the object of that name.

    Raises:
        ConfigurationError: when the text is none of these.
    """
    if text.lstrip().startswith("{"):
        return _literal(text, "--space")
    path = Path(text)
    if path.is_file():
        return _literal(path.read_text(encoding="utf-8"), text)
    if text.isidentifier():
        return find(text)
    raise ConfigurationError(
        f"Received --space {text!r}; expected a dict, a file that holds one, or the name of one in "
        """the file of make_trainer. Write --space '{"lr": ("log", 1e-4, 1e-1)}'."""
    )


def _literal(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ConfigurationError(
            f"Received {text.strip()!r} ({where}), which is no Python dict ({error}); expected a "
            """space. Write '{"lr": ("log", 1e-4, 1e-1), "features": [64, 128]}'."""
        ) from error
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"Received {value!r} ({where}), of type {type(value).__name__}; expected a dict from "
            f"each hyperparameter to {FORMS}."
        )
    return cast("dict[str, Any]", value)


def _distribution(name: str, form: object) -> "BaseDistribution":
    distributions = optuna_module().distributions
    if isinstance(form, distributions.BaseDistribution):
        return cast("BaseDistribution", form)
    if isinstance(form, list):
        return distributions.CategoricalDistribution(_choices(name, cast("list[Any]", form)))
    if isinstance(form, tuple):
        parts = cast("tuple[Any, ...]", form)
        is_log = len(parts) == 3 and parts[0] == "log"
        ends = parts[1:] if is_log else parts
        if len(ends) == 2 and all(map(_is_number, ends)) and ends[0] < ends[1]:
            are_whole = all(is_whole(end) for end in ends)
            if not is_log or ends[0] > 0:
                kind = "IntDistribution" if are_whole else "FloatDistribution"
                low, high = map(int if are_whole else float, ends)
                return getattr(distributions, kind)(low, high, log=is_log)
    raise ConfigurationError(
        f"Received {name!r}: {form!r} in the space; expected {FORMS}; with low below high, and "
        f"above 0 for a log scale. For a constant write {name!r}: [value]."
    )


def _choices(name: str, choices: list[Any]) -> list[Any]:
    if choices[:1] == ["log"] and len(choices) == 3 and all(map(_is_number, choices[1:])):
        raise ConfigurationError(
            f"Received {name!r}: {choices!r} in the space, a list of three choices; expected a "
            f"tuple for a range. Write {name!r}: {tuple(choices)!r}."
        )
    if choices and all(isinstance(choice, SIMPLE) for choice in choices):
        return choices
    raise ConfigurationError(
        f"Received {name!r}: {choices!r} in the space; expected at least one choice, each a "
        "number, a string, a bool or None, which the study's storage can keep. For other things "
        "write their names, and look these up in make_trainer."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(part) for part in cast("Mapping[Any, Any]", value).values())
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in cast("tuple[Any, ...]", value))
    return isinstance(value, SIMPLE)
