"""The options of a run by jsonargparse: names, types, defaults and help of the real signatures."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from boltax._base._optional import import_optional
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax.callbacks._base import Callback
from boltax.errors import ConfigurationError, UnknownNameError, unknown_name
from boltax.optim._settings import KEYS
from boltax.trainer import TrainerModule

NAMES = {
    "trainer": "the trainer's class: train.py:Classifier",
    "data": "a function that returns train_loader, val_loader[, test_loader]: "
    "train.py:make_loaders",
    "model_class": "the model's class: train.py:ResNet, or a name in the trainer's file",
}
"""Options that name something of the user's, with their help."""
FREE = {
    "optimizer_hparams": "optimizer, lr, schedule, warmup, gradient_clip, weight_decay, ..., and "
    "the optimizer's own arguments; see boltax.optim.build",
    "logger_params": "base_log_dir, logger_name, logger_type, project_name, or log_dir",
    "hparams": "hyperparameters of your own, which loss_function reads as model.hparams",
    "space": "of a study, for boltax tune: {optimizer_hparams.lr: {log: [1e-4, 1e-1]}}",
}
"""Options that are mappings with any names, with their help."""
_ELSEWHERE = {
    *("model_class", "model_hparams", "optimizer_hparams", "logger_params", "exmp_input"),
    *("loop", "checkpoint", "callbacks", "parallel"),
}
_OURS = {"parent", "name", "rngs", "key"}
"""Arguments of a model that boltax hands in."""


class Options:
    """The options of one run.

    Args:
        trainer_class: the trainer's class; None where nobody has named it yet.
        model_class: the model's.
        make_loaders: the function that makes the loaders.
    """

    def __init__(self, trainer_class: Any, model_class: Any, make_loaders: Any) -> None:
        package = import_optional("jsonargparse", extra="cli", purpose="a run from a file")
        self._parser = package.ArgumentParser(
            prog="boltax fit [CONFIG|RUN] [--resume]",
            usage="boltax fit [CONFIG.yaml|RUN] [--resume] [--OPTION VALUE ...]",
            description="Trains what a file, a run's folder, and options name.",
            exit_on_error=False,
            add_help=False,
        )
        add, parser = self._parser.add_argument, self._parser
        for name, text in NAMES.items():
            add(f"--{name}", type=str | None, default=None, help=text)
        skip = _ELSEWHERE & {*inspect.signature(TrainerModule).parameters}
        parser.add_class_arguments(TrainerModule, None, fail_untyped=False, skip=skip)
        self.own = _own_arguments(trainer_class)
        if self.own:
            known = {*inspect.signature(TrainerModule).parameters}
            parser.add_class_arguments(trainer_class, None, fail_untyped=False, skip=known)
        skip = {"train_loader", "val_loader", "test_loader", "resume"}
        parser.add_method_arguments(
            TrainerModule, "train_model", None, fail_untyped=False, skip=skip
        )
        for name, text in FREE.items():
            add(f"--{name}", type=dict[str, Any], default={}, help=text)
        add("--callbacks", type=list[Callback], default=[], help="class_path and init_args of each")
        parser.add_class_arguments(LoopOptions, "loop")
        parser.add_class_arguments(CheckpointOptions, "checkpoint")
        self._add_of(model_class, "model_hparams")
        self._add_of(make_loaders, "data_hparams")

    def _add_of(self, made_of: Any, group: str) -> None:
        parser = self._parser
        kind = "class" if isinstance(made_of, type) else "function"
        if made_of is None or not callable(made_of):
            parser.add_argument(f"--{group}", type=dict[str, Any], default={}, help="its arguments")
            return
        parameters = inspect.signature(made_of).parameters
        skip = _OURS & {*parameters}
        add = parser.add_class_arguments if kind == "class" else parser.add_function_arguments
        if {*parameters} - skip:
            add(made_of, group, fail_untyped=False, skip=skip)

    @property
    def help(self) -> str:
        """Every option with its type, default and docstring."""
        return self._parser.format_help()

    @property
    def names(self) -> list[str]:
        """The dotted names of all options."""
        return [*self._parser.get_defaults().keys()]

    def checked(self, mapping: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """All arguments, those that were not given with their defaults; and those that are objects.

        The objects are the callbacks, and what `train_model` is called with.

        Raises:
            ConfigurationError: for an unknown name, a value of another type, a missing one.
        """
        for name in _unknown(mapping, self.names):
            raise _unknown_option(name, self.names)
        try:
            found = self._parser.parse_object(dict(mapping))
            made = self._instantiated(found)
        except ConfigurationError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise ConfigurationError(
                f"Received a configuration that does not fit: {text[:600]}. Expected values of the "
                "types that boltax fit --trainer FILE.py:CLASS --help lists. Mend the file or the "
                "option."
            ) from error
        return found.as_dict(), {name: made[name] for name in ("callbacks", *training_names())}

    def _instantiated(self, found: Any) -> Any:
        return self._parser.instantiate(found, instantiate_groups=False)


def training_names() -> list[str]:
    """The arguments of `train_model` that a configuration may have."""
    parameters = inspect.signature(TrainerModule.train_model).parameters
    others = {"self", "train_loader", "val_loader", "test_loader", "resume"}
    return [name for name in parameters if name not in others]


def data_arguments(make_loaders: Any, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a configuration has for the function that makes loaders, checked."""
    given = {"data_hparams": mapping.get("data_hparams") or {}}
    found = Options(None, None, make_loaders).checked(given)[0].get("data_hparams") or {}
    return {name: value for name, value in found.items() if name in given["data_hparams"]}


def _own_arguments(trainer_class: Any) -> list[str]:
    """The arguments of a trainer's own constructor that `TrainerModule` does not have."""
    if trainer_class is None:
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = inspect.signature(TrainerModule).parameters
    own = inspect.signature(trainer_class.__init__).parameters
    return [n for n, p in own.items() if p.kind in kinds and n not in known and n != "self"]


def _unknown(mapping: Mapping[str, Any], names: list[str], prefix: str = "") -> Iterator[str]:
    for name, value in mapping.items():
        path = f"{prefix}{name}"
        if path in names:
            continue
        is_group = any(known.startswith(f"{path}.") for known in names)
        if is_group and isinstance(value, Mapping):
            yield from _unknown(value, names, f"{path}.")
        elif not (is_group and value is None):
            yield path


def _unknown_option(name: str, names: list[str]) -> ConfigurationError:
    """The error for an option that there is not, with one that was likely meant."""
    group, _, last = name.rpartition(".")
    of_others = [f"optimizer_hparams.{key}" for key in KEYS]
    same = [known for known in (*names, *of_others) if known.rpartition(".")[2] == last]
    if same:
        return UnknownNameError(
            f"Received option {name!r}; expected it where it belongs. Did you mean {same[0]!r}?"
        )
    inside = [known for known in names if group and known.startswith(f"{group}.")]
    near = difflib.get_close_matches(name, names, 5, 0.6)
    groups = list(dict.fromkeys(known.partition(".")[0] for known in names))
    return unknown_name("option", name, near or inside or groups)
