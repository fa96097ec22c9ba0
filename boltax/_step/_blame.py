"""Says what went wrong when the loss was run once on the example: whose line, and what to write."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

from boltax._base._trees import describe
from boltax.errors import BoltaxError, LossError, ModelError
from boltax.models import _view

_LIBRARIES = (
    str(Path(__file__).parents[1]),
    *(str(Path(str(module.__file__)).parent) for module in (flax, jax, np, optax)),
)
_INTEGER_LABELS = "softmax_cross_entropy_with_integer_labels"
_TRACED = "Nothing has a value yet while the loss is traced. "
_MODES = {
    "deterministic": "nn.Dropout(0.1, deterministic=not train)(x)",
    "use_running_average": "nn.BatchNorm(use_running_average=not train)(x)",
}


def explained(error: Exception, example: Any, *, model: str, owner: str) -> BoltaxError | None:
    """An exception that came out of a loss or a model, as one that says where and what to do.

    Args:
        error: what was raised, with its traceback.
        example: the example input.
        model: the name of the model.
        owner: the name of the trainer's class.

    Returns:
        The error to raise in its place; None for one that speaks for itself.
    """
    in_model = any(note.startswith("raised in a call of") for note in _notes(error))
    advice = _advice(error, example, in_model=in_model)
    if advice is None and isinstance(error, LookupError):
        return None
    found, given = _shown(error), describe(example, "exmp_input")
    where = _where(error, outside=_is_text(error))
    if in_model:
        advice = advice or (
            "Hand in one batch of the loader, e.g. exmp_input=next(iter(train_loader)), and "
            "compare its shapes with what the model takes."
        )
        return ModelError(
            f"Received exmp_input with {given}; expected an example that {model} accepts, but "
            f"running it once raised {found}{where}. {advice}"
        )
    advice = advice or (
        "Look at that line, and at whether exmp_input is a batch as the loader gives it."
    )
    return LossError(
        f"Received {found} from loss_function of {owner}{where}, when it was run once on "
        f"exmp_input with {given}; expected a loss of it. {advice}"
    )


def _advice(error: Exception, example: Any, *, in_model: bool) -> str | None:
    """What to write, by the kind of mistake; None where it is not known."""
    text, functions = str(error), [f.name for f in traceback.extract_tb(error.__traceback__)]
    is_unpacking = "values to unpack" in text or isinstance(error, KeyError)
    if isinstance(example, Mapping) and (is_unpacking or _is_text(error)):
        keys = list(example)
        return (
            f"The batch is a dict with the keys {keys}, and unpacking a dict gives its keys. Write "
            f"batch[{keys[0]!r}]."
        )
    if isinstance(error, OverflowError):
        return "That integer fits into no dtype of JAX. Write it as a float."
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return f"{_TRACED}In place of `if` write jnp.where(condition, a, b) or jax.lax.cond."
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return f"{_TRACED}Write jnp in place of np there: NumPy needs values."
    if isinstance(error, jax.errors.TracerIntegerConversionError):
        return f"{_TRACED}Write jnp.take(values, index) to choose by a traced index."
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return f"{_TRACED}Leave out float(), int() or .item(), and return the array itself."
    if "values to unpack" in text and not in_model and hasattr(example, "shape"):
        return "A batch of one array has nothing to unpack: write exmp_input=(inputs, labels)."
    is_of_labels = "subdtype" in text or "same number of dimensions" in text
    if _INTEGER_LABELS in functions and is_of_labels:
        return (
            f"{_INTEGER_LABELS} takes labels as integers, [batch]. For one-hot labels write "
            "optax.softmax_cross_entropy(logits, labels), for floats labels.astype(jnp.int32)."
        )
    if "loss_function() takes" in text or "loss_function() missing" in text:
        return "Write def loss_function(self, model, batch, train): ..."
    for name, line in _MODES.items():
        if f'"{name}"' in text:
            return (
                f"Give the model's __call__ an argument train, and write {line} there: boltax "
                "hands in the mode."
            )
    if in_model and "missing" in text and "argument" in text:
        name = text.rpartition("'")[0].rpartition("'")[2]
        return (
            f"Hand it over in loss_function: model(x, {name}=train), or whatever belongs there. "
            "Of itself boltax hands in the mode, to an argument named train, training, "
            "is_training, deterministic or use_running_average."
        )
    return None


def _is_text(error: Exception) -> bool:
    """Whether the model was called with a string, such as a key of a dict."""
    return any(": str" in note for note in _notes(error))


def _where(error: Exception, *, outside: bool) -> str:
    """The last line of the user's on the way to an error.

    Args:
        error: what was raised.
        outside: whether to look for it outside of the model.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    calls = [i for i, frame in enumerate(frames) if frame.filename == _view.__file__]
    if outside and calls:
        frames = frames[: calls[0]]
    own = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))]
    if not own:
        return ""
    last = own[-1]
    return f" at {last.filename}, line {last.lineno}, in {last.name}: `{last.line}`"


def _shown(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__


def _notes(error: Exception) -> list[str]:
    return list(getattr(error, "__notes__", ()))
