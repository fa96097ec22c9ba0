"""A subclass written for the UvA guide "Research Projects with JAX" runs unchanged.

The trainers below use that API in the way its users do: their own losses and steps, random streams
split by hand, Optuna pruning from a hook, loading by folder and example input.
"""

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax import TrainerModule
from boltax.data import ArrayLoader
from dummies import classes, line


class Classifier(nn.Module):
    hidden_dims: Any
    num_classes: int
    dropout_prob: float = 0.0

    @nn.compact
    def __call__(self, x, train=True):
        for width in self.hidden_dims:
            x = nn.Dropout(self.dropout_prob)(x, deterministic=not train)
            x = nn.BatchNorm()(nn.Dense(width)(x), use_running_average=not train)
            x = nn.swish(x)
        return nn.Dense(self.num_classes)(x)


class ClassifierTrainer(TrainerModule):
    def __init__(self, hidden_dims, num_classes, dropout_prob, trial=None, **kwargs):
        hparams = {
            "hidden_dims": hidden_dims,
            "num_classes": num_classes,
            "dropout_prob": dropout_prob,
        }
        super().__init__(model_class=Classifier, model_hparams=hparams, **kwargs)
        self.trial = trial

    def create_functions(self):
        def loss_function(params, batch_stats, rng, batch, train):
            inputs, labels = batch
            rng, dropout_rng = jax.random.split(rng)
            output = self.model.apply(
                {"params": params, "batch_stats": batch_stats},
                inputs,
                train=train,
                rngs={"dropout": dropout_rng},
                mutable=["batch_stats"] if train else False,
            )
            logits, changed = output if train else (output, None)
            one_hot = jax.nn.one_hot(labels, num_classes=self.model.num_classes)
            loss = optax.softmax_cross_entropy(logits, one_hot).mean()
            acc = (logits.argmax(axis=-1) == labels).mean()
            return loss, (rng, changed, acc)

        def train_step(state, batch):
            def of_params(params):
                return loss_function(params, state.batch_stats, state.rng, batch, train=True)

            (loss, (rng, changed, acc)), grads = jax.value_and_grad(of_params, has_aux=True)(
                state.params
            )
            state = state.apply_gradients(grads=grads, batch_stats=changed["batch_stats"], rng=rng)
            return state, {"loss": loss, "acc": acc}

        def eval_step(state, batch):
            _, (_, _, acc) = loss_function(
                state.params, state.batch_stats, state.rng, batch, train=False
            )
            return {"acc": acc}

        return train_step, eval_step

    def run_model_init(self, exmp_input, init_rng):
        inputs, _ = exmp_input
        init_rng, dropout_rng = jax.random.split(init_rng)
        return self.model.init({"params": init_rng, "dropout": dropout_rng}, x=inputs, train=True)

    def print_tabulate(self, exmp_input):
        inputs, _ = exmp_input
        key = jax.random.key(0)
        print(self.model.tabulate(rngs={"params": key, "dropout": key}, x=inputs, train=True))

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        if self.trial:
            self.trial.report(eval_metrics["val/acc"], step=epoch_idx)
            if self.trial.should_prune():
                raise pytest.importorskip("optuna").exceptions.TrialPruned


def settings(folder, **options):
    return {
        "hidden_dims": [16],
        "num_classes": 3,
        "dropout_prob": 0.1,
        "optimizer_hparams": {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 1e-4, "warmup": 2},
        "logger_params": {"base_log_dir": str(folder)},
        "exmp_input": classes(8),
        "cluster": True,
        **options,
    }


def loaders():
    return ArrayLoader(classes(100), 16, shuffle=True, drop_last=True), ArrayLoader(
        classes(50, seed=1), 16
    )


def test_the_classifier_trains_and_comes_back_by_folder_and_example(tmp_path, capsys):
    trainer = ClassifierTrainer(**settings(tmp_path))
    assert "Classifier Summary" in capsys.readouterr().out
    train_loader, val_loader = loaders()
    metrics = trainer.train_model(train_loader, val_loader, test_loader=val_loader, num_epochs=6)
    assert metrics["test/acc"] > 0.8
    again = ClassifierTrainer.load_from_checkpoint(trainer.log_dir, exmp_input=classes(8))
    assert again.eval_model(val_loader)["acc"] == metrics["test/acc"]
    assert again.model.hidden_dims == trainer.model.hidden_dims
    stored = json.loads(Path(trainer.log_dir, "hparams.json").read_text())
    assert stored["model_hparams"] == {"hidden_dims": [16], "num_classes": 3, "dropout_prob": 0.1}


def test_the_random_state_is_the_users_to_split(tmp_path):
    trainer = ClassifierTrainer(**settings(tmp_path))
    before = jax.random.key_data(trainer.state.rng)
    trainer.train_model(*loaders(), num_epochs=1)
    assert not np.array_equal(before, jax.random.key_data(trainer.state.rng))


def test_optuna_prunes_from_the_hook(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        dropout = trial.suggest_float("dropout_prob", 0.0, 0.5)
        trainer = ClassifierTrainer(**settings(tmp_path, dropout_prob=dropout, trial=trial))
        return trainer.train_model(*loaders(), num_epochs=2)["val/acc"]

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.ThresholdPruner(lower=1.1),  # no accuracy reaches it
    )
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED"]


class Regressor(nn.Module):
    hidden_dims: Any
    output_dim: int

    @nn.compact
    def __call__(self, x, **kwargs):
        for width in self.hidden_dims:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(self.output_dim)(x)


class RegressorTrainer(TrainerModule):
    def __init__(self, hidden_dims, output_dim, **kwargs):
        hparams = {"hidden_dims": hidden_dims, "output_dim": output_dim}
        super().__init__(model_class=Regressor, model_hparams=hparams, **kwargs)

    def create_functions(self):
        def mse_loss(params, apply_fn, batch):
            inputs, targets = batch
            return ((apply_fn({"params": params}, inputs) - targets) ** 2).mean()

        def train_step(state, batch):
            loss, grads = jax.value_and_grad(mse_loss)(state.params, state.apply_fn, batch)
            return state.apply_gradients(grads=grads), {"loss": loss}

        def eval_step(state, batch):
            return {"loss": mse_loss(state.params, state.apply_fn, batch)}

        return train_step, eval_step


def test_the_regression_of_the_guide_with_default_initialisation(tmp_path):
    data = ArrayLoader(line(64), 16, shuffle=True)
    trainer = RegressorTrainer(
        hidden_dims=[32],
        output_dim=1,
        optimizer_hparams={"lr": 4e-3},
        logger_params={"base_log_dir": str(tmp_path)},
        exmp_input=next(iter(data))[0:1],
        check_val_every_n_epoch=5,
        enable_progress_bar=False,
    )
    metrics = trainer.train_model(data, data, test_loader=data, num_epochs=60)
    assert metrics["test/loss"] < 0.05
    model = RegressorTrainer.load_from_checkpoint(
        trainer.log_dir, exmp_input=next(iter(data))[0:1]
    ).bind_model()
    inputs, targets = line(64)
    assert float(jnp.mean((model(inputs) - targets) ** 2)) == pytest.approx(
        metrics["test/loss"], rel=1e-4
    )
