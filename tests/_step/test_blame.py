"""What goes wrong in a loss at construction is told with its line, and advice by its kind."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.errors import LossError, ModelError
from dummies import Plain, classes, classifier

INPUTS, LABELS = classes(8)


class Dropping(nn.Module):
    """Forgets to say when its layers train."""

    layer: str = "Dropout"

    @nn.compact
    def __call__(self, x):
        layer = nn.Dropout(0.1) if self.layer == "Dropout" else nn.BatchNorm()
        return layer(nn.Dense(3)(x))


class Told(nn.Module):
    """Has a name of its own for the mode."""

    @nn.compact
    def __call__(self, x, is_fitting):
        return nn.Dense(3)(x)


def crossentropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def as_a_float(model, batch, train):
    return float(crossentropy(model(batch[0]), batch[1])), {}


def as_an_item(model, batch, train):
    return crossentropy(model(batch[0]), batch[1]).item(), {}


def with_a_branch(model, batch, train):
    loss = crossentropy(model(batch[0]), batch[1])
    if loss > 1:
        loss = 2 * loss
    return loss, {}


def in_numpy(model, batch, train):
    return crossentropy(jnp.asarray(np.asarray(model(batch[0]))), batch[1]), {}


def by_index(model, batch, train):
    return [1.0, 2.0][model(batch[0]).argmax()], {}


def usual(model, batch, train):
    return crossentropy(model(batch[0]), batch[1]), {}


def unpacked(model, batch, train):
    inputs, labels = batch
    return crossentropy(model(inputs), labels), {}


def first_two(model, batch, train):
    return crossentropy(model(batch[0]), batch[1]), {}


def misshapen(model, batch, train):
    return jnp.concatenate([model(batch[0]), jnp.ones((3, 7))]).mean(), {}


ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
BATCH = {"x": INPUTS, "y": LABELS}
CASES = {
    "float": (as_a_float, {}, LossError, r"in as_a_float: `return float\(.*Leave out float\(\)"),
    "item": (as_an_item, {}, LossError, r"in as_an_item: .*Leave out float\(\), int\(\) or .item"),
    "if": (with_a_branch, {}, LossError, r"with_a_branch: `if loss > 1:`.*Write|write jnp.where"),
    "numpy": (in_numpy, {}, LossError, "in in_numpy: .*Write jnp in place of np"),
    "index": (by_index, {}, LossError, r"in by_index: .*Write jnp.take"),
    "one-hot": (usual, {"exmp_input": (INPUTS, ONE_HOT)}, LossError, "softmax_cross_entropy\\(log"),
    "one-hot integers": (
        usual,
        {"exmp_input": (INPUTS, ONE_HOT.astype(np.int32))},
        LossError,
        r"For one-hot labels write optax.softmax_cross_entropy\(",
    ),
    "float labels": (
        usual,
        {"exmp_input": (INPUTS, LABELS.astype(np.float32))},
        LossError,
        r"for floats labels.astype\(jnp.int32\)",
    ),
    "dict of two": (unpacked, {"exmp_input": BATCH}, ModelError, r"Write batch\['x'\]"),
    "dict of three": (
        unpacked,
        {"exmp_input": {**BATCH, "z": LABELS}},
        LossError,
        r"in unpacked: `inputs, labels = batch`.*keys \['x', 'y', 'z'\].*Write batch\['x'\]",
    ),
    "dict by number": (first_two, {"exmp_input": BATCH}, LossError, r"KeyError: 0 .*batch\['x'\]"),
    "array": (unpacked, {"exmp_input": INPUTS}, LossError, r"write exmp_input=\(inputs, labels\)"),
    "shapes": (misshapen, {}, LossError, "in misshapen: .*Look at that line"),
    "dropout": (
        usual,
        {"model_class": Dropping},
        ModelError,
        r"in __call__: .*nn.Dropout\(0.1, deterministic=not train\)",
    ),
    "statistics": (
        usual,
        {"model_class": Dropping, "model_hparams": {"layer": "BatchNorm"}},
        ModelError,
        r"nn.BatchNorm\(use_running_average=not train\)",
    ),
    "mode": (usual, {"model_class": Told}, ModelError, r"model\(x, is_fitting=train\)"),
    "inputs": (
        lambda model, batch, train: (model(batch[0]["a"], batch[1]).mean(), {}),
        {"exmp_input": ({"a": INPUTS}, LABELS)},
        ModelError,
        r"Received exmp_input with .*expected an example that Plain accepts",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_that_fails_says_at_which_line_and_what_to_write(tmp_path, name):
    function, options, error, message = CASES[name]

    class Failing(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            return function(model, batch, train)

    settings = {"model_class": Plain, "exmp_input": (INPUTS, LABELS), **options}
    with pytest.raises(error, match=message) as caught:
        classifier(tmp_path, Failing, **settings)
    assert "test_blame.py, line" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_loss_of_two_arguments_says_what_to_write(tmp_path):
    class Short(bx.TrainerModule):
        def loss_function(self, model, batch):
            return crossentropy(model(batch[0]), batch[1]), {}

    with pytest.raises(LossError, match=r"Write def loss_function\(self, model, batch, train\)"):
        classifier(tmp_path, Short, Plain)


@pytest.mark.parametrize("error", [KeyError("missing"), IndexError("of a list"), OSError("disk")])
def test_what_speaks_for_itself_keeps_its_type(tmp_path, error):
    class Failing(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            raise error

    with pytest.raises(type(error)) as caught:
        classifier(tmp_path, Failing, Plain)
    assert caught.value is error
