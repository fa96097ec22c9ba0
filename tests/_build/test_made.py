"""Names of a subclass are its own: what boltax has made of a trainer lies behind one name."""

from contextlib import suppress

import jax
import numpy as np
import pytest

import boltax as bx
from boltax._build._constructed import Constructed
from dummies import Classifier, classifier, loader

NAMES = (
    "names", "call", "copies", "adapter", "saver", "loss_steps", "is_loaded", "uses_loss_steps",
    "steps", "summary", "progress", "name", "construction", "calls", "made",
)  # fmt: skip


class Before(Classifier):
    """Sets attributes of these names before the constructor runs."""

    def __init__(self, *args, **kwargs):
        for name in NAMES:
            setattr(self, name, [name])
        super().__init__(*args, **kwargs)


class After(Classifier):
    """Sets them behind it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in NAMES:
            setattr(self, name, [name])


class Interrupted(Exception):
    """Ends a run from a hook."""


@pytest.mark.parametrize("kind", [Before, After])
def test_a_subclass_with_attributes_of_any_name_trains_resumes_and_loads(tmp_path, kind):
    class Stopping(kind):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            if epoch_idx == 1:
                raise Interrupted

    options = {"checkpoint": bx.CheckpointOptions(every_epochs=1)}
    plain = classifier(tmp_path / "plain", **options)
    plain.train_model(loader(), loader(), num_epochs=2)

    first = classifier(tmp_path / "own", Stopping, **options)
    with suppress(Interrupted):
        first.train_model(loader(), loader(), num_epochs=2)
    params = {"log_dir": first.log_dir, "logger_type": "csv"}
    again = classifier(tmp_path / "own", kind, logger_params=params, **options)
    again.train_model(loader(), loader(), num_epochs=2, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, plain.state.params)
    assert all(getattr(again, name) == [name] for name in NAMES)
    loaded = kind.load_from_checkpoint(again.log_dir)
    assert all(getattr(loaded, name) == [name] for name in NAMES)
    assert loaded.eval_model(loader()) == pytest.approx(again.eval_model(loader()), rel=1e-6)


def test_the_attributes_of_a_trainer_are_those_that_are_documented(tmp_path):
    trainer = classifier(tmp_path)
    own = set(vars(trainer)) - {"_made"}
    free = {"_made", "loss_function", "predict_function", "batch_size_of", "on_gradients"}
    free |= {"rng_streams"}
    assert own == set(Constructed.__annotations__) - free
    own |= {"state"}
    text = bx.TrainerModule.__doc__.partition("Attributes:")[2]
    assert not [name for name in own if f"{name}:" not in text and f"`{name}`" not in text]
