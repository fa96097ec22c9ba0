"""Searches the hyperparameters of a classifier with Optuna, which prunes what does not look good.

    python examples/mlp_optuna.py

An MLP with dropout and BatchNorm learns to read handwritten digits. A hook reports each validation
to the trial; raising `TrialPruned` there ends that run cleanly. Writes study.png beside the runs.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import numpy as np
import optax
import optuna
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import boltax as bx
from boltax.data import ArrayLoader


# Data: 1,797 images of 8x8 pixels that come with scikit-learn.
def make_loaders(batch_size):
    pixels, labels = load_digits(return_X_y=True)
    data = (pixels / 16.0).astype(np.float32), labels.astype(np.int32)
    x_train, x_rest, y_train, y_rest = train_test_split(*data, test_size=600, random_state=0)
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, test_size=300, random_state=0)
    return (
        ArrayLoader((x_train, y_train), batch_size, shuffle=True, drop_last=True),
        ArrayLoader((x_val, y_val), 300),
        ArrayLoader((x_test, y_test), 300),
    )


class MLP(nn.Module):
    hidden_dims: tuple[int, ...]
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        for width in self.hidden_dims:
            x = nn.Dense(width)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(x))
        return nn.Dense(self.num_classes)(x)


# Trainer: a loss. `model` brings its parameters, BatchNorm statistics, dropout keys, and `train`.
class Classifier(bx.TrainerModule):
    def __init__(self, hidden_dims, dropout, trial=None, **kwargs):
        hparams = {"hidden_dims": hidden_dims, "num_classes": 10, "dropout": dropout}
        super().__init__(model_class=MLP, model_hparams=hparams, **kwargs)
        self.trial = trial  # an object for this run only: it is not stored

    def loss_function(self, model, batch, train):
        pixels, labels = batch
        logits = model(pixels)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        if self.trial is not None:
            self.trial.report(eval_metrics["val/acc"], step=epoch_idx)
            if self.trial.should_prune():
                raise optuna.TrialPruned(f"epoch {epoch_idx}: {eval_metrics['val/acc']:.3f}")


def run_trial(trial, epochs, log_dir):
    train_loader, val_loader, _ = make_loaders(trial.suggest_categorical("batch_size", [32, 128]))
    width = trial.suggest_categorical("width", [16, 64, 128])
    trainer = Classifier(
        hidden_dims=(width,) * trial.suggest_int("layers", 1, 3),
        dropout=trial.suggest_float("dropout", 0.0, 0.6),
        trial=trial,
        optimizer_hparams={
            "optimizer": "adamw",
            "lr": trial.suggest_float("lr", 1e-4, 3e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        },
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_name": "optuna"},
        monitor=("val/acc", "max"),
        enable_progress_bar=False,
    )
    trial.set_user_attr("log_dir", trainer.log_dir)
    return trainer.train_model(train_loader, val_loader, num_epochs=epochs)["val/acc"]


def plot_study(study, path):
    figure = Figure(figsize=(7, 3.8), layout="constrained")  # no pyplot: no display is needed
    axes = figure.subplots()
    for trial in study.trials:
        kind = "best" if trial == study.best_trial else trial.state.name.lower()
        color = {"best": "#e07b28", "complete": "#2f6db3", "pruned": "#9ca3af"}[kind]
        epochs, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        axes.plot(epochs, values, color=color, linewidth=3 if kind == "best" else 1.5, label=kind)
        axes.plot(epochs[-1], values[-1], "X" if kind == "pruned" else "o", color=color)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    lines, kinds = axes.get_legend_handles_labels()
    by_kind = dict(zip(kinds, lines, strict=True))
    axes.legend(by_kind.values(), by_kind.keys(), title="trial", loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(epochs, trials, log_dir):
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3),
    )
    study.optimize(lambda trial: run_trial(trial, epochs, log_dir), n_trials=trials)

    # The model of the best trial, from its folder; the test set is looked at only now.
    best = study.best_trial
    trainer = Classifier.load_from_checkpoint(best.user_attrs["log_dir"], enable_progress_bar=False)
    metrics = trainer.eval_model(make_loaders(batch_size=32)[2])
    plot_study(study, Path(log_dir, "study.png"))
    pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    print(f"{trials} trials, {pruned} pruned. Best: {best.params} in {trainer.log_dir}")
    print(f"Accuracy {best.value:.3f} on validation, {metrics['acc']:.3f} on test.")
    print(f"Wrote {log_dir}/study.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15, help="of each trial, at most")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.trials, arguments.log_dir)
