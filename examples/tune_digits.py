"""Searches hyperparameters twice: all trials in one program, and by Optuna in the usual way.

    python examples/tune_digits.py

An MLP with dropout learns to read digits, in 64 trials of learning rate, weight decay, dropout and
width. `boltax.tune.optimize` trains up to 16 at a time, as members of populations, and compiles
once for each width. Beside it the same study, one trial after the other. Writes tune.png.
"""

import argparse
import time
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
from boltax.models import dropout
from boltax.tune import optimize

SPACE = {
    "lr": ("log", 3e-4, 3e-2),
    "weight_decay": ("log", 1e-5, 1e-1),
    "rate": (0.0, 0.6),
    "width": [32, 64, 128],
}


# Data: 1,797 images of 8x8 pixels that come with scikit-learn.
def make_loaders():
    pixels, labels = load_digits(return_X_y=True)
    data = (pixels / 16.0).astype(np.float32), labels.astype(np.int32)
    x_train, x_rest, y_train, y_rest = train_test_split(*data, test_size=600, random_state=0)
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, test_size=300, random_state=0)
    return (
        ArrayLoader((x_train, y_train), 32, shuffle=True, drop_last=True),
        ArrayLoader((x_val, y_val), 300),
        ArrayLoader((x_test, y_test), 300),
    )


class MLP(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train, rate=0.0):
        x = nn.silu(nn.Dense(self.width)(x))
        if train:
            x = dropout(x, rate, self.make_rng("dropout"))
        return nn.Dense(10)(x)


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        pixels, labels = batch
        logits = model(pixels, rate=model.hparams["rate"])  # a value in the compiled program
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


def trainer_maker(example, log_dir, name):
    """The function from hyperparameters to a trainer, which both studies use."""

    def make_trainer(lr, weight_decay, rate, width):
        return Classifier(
            model_class=MLP,
            model_hparams={"width": width},
            optimizer_hparams={"optimizer": "adamw", "lr": lr, "weight_decay": weight_decay},
            rate=rate,
            exmp_input=example,
            logger_params={"base_log_dir": log_dir, "logger_name": name, "logger_type": "csv"},
            monitor=("val/acc", "max"),
            enable_progress_bar=False,
        )

    return make_trainer


def in_one_program(make_trainer, train_loader, val_loader, num_epochs, n_trials):
    sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner()
    options = {"num_epochs": num_epochs, "n_trials": n_trials, "sampler": sampler}
    return optimize(make_trainer, SPACE, train_loader, val_loader, pruner=pruner, **options)


def one_by_one(make_trainer, train_loader, val_loader, num_epochs, n_trials):
    def objective(trial):
        trainer = make_trainer(
            lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
            rate=trial.suggest_float("rate", 0.0, 0.6),
            width=trial.suggest_categorical("width", [32, 64, 128]),
        )
        return trainer.train_model(train_loader, val_loader, num_epochs=num_epochs)["val/acc"]

    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study


def plot(studies, path):
    """How many trials have ended, over seconds; and what the first study found."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")  # no pyplot: no display is needed
    left, right = figure.subplots(1, 2)
    for name, (study, began, seconds) in studies.items():
        label = f"{name}: {seconds:.0f} s"
        times = sorted(trial.datetime_complete.timestamp() - began for trial in study.trials)
        left.step([0, *times], range(len(times) + 1), where="post", label=label)
    for width in SPACE["width"]:
        trials = [t for t in studies["in one program"][0].trials if t.params["width"] == width]
        rates, values = [t.params["lr"] for t in trials], [t.value for t in trials]
        right.plot(rates, values, "o", alpha=0.7, label=f"width {width}")
    left.set(xlabel="seconds", ylabel="trials that have ended")
    right.set(xlabel="learning rate", ylabel="validation accuracy", xscale="log")
    left.legend(loc="lower right"), right.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main(epochs, trials, log_dir):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train_loader, val_loader, test_loader = make_loaders()
    example, studies = next(iter(train_loader)), {}
    for name, search in (("in one program", in_one_program), ("one by one", one_by_one)):
        make_trainer, began = trainer_maker(example, log_dir, name.replace(" ", "_")), time.time()
        study = search(make_trainer, train_loader, val_loader, epochs, trials)
        studies[name] = study, began, time.time() - began
        print(f"{trials} trials {name}: {studies[name][2]:.1f} s, best {study.best_value:.3f}")

    # The best model, from the folder of its trial; the test set is looked at only now.
    best = studies["in one program"][0].best_trial
    trainer = Classifier.load_from_checkpoint(best.user_attrs["boltax:log_dir"])
    print(f"Best: {best.params}; {trainer.eval_model(test_loader)['acc']:.3f} on the test set.")
    plot(studies, Path(log_dir, "tune.png"))
    print(f"Wrote {log_dir}/tune.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15, help="of each trial")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.trials, arguments.log_dir)
