"""The arguments of a trainer's constructor: stored with the run, and given back one by one.

What is stored is what the subclass's own constructor received, so `load_from_checkpoint` can call
it again. Values are JSON; functions and classes are stored by name and only looked up (see
`boltax.checkpoint._hparams`). Nothing here knows what the arguments mean, but for the few names
that a trainer's constructor gives a meaning of its own.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from boltax.checkpoint._decode import decode
from boltax.checkpoint._encode import NotStored, encode
from boltax.checkpoint._files import read_json
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._plain import short
from boltax.checkpoint._rundir import RunDirectory, is_version, open_run_directory
from boltax.checkpoint._spec import batch_spec, zeros_from_spec
from boltax.errors import BoltaxError, CheckpointError, HyperparameterError

MODEL = ("model_class", "model_hparams")
"""The arguments that say what the model is."""


@dataclass(frozen=True)
class ConstructorCall:
    """The arguments of one call of a trainer class.

    Attributes:
        names: finds functions and classes by name.
        positional: those that only ``*args`` of the constructor took.
        named: the others by name, with those of ``**kwargs`` among them.
    """

    names: Lookup
    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @classmethod
    def of(cls, trainer_class: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """Binds arguments to the names that the constructor gives them."""
        signature = inspect.signature(trainer_class.__init__)
        try:
            bound = signature.bind_partial(None, *args, **kwargs).arguments
        except TypeError:  # the constructor itself says it better, in a moment
            bound = {}
        positional, named = (), dict[str, Any]()
        for name, value in list(bound.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                positional = value
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        return cls(Lookup(trainer_class), positional, named)

    def without_folder(self) -> Self:
        """The call without the folder of an older run, for one whose folder boltax has chosen."""
        params = self.named.get("logger_params")
        if not isinstance(params, Mapping) or "log_dir" not in params:
            return self
        kept = {name: value for name, value in params.items() if name != "log_dir"}
        return replace(self, named={**self.named, "logger_params": kept})

    def check_storable(self, hparams: Mapping[str, Any]) -> None:
        """Refuses free hyperparameters that the run's folder could not give back.

        Raises:
            HyperparameterError: naming the first of them.
        """
        for name, value in hparams.items():
            encode(value, name, self.names)

    def not_stored(self) -> list[str]:
        """What of the model the run's folder will not give back: why, and what to write."""
        found: list[str] = []
        for name in MODEL:
            try:
                encode(self.named.get(name), name, self.names)
            except HyperparameterError as error:
                found.append(
                    f"{error} Or hand it in to load the run: "
                    f"load_from_checkpoint(folder, {name}=...)."
                )
        return found

    def to_json(self, exmp_input: Any) -> dict[str, Any]:
        """What `read_call` reads: the arguments, and the structure of the example input.

        An argument that is no hyperparameter and cannot be stored (a callback, an Optuna trial) is
        noted as such.
        """
        arguments = {name: value for name, value in self.named.items() if name != "exmp_input"}
        return {
            "constructor": {
                "positional": [
                    self._store(value, f"args[{i}]") for i, value in enumerate(self.positional)
                ],
                "named": {name: self._store(value, name) for name, value in arguments.items()},
            },
            "exmp_input": self._spec(exmp_input),
        }

    def _store(self, value: Any, name: str) -> Any:
        return encode(value, name, self.names, lenient=True)

    def _spec(self, exmp_input: Any) -> Any:
        try:
            return batch_spec(exmp_input, self.names)
        except BoltaxError:
            return None


@dataclass(frozen=True)
class StoredCall:
    """A constructor call as read from a run's folder."""

    names: Lookup
    trainer_class: type[Any]
    folder: Path
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    spec: Any

    def arguments(
        self, *, exmp_input: Any, given: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments that construct the trainer again.

        Args:
            exmp_input: an example batch, or None for one of the stored structure.
            given: arguments that replace stored ones.

        Raises:
            CheckpointError: naming the arguments that have to be given.
        """
        keywords = {**self.named, **given}
        if "logger_params" not in given:
            stored = self.named.get("logger_params")
            items = stored.items() if isinstance(stored, Mapping) else ()
            kept = {key: value for key, value in items if not lacks_parts(value)}
            keywords["logger_params"] = {**kept, "log_dir": str(self.folder)}
        if exmp_input is None and "exmp_input" not in given:
            if self.spec is None:
                raise self._missing("exmp_input")
            exmp_input = zeros_from_spec(self.spec, self.names)
        keywords.setdefault("exmp_input", exmp_input)
        parameters = inspect.signature(self.trainer_class.__init__).parameters
        for name, value in list(keywords.items()):
            if not lacks_parts(value) or name == "optimizer_hparams":
                continue  # an optimizer is needed only to train: init_optimizer asks for it
            is_needed = name in MODEL or (
                name in parameters and parameters[name].default is inspect.Parameter.empty
            )
            if is_needed:
                raise self._missing(name, value)
            del keywords[name]
        if lacks_parts(self.positional):
            raise self._missing("the positional arguments", self.positional)
        return self.positional, keywords

    @property
    def is_folder_chosen(self) -> bool:
        """Whether boltax has chosen the run's folder, and no user has named it."""
        stored = self.named.get("logger_params") or {}
        is_named = isinstance(stored, Mapping) and bool(stored.get("log_dir"))
        return is_version(self.folder) and not is_named

    def fault(self, positional: tuple[Any, ...], keywords: Mapping[str, Any]) -> str | None:
        """What of the stored arguments no constructor of a trainer takes; asked when one failed.

        Args:
            positional: with which it was called.
            keywords: with which it was called.

        Returns:
            The argument, what it is and what was expected; None when nothing stands out.
        """
        try:
            inspect.signature(self.trainer_class.__init__).bind(None, *positional, **keywords)
        except TypeError as error:
            return f"arguments that the constructor does not take ({error}); expected those of it"
        for name, (is_good, expected) in _EXPECTED.items():
            value = self.named.get(name)
            if name in self.named and keywords.get(name) is value and not is_good(value):
                return f"{name} = {short(value)}; expected {expected}"
        return None

    def failed(self, fault: str) -> CheckpointError:
        """The error for stored arguments with which the constructor failed."""
        return CheckpointError(
            f"Received {RunDirectory(self.folder).hparams} with {fault}. The file is damaged: "
            "restore it from a copy, or hand the argument to load_from_checkpoint."
        )

    def _missing(self, name: str, value: Any = None) -> CheckpointError:
        was = f" (it was {short(value)})" if value is not None else ""
        return CheckpointError(
            f"Received the run {self.folder}, which does not hold {name}{was}; expected it to be "
            f"given, since it could not be stored. Write load_from_checkpoint(folder, {name}=...)."
        )


def _is_seed(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_hparams": (_is_mapping, "arguments of the model by name"),
    "seed": (_is_seed, "a whole number of at most 64 bits"),
}


def lacks_parts(value: Any) -> bool:
    """Whether a stored value, or a part of it, could not be stored."""
    if isinstance(value, Mapping):
        return any(lacks_parts(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(lacks_parts(part) for part in value)
    return isinstance(value, NotStored)


def read_call(folder: Path, trainer_class: type[Any]) -> StoredCall:
    """The constructor call that a run's folder holds.

    Raises:
        CheckpointError: when the folder is not that of a run, or is damaged.
    """
    directory: RunDirectory = open_run_directory(folder)
    stored, names = read_json(directory.hparams), Lookup(trainer_class)
    try:
        call = stored["constructor"]
        positional = tuple(decode(value, names) for value in call["positional"])
        named = {str(name): decode(value, names) for name, value in call["named"].items()}
        return StoredCall(
            names, trainer_class, directory.path, positional, named, stored.get("exmp_input")
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Received {directory.hparams}, which lacks the constructor's arguments; expected the "
            "hparams.json that boltax writes at the start of a run. Construct the trainer by hand "
            "and call load_model()."
        ) from error
