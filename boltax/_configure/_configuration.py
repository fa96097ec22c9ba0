"""A configuration that is checked: it makes trainers and loaders, and is stored with a run.

    trainer: train.py:Classifier      # FILE.py:CLASS
    data: train.py:make_loaders       # FILE.py:FUNCTION -> train_loader, val_loader[, test_loader]
    data_hparams: {batch_size: 64}    # its arguments
    model_class: ResNet               # a name in the trainer's file, or FILE.py:NAME
    model_hparams: {num_classes: 10}  # its arguments
    optimizer_hparams: {optimizer: adamw, lr: 3e-4}
    loop: {precision: bf16}           # LoopOptions, and so checkpoint
    max_steps: 10000                  # of train_model

Everything else is an argument of the trainer's constructor. A file is only arguments: the library
itself reads no configuration.
"""

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boltax._base._options import CheckpointOptions, LoopOptions
from boltax._base._types import ScalarMetrics
from boltax._build._construction import previewing
from boltax._configure._mapping import is_plain, read_mapping, write_mapping
from boltax._configure._named import anywhere, file_of, find_named
from boltax._configure._parser import Options, training_names
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import ConfigurationError
from boltax.trainer import TrainerModule

FILE = "config.yaml"
_LOADERS = (
    "Write def make_loaders(batch_size=64): ...; return train_loader, val_loader, test_loader."
)


@dataclass(frozen=True)
class Named:
    """What a configuration names of the user's.

    Attributes:
        trainer: the trainer's class.
        model: the model's class.
        data: the function that makes loaders.
    """

    trainer: Any
    model: Any
    data: Any

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> "Named":
        """What a mapping names; None for what it does not.

        Raises:
            ConfigurationError: when something does not exist, or is of another kind.
        """
        with previewing():  # trainers that the file makes leave no folder
            trainer = mapping.get("trainer")
            file = (file_of(trainer) or None) if isinstance(trainer, str) else None
            found = [
                None if mapping.get(key) is None else find_named(mapping[key], key, file)
                for key in ("trainer", "model_class", "data")
            ]
        trainer_class = found[0]
        is_good = isinstance(trainer_class, type) and issubclass(trainer_class, TrainerModule)
        if trainer_class is not None and not is_good:
            raise ConfigurationError(
                f"Received trainer: {trainer}, which is no trainer's class; expected a subclass of "
                "boltax.TrainerModule. Write trainer: train.py:Classifier."
            )
        if found[2] is not None and (isinstance(found[2], type) or not callable(found[2])):
            raise ConfigurationError(
                f"Received data: {mapping['data']}, which is no function; expected one that makes "
                f"loaders. {_LOADERS}"
            )
        return cls(*found)

    @property
    def options(self) -> Options:
        """The options that there are."""
        return Options(self.trainer, self.model, self.data)


@dataclass(frozen=True)
class Configuration:
    """The arguments of a run.

    Attributes:
        named: what of the user's it names.
        given: the arguments as they were given.
        values: all arguments, with defaults.
        objects: made of them: the callbacks, and what `train_model` is called with.
        own: names of arguments that only the trainer's own constructor has.
    """

    named: Named
    given: Mapping[str, Any]
    values: Mapping[str, Any]
    objects: Mapping[str, Any]
    own: tuple[str, ...] = ()

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> "Configuration":
        """The configuration of a mapping, checked.

        Raises:
            ConfigurationError: for a name that is unknown or missing, or a value of another type.
        """
        named = Named.of(mapping)
        if named.trainer is None:
            raise ConfigurationError(
                "Received a configuration without a trainer; expected its class. Write --trainer "
                "train.py:Classifier, or trainer: train.py:Classifier in the file."
            )
        options = named.options
        values, objects = options.checked(mapping)
        return cls(named, mapping, values, objects, tuple(options.own))

    def loaders(self) -> tuple[Any, Any, Any]:
        """The loaders for training, validation and test; None for one that there is not."""
        return loaders_of(self.named, self.given, self._arguments("data_hparams"))

    def trainer(self, exmp_input: Any) -> Any:
        """A new trainer.

        Raises:
            ConfigurationError: when it needs a model and there is none.
        """
        try:
            return self.named.trainer(**self.arguments, exmp_input=exmp_input)
        except TypeError as error:
            if self.named.model is not None or "'model_class'" not in str(error):
                raise
            raise ConfigurationError(
                "Received a configuration without model_class; expected the model's class. Write "
                "model_class: ResNet for one in the trainer's file, or train.py:ResNet."
            ) from error

    @property
    def arguments(self) -> dict[str, Any]:
        """What the trainer's constructor is called with, the example input aside."""
        values, left = self.values, {*training_names(), "trainer", "data", "data_hparams", "space"}
        arguments = {name: value for name, value in values.items() if name not in left}
        hparams = arguments.pop("hparams")
        arguments |= {
            "loop": LoopOptions(**values["loop"]),
            "checkpoint": CheckpointOptions(**values["checkpoint"]),
            "model_class": self.named.model,
            "model_hparams": self._arguments("model_hparams"),
            "callbacks": self.objects["callbacks"],
            "logger_params": values["logger_params"] or None,
        }
        parameters = inspect.signature(self.named.trainer).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        given = {
            name: value
            for name, value in arguments.items()
            if (value is not None or name in self.own)
            and (takes_any or name in parameters or name in self.given)
        }
        return {**given, **hparams}

    @property
    def training(self) -> dict[str, Any]:
        """What `train_model` is called with, the loaders aside."""
        defaults = inspect.signature(TrainerModule.train_model).parameters
        values = {name: self.objects[name] for name in training_names()}
        return {n: v for n, v in values.items() if v is not defaults[n].default}

    def _arguments(self, group: str) -> dict[str, Any]:
        """Arguments of a model or of the loaders; defaults that are no plain values stay theirs."""
        given = self.given.get(group) or {}
        values = self.values.get(group) or {}
        return {n: v for n, v in values.items() if n in given or is_plain(v)}

    def write(self, folder: str | Path) -> None:
        """Writes the whole configuration into a run's folder."""
        from boltax import __version__

        named = {key: anywhere(self.given.get(key)) for key in ("trainer", "data", "model_class")}
        if named["model_class"] is not None and ":" not in named["model_class"]:
            file = file_of(named["trainer"])
            named["model_class"] = f"{file}:{named['model_class']}" if file else None
        groups = {group: self._arguments(group) for group in ("model_hparams", "data_hparams")}
        rest = {n: _as_given(v) for n, v in self.values.items() if n not in (*named, *groups)}
        whole = {**named, **groups, **rest}
        kept = {n: v for n, v in whole.items() if is_plain(v) and v is not None}
        head = f"All arguments of this run, by boltax {__version__}. Again: boltax fit {folder}"
        write_mapping(Path(folder) / FILE, kept, head)


def _as_given(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {n: _as_given(v) for n, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_given(part) for part in value]
    return value.as_dict() if hasattr(value, "as_dict") else value


def loaders_of(
    named: Named, given: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[Any, Any, Any]:
    """The loaders that a function of the user's makes; None for one that there is not.

    Raises:
        ConfigurationError: when nothing makes them, or something else is made.
    """
    if named.data is None:
        raise ConfigurationError(
            "Received a configuration without data; expected a function that makes loaders. "
            f"Write data: train.py:make_loaders. {_LOADERS}"
        )
    made = named.data(**arguments)
    parts = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(parts) <= 3:
        raise ConfigurationError(
            f"Received {len(parts)} loaders from {given['data']}; expected those for training, "
            f"validation and test. {_LOADERS}"
        )
    train, val, test, *_ = *parts, None, None
    return train, val, test


def read_configuration(path: str) -> tuple[dict[str, Any], Path | None]:
    """The arguments in a file, or of a run; and the run's folder.

    Raises:
        ConfigurationError: when there are none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return read_mapping(path), None
    is_run = RunDirectory(folder).hparams.is_file()
    if not (folder / FILE).is_file() or not is_run:
        what = f"a run of another making, without a {FILE}" if is_run else "which is no run"
        raise ConfigurationError(
            f"Received {path!r}, {what}; expected the folder of a run that boltax "
            "fit made, or a file. Write boltax fit config.yaml."
        )
    return read_mapping(str(folder / FILE)), folder


def fit(configuration: Configuration, *, resume: bool = False) -> tuple[str, ScalarMetrics]:
    """Trains what a configuration says.

    Returns:
        The run's folder, and the metrics.
    """
    train, val, test = configuration.loaders()
    example, train = first_batch(train)
    trainer = configuration.trainer(example)
    if trainer.log_dir:
        configuration.write(trainer.log_dir)
    metrics = trainer.train_model(train, val, test, **configuration.training, resume=resume)
    return trainer.log_dir, metrics


def first_batch(loader: Any) -> tuple[Any, Any]:
    """The first batch of a loader, and the loader with that batch still in it."""
    iterator: Iterator[Any] = iter(loader)
    try:
        first = next(iterator)
    except StopIteration:
        raise ConfigurationError(
            "Received a training loader without batches; expected at least one, which the model is "
            "initialised for. Mend the function that data names."
        ) from None
    return first, itertools.chain([first], iterator) if iterator is loader else loader
