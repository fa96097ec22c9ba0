"""A trainer comes from its run by its own way, where the subclass has one."""

import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from boltax.errors import CheckpointError, ModelError
from dummies import Classifier, Mlp, classifier, loader


class OwnFiles(Classifier):
    """Saves and loads its model in a file of its own."""

    def save_model(self, step=0):
        leaves = jax.tree.leaves((self.state.params, self.state.batch_stats))
        np.savez(Path(self.log_dir) / "own.npz", *jax.device_get(leaves))

    def load_model(self):
        with np.load(Path(self.log_dir) / "own.npz") as file:
            leaves = [file[f"arr_{i}"] for i in range(len(file.files))]
        like = (self.state.params, self.state.batch_stats)
        # It may compute with the values that it replaces.
        pairs = zip(leaves, jax.tree.leaves(like), strict=True)
        leaves = [new + 0 * np.asarray(old) for new, old in pairs]
        params, batch_stats = jax.tree.unflatten(jax.tree.structure(like), leaves)
        self.state = self.state.replace(params=params, batch_stats=batch_stats)


def test_a_subclass_that_saves_its_own_way_is_loaded_by_its_own_load_model(tmp_path):
    trainer = classifier(tmp_path, OwnFiles)
    trainer.train_model(loader(), loader(), num_epochs=2)
    assert not list(Path(trainer.log_dir).glob("checkpoints/best/*"))
    loaded = OwnFiles.load_from_checkpoint(trainer.log_dir)
    assert loaded.log_dir == trainer.log_dir
    jax.tree.map(np.testing.assert_array_equal, loaded.state.params, trainer.state.params)
    assert loaded.eval_model(loader()) == pytest.approx(trainer.eval_model(loader()), rel=1e-6)


def test_its_own_load_model_reads_the_old_folder_when_the_run_goes_on_in_a_new_one(tmp_path):
    trainer = classifier(tmp_path, OwnFiles)
    trainer.train_model(loader(), loader(), num_epochs=1)
    params = {"base_log_dir": str(tmp_path / "new"), "logger_type": "none"}
    loaded = OwnFiles.load_from_checkpoint(trainer.log_dir, logger_params=params)
    assert Path(loaded.log_dir).is_relative_to(tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, loaded.state.params, trainer.state.params)


def test_one_checkpoint_of_a_run_is_loaded_as_it_is(tmp_path):
    class Counting(Classifier):
        loads = 0

        def load_model(self):
            type(self).loads += 1
            super().load_model()

    trainer = classifier(tmp_path, Counting)
    trainer.train_model(loader(), loader(), num_epochs=1)
    trainer.save_snapshot()
    Counting.loads = 0
    (snapshot,) = Path(trainer.log_dir).glob("checkpoints/saved/*")
    Counting.load_from_checkpoint(snapshot)
    assert Counting.loads == 0
    Counting.load_from_checkpoint(trainer.log_dir)
    assert Counting.loads == 1


def test_a_partial_of_a_model_is_stored_as_its_class_and_its_arguments(tmp_path):
    trainer = classifier(
        tmp_path,
        model_class=functools.partial(Mlp, features=4, dropout=0.0),
        model_hparams={"dropout": 0.5},
    )
    trainer.train_model(loader(), num_epochs=1)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert (again.model.features, again.model.dropout) == (4, 0.5)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, trainer.state.params)


def make_model():
    return Mlp()


def test_a_function_is_no_model_of_flax(tmp_path):
    with pytest.raises(ModelError, match=r"a function; expected a class of Flax"):
        classifier(tmp_path, model_class=make_model)


class Stack(nn.Module):
    """Submodules, and a factory, as hyperparameters."""

    layers: tuple[nn.Module, ...] = ()
    make: Any = None

    @nn.compact
    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.make()(x)


def three():
    return nn.Dense(3)


class Stacked(Classifier):
    """In this module, whose names a run may look up."""


def test_modules_and_factories_with_a_name_come_back(tmp_path):
    hparams = {"layers": (nn.Dense(5, use_bias=False), nn.LayerNorm()), "make": three}
    trainer = classifier(tmp_path, Stacked, Stack, model_hparams=hparams)
    trainer.save_model(0)
    again = Stacked.load_from_checkpoint(trainer.log_dir)
    assert again.model_hparams == hparams
    jax.tree.map(np.testing.assert_array_equal, again.state.params, trainer.state.params)


def test_a_hyperparameter_without_a_name_is_told_and_asked_for(tmp_path, capsys):
    hparams = {"make": lambda: nn.Dense(3)}
    trainer = classifier(tmp_path, Stacked, Stack, model_hparams=hparams, enable_progress_bar=True)
    assert "Received model_hparams['make'] = <function" in capsys.readouterr().out
    trainer.save_model(0)
    with pytest.raises(CheckpointError, match=r"does not hold model_hparams.*model_hparams=\.\.\."):
        Stacked.load_from_checkpoint(trainer.log_dir)
    again = Stacked.load_from_checkpoint(trainer.log_dir, model_hparams=hparams)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, trainer.state.params)
