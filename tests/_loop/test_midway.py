"""Validations that fall within an epoch: by steps, by time, and before the first step."""

import json

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping, Stop
from boltax.errors import ConfigurationError
from boltax.optim import learning_rate
from boltax.testing import assert_resumes_exactly
from dummies import Classifier, Plain, classes, classifier, loader

EPOCH, EVERY = 5, 3
"""Steps of an epoch of 70 examples, of which the last batch is ragged; and of a validation."""

PLATEAU = {"name": "reduce_on_plateau", "patience": 1, "rtol": 0.5, "monitor": ("val/loss", "min")}


def loaders():
    return loader(70, shuffle=True, seed=4), loader(20)


def make(folder, trainer_class=Classifier, **options):
    params = {"log_dir": str(folder), "logger_type": "csv"}
    options = {"model_class": Plain, "logger_params": params, **options}
    return classifier("unused", trainer_class, **options)


def rows(trainer):
    """The history without times."""
    return [{n: v for n, v in row.items() if "time" not in n} for row in trainer.run.history]


class Scripted(Classifier):
    """Its metric does not depend on the model, so that it can be worked out by hand."""

    def loss_function(self, model, batch, train):
        loss, _ = super().loss_function(model, batch, train)
        return loss, {"zero": batch[1] == 0}


@pytest.fixture(scope="module")
def by_steps(tmp_path_factory):
    trainer = make(tmp_path_factory.mktemp("steps") / "run", Scripted)
    validated = []

    class Recorder(Callback):
        def on_validation_epoch_end(self, view):
            validated.append((view.epoch, view.step, dict(view.metrics), view.history[-1]["step"]))

    trainer.callbacks = (Recorder(),)
    trainer.train_model(loader(70), loader(20), num_epochs=2, validate_every=EVERY)
    return trainer, validated


def test_validations_fall_on_their_steps_and_after_the_last(by_steps):
    trainer, validated = by_steps
    assert [(epoch, step) for epoch, step, *_ in validated] == [(1, 3), (2, 6), (2, 9), (2, 10)]
    assert all(step == of_row for _, step, _, of_row in validated)
    assert [(row["epoch"], row["step"]) for row in trainer.run.history] == [
        (1, 3),
        (1, 5),  # the end of the epoch, which has no validation
        (2, 6),
        (2, 9),
        (2, 10),
    ]


def test_a_row_holds_the_mean_over_the_examples_since_the_row_before(by_steps):
    labels = classes(70)[1]
    parts = [labels[:48], labels[48:], labels[:16], labels[16:64], labels[64:]]
    expected = [(part == 0).mean() for part in parts]
    assert [row["train/zero"] for row in by_steps[0].run.history] == pytest.approx(expected)
    zero = (classes(20)[1] == 0).mean()
    found = [row.get("val/zero") for row in by_steps[0].run.history]
    assert found[1] is None
    assert [found[i] for i in (0, 2, 3, 4)] == pytest.approx([zero] * 4)


def test_files_follow_the_validations(by_steps):
    trainer, validated = by_steps
    folder = bx.checkpoint.RunDirectory(trainer.log_dir)
    names = sorted(path.stem for path in folder.metrics.glob("eval_*"))
    assert names == [f"eval_step_{step:08d}" for step in (3, 6, 9, 10)]
    stored = json.loads((folder.metrics / "eval_step_00000006.json").read_text())
    assert stored["val/loss"] == validated[1][2]["val/loss"]
    lines = folder.history.read_text().splitlines()
    assert lines[0].split(",")[:2] == ["step", "epoch"]
    assert [line.split(",")[0] for line in lines[1:]] == ["3", "5", "6", "9", "10"]


def test_the_best_model_may_come_from_within_an_epoch(tmp_path):
    class Third(Classifier):
        def is_new_model_better(self, new, old):
            return self.run.step == 3

    trainer = make(tmp_path / "run", Third)
    best = trainer.train_model(*loaders(), num_epochs=1, validate_every=EVERY)
    row = trainer.run.history[0]
    assert best["val/loss"] == row["val/loss"]
    assert best["train/loss"] == row["train/loss"]
    assert trainer.run.best_steps == [3]


def test_fused_steps_end_on_validations(tmp_path):
    found = []
    for fused in (1, 4):
        loop = bx.LoopOptions(steps_per_execution=fused, log_every=4)
        trainer = make(tmp_path / str(fused), loop=loop)
        trainer.train_model(*loaders(), num_epochs=3, validate_every=EVERY)
        found.append((rows(trainer), jax.device_get(trainer.state.params)))
    assert found[0][0] == found[1][0]
    jax.tree.map(np.testing.assert_array_equal, found[0][1], found[1][1])


def test_records_end_at_a_validation(tmp_path):
    records = []

    class Recorder(Callback):
        def on_log(self, view):
            records.append((view.step, view.metrics["train/step/zero"]))

    trainer = make(tmp_path, Scripted, callbacks=[Recorder()], loop=bx.LoopOptions(log_every=2))
    trainer.train_model(loader(70), loader(20), num_epochs=1, validate_every=EVERY)
    labels = classes(70)[1]
    ends = [(2, labels[:32]), (3, labels[32:48]), (4, labels[48:64])]
    assert [step for step, _ in records] == [step for step, _ in ends]
    expected = [(part == 0).mean() for _, part in ends]
    assert [value for _, value in records] == pytest.approx(expected)


def test_a_run_that_validates_within_epochs_resumes_exactly():
    assert_resumes_exactly(
        lambda folder: make(
            folder,
            optimizer_hparams={"lr": 0.1, "schedule": PLATEAU},
            callbacks=[EarlyStopping("val/loss", patience=20)],
            checkpoint=bx.CheckpointOptions(keep_best=2),
        ),
        loaders,
        num_epochs=2,
        interrupt_at=(3, 7),
        validate_every=EVERY,
    )


def test_in_debug_mode_it_resumes_at_the_first_step_of_an_epoch():
    assert_resumes_exactly(
        lambda folder: make(folder, debug=True),
        lambda: (loader(32), loader(8)),
        interrupt_at=2,
        validate_every=1,
    )


class FailAt(Callback):
    """Fails at the validation of a step."""

    def __init__(self, step):
        self.step = step

    def on_validation_epoch_end(self, view):
        if view.step == self.step:
            raise OSError("the disk is full")


def test_an_interrupted_validation_comes_again(tmp_path):
    arguments = {"num_epochs": 2, "validate_every": EVERY, "validate_at_start": True}
    whole = make(tmp_path / "whole")
    expected = whole.train_model(*loaders(), **arguments)
    for step in (0, 6):
        first = make(tmp_path / "run", callbacks=[FailAt(step)])
        with pytest.raises(OSError, match="the disk is full"):
            first.train_model(*loaders(), **arguments, resume=True)
    last = make(tmp_path / "run")
    assert last.train_model(*loaders(), **arguments, resume=True) == expected
    assert rows(last) == rows(whole)
    jax.tree.map(np.testing.assert_array_equal, last.state.params, whole.state.params)


def test_more_steps_go_on_behind_a_limit_that_was_a_validation(tmp_path):
    def train(folder, steps, **options):
        trainer = make(folder)
        trainer.train_model(
            *loaders(), max_steps=steps, schedule_steps=12, validate_every=EVERY, **options
        )
        return trainer

    whole = train(tmp_path / "whole", 12)
    train(tmp_path / "run", 6)
    last = train(tmp_path / "run", 12, resume=True)
    assert rows(last) == rows(whole)
    assert [row["step"] for row in rows(last)] == [3, 5, 6, 9, 10, 12]


def test_an_endless_stream_needs_no_epochs(tmp_path):
    def stream():
        while True:
            yield from loader(48)

    trainer = make(tmp_path)
    trainer.train_model(stream(), loader(20), max_steps=7, validate_every=3)
    assert [row["step"] for row in trainer.run.history] == [3, 6, 7]
    assert all("val/loss" in row for row in trainer.run.history)


def test_the_first_row_is_that_of_the_model_before_training(tmp_path):
    trainer = make(tmp_path)
    before = trainer.eval_model(loader(20), "val/")
    trainer.train_model(*loaders(), num_epochs=1, validate_at_start=True)
    first, last = rows(trainer)
    assert first == {"epoch": 0, "step": 0, **before}
    assert last["step"] == EPOCH


def test_minutes_are_a_cadence(tmp_path):
    trainer = make(tmp_path)
    every = bx.Every(minutes=1e-9)
    trainer.train_model(*loaders(), num_epochs=1, validate_every=every)
    assert len(trainer.run.history) > 1
    assert all("val/loss" in row for row in trainer.run.history)


def test_early_stopping_follows_validations_and_waits_for_the_least_steps(tmp_path):
    class StopAt(Callback):
        def on_validation_epoch_end(self, view):
            return Stop("enough") if view.step == 3 else None

    def stopped_at(name, **least):
        trainer = make(tmp_path / name, callbacks=[StopAt()])
        trainer.train_model(*loaders(), num_epochs=4, validate_every=EVERY, **least)
        return trainer.run.step

    assert stopped_at("at once") == 3
    assert stopped_at("later", min_steps=7) == 7


def test_patience_counts_validations(tmp_path):
    callback = EarlyStopping("val/zero", mode="max", patience=2)
    trainer = make(tmp_path, Scripted, callbacks=[callback])
    trainer.train_model(*loaders(), num_epochs=4, validate_every=EVERY)
    assert trainer.run.step == 9  # the first validation is the best, since it never changes


def test_a_schedule_is_not_bent_by_a_run_that_ends_early(tmp_path):
    def lr_at_4(name, **options):
        trainer = make(tmp_path / name, optimizer_hparams={"optimizer": "sgd", "lr": 0.1})
        trainer.train_model(*loaders(), **options)
        return float(learning_rate(trainer.state.opt_state))

    whole = []

    class At4(Callback):
        every = 1

        def on_step_end(self, view):
            if view.step == 4:
                whole.append(float(learning_rate(view.state.opt_state)))

    trainer = make(
        tmp_path / "whole", optimizer_hparams={"optimizer": "sgd", "lr": 0.1}, callbacks=[At4()]
    )
    trainer.train_model(*loaders(), max_steps=10)
    assert lr_at_4("early", max_steps=4, schedule_steps=10) == whole[0]
    assert lr_at_4("bent", max_steps=4) < whole[0]


@pytest.mark.parametrize(
    ("options", "arguments", "match"),
    [
        ({"check_val_every_n_epoch": 2}, {"validate_every": 3}, "expected one of them"),
        ({}, {"validate_every": 0}, "expected a number of steps of at least 1"),
        ({}, {"validate_every": bx.Every()}, "expected a number of steps"),
        ({}, {"validate_every": 3, "val_loader": None}, "no val_loader"),
        ({}, {"validate_at_start": True, "val_loader": None}, "no val_loader"),
        ({}, {"min_steps": 9, "max_steps": 4}, "Write max_steps=9"),
        ({}, {"min_epochs": 3, "num_epochs": 2}, "Write num_epochs=3"),
        ({}, {"schedule_steps": 0}, "whole number of at least 1"),
    ],
)
def test_contradictions_come_before_the_first_step(tmp_path, options, arguments, match):
    trainer = make(tmp_path, **options)
    with pytest.raises(ConfigurationError, match=match):
        trainer.train_model(loader(70), **{"val_loader": loader(20), **arguments})
    assert trainer.run is None
