"""Every exception that boltax raises on purpose, and the note it adds to those of the user.

    BoltaxError
    ├── ConfigurationError (ValueError)     an argument or option that cannot work
    │   ├── UnknownNameError                a misspelt optimizer, logger, option ... (did you mean)
    │   ├── HyperparameterError             a hyperparameter that cannot be stored or given back
    │   └── OptimizerError                  optimizer settings that contradict each other
    ├── ModelError (TypeError)              the model and the example input do not fit
    ├── LossError (ValueError)              loss_function failed, or returned what is not a loss
    ├── MetricsError (ValueError)           a metric that cannot be accumulated, or is missing
    ├── DataError (ValueError)              a loader or a batch that cannot be used
    ├── CheckpointError (ValueError)        a checkpoint that cannot be read or does not fit
    ├── RunDirectoryError (OSError)         the run's folder cannot be made, written or read
    │   └── NotSavedError                   a run that has ended, and is not on the disk
    ├── TrainingError (RuntimeError)        a method called at a time at which it cannot work
    │   ├── NonFiniteError (FloatingPointError)   a loss, gradient or variable that is not finite
    │   └── RecompilationError          a step compiled again, more often than allowed
    ├── ProcessError (RuntimeError)         another process of the job failed, differs, or is silent
    └── MissingExtraError (ImportError)     an optional package is not installed

Each derives from `BoltaxError` and from the matching builtin, so both `except` clauses work.
Messages have three parts: what was received, what was expected, what to write.

    >>> from boltax.errors import unknown_name
    >>> print(unknown_name("optimizer", "adamm", ["adam", "sgd"]))
    Received optimizer 'adamm'; expected one of: adam, sgd. Did you mean 'adam'?
"""

import difflib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any


class BoltaxError(Exception):
    """Base of every exception that boltax raises on purpose."""


class ConfigurationError(BoltaxError, ValueError):
    """An argument or a combination of arguments that cannot work."""


class UnknownNameError(ConfigurationError):
    """A name (optimizer, schedule, logger, option, metric ...) that does not exist."""


class HyperparameterError(ConfigurationError):
    """A hyperparameter that cannot be stored in ``hparams.json``, or given back from it."""


class OptimizerError(ConfigurationError):
    """Optimizer settings that contradict each other or lack something."""


class ModelError(BoltaxError, TypeError):
    """The model cannot be built, or its input does not fit it."""


class LossError(BoltaxError, ValueError):
    """`loss_function` failed at construction, or returned something that is not a loss."""


class MetricsError(BoltaxError, ValueError):
    """A metric that cannot be accumulated, has a reserved name, or does not exist."""


class DataError(BoltaxError, ValueError):
    """A loader or a batch that cannot be used."""


class CheckpointError(BoltaxError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model."""


class RunDirectoryError(BoltaxError, OSError):
    """The folder of a run cannot be created, written or read."""


class NotSavedError(RunDirectoryError):
    """A run has ended, and what it was to leave on the disk could not be written.

    Attributes:
        metrics: what `train_model` would have returned.
    """

    def __init__(self, message: str, metrics: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.metrics = dict(metrics)


class TrainingError(BoltaxError, RuntimeError):
    """A method was called at a time at which it cannot work."""


class NonFiniteError(TrainingError, FloatingPointError):
    """The loss, a gradient or a variable is not finite; see `LoopOptions(on_nonfinite=...)`."""


class RecompilationError(TrainingError):
    """A step was compiled again, more often than ``LoopOptions(max_recompiles=...)`` allows."""


class ProcessError(BoltaxError, RuntimeError):
    """Another process of the job has failed, is not like this one, or does not answer."""


class MissingExtraError(BoltaxError, ImportError):
    """An optional package is not installed; the message holds the pip command."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not one of `known`, with the nearest of them as a suggestion.

    Args:
        what: the kind of thing that is named, e.g. ``"optimizer"``.
        name: what was received.
        known: every name that would have worked.

    Returns:
        The exception, for the caller to raise.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    original = {n.lower(): n for n in names}
    close = [original[n] for n in near]
    close += [n for n in names if n.endswith(f".{name}")]  # "lr", where "critic.lr" is meant
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UnknownNameError(f"Received {what} {name!r}; expected one of: {', '.join(names)}.{hint}")


@contextmanager
def noting(part: str, where: str = "") -> Generator[None]:
    """Adds a note naming the user's `part` to any exception that passes; its type is kept.

    Args:
        part: whose code ran, e.g. ``"loss_function of ResNetTrainer"``.
        where: when, e.g. ``"train, epoch 3, step 120"``.
    """
    try:
        yield
    except Exception as error:
        note = f"raised in {part}" + (f" ({where})" if where else "")
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise
