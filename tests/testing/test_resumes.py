import jax
import numpy as np
import pytest

from boltax.errors import ConfigurationError
from boltax.testing import assert_resumes_exactly
from dummies import Classifier, classifier, loader


def loaders():
    return loader(64, shuffle=True), loader(20)


def trainer_of(trainer_class=Classifier):
    def make(log_dir):
        return classifier(
            "unused",
            trainer_class,
            logger_params={"log_dir": log_dir, "logger_type": "none"},
        )

    return make


class Forgetful(Classifier):
    """Keeps something that changes the training, and does not save it."""

    epochs = 0

    def on_training_epoch_end(self, epoch_idx):
        self.epochs += 1
        scale = 1 + 0.1 * self.epochs
        self.state = self.state.replace(params=jax.tree.map(lambda p: p * scale, self.state.params))


class Faithful(Forgetful):
    """Saves it."""

    def on_save_checkpoint(self):
        return {"epochs": self.epochs}

    def on_load_checkpoint(self, saved):
        self.epochs = saved["epochs"]


def test_a_trainer_that_resumes_exactly_passes(tmp_path):
    assert_resumes_exactly(trainer_of(Faithful), loaders, num_epochs=3, interrupt_at=(2, 6, 9))
    assert list(tmp_path.iterdir()) == []


def test_a_trainer_that_forgets_something_fails_with_what_differs():
    with pytest.raises(AssertionError, match=r"after step 6 .* differs(.|\n)*state\['params'\]"):
        assert_resumes_exactly(trainer_of(Forgetful), loaders, num_epochs=3, interrupt_at=6)


def test_a_loader_with_another_order_each_time_is_found(tmp_path):
    rng = np.random.default_rng(0)

    def shuffled_by_chance():
        order = rng.permutation(64)
        x, y = loader(64).arrays
        return [[(x[i], y[i]) for i in np.split(order, 4)]]

    # its first batch is part of the fingerprint of a list
    with pytest.raises(Exception, match="first_batch was"):
        assert_resumes_exactly(trainer_of(), shuffled_by_chance, folder=tmp_path)


def test_an_interruption_that_never_comes_is_an_error():
    with pytest.raises(ConfigurationError, match=r"interrupt_at=\[99\] for a run of 8 steps"):
        assert_resumes_exactly(trainer_of(), loaders, interrupt_at=99)
