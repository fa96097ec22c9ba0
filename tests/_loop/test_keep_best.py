"""`keep_best`: the best models of a run by its own comparison, also when it is interrupted."""

import math

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback
from boltax.checkpoint import BestCheckpoints, ResumeCheckpoints, RunDirectory
from boltax.checkpoint._report import list_checkpoints
from dummies import Classifier, classifier, loader

SCORES = [5.0, 9.0, 8.0, 7.0, 8.5, 6.0]
STEPS = 5  # of an epoch


class Scored(Classifier):
    """Its validations have the scores that are given, one for each epoch."""

    scores = tuple(SCORES)

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        eval_metrics["val/acc"] = self.scores[epoch_idx - 1]


class OwnOrder(Scored):
    """The score that is closest to seven is the best."""

    def is_new_model_better(self, new, old):
        return old is None or abs(new["val/acc"] - 7) < abs(old["val/acc"] - 7)


class Weights(Callback):
    """Keeps the parameters of each epoch, and ends the run in one of them by an exception."""

    def __init__(self, ends_in=None):
        self.by_epoch, self.ends_in = {}, ends_in

    def on_training_epoch_end(self, view):
        self.by_epoch[view.epoch] = jax.device_get(view.state.params)
        if view.epoch == self.ends_in:
            raise KeyboardInterrupt


def trained(folder, cls=Scored, *, keep=3, ends_in=None, resume=None, epochs=6, **options):
    weights = Weights(ends_in)
    monitor = ("val/acc", "max") if cls is not OwnOrder else None
    trainer = classifier(
        "unused",
        cls,
        logger_params={"log_dir": str(folder), "logger_type": "none"},
        checkpoint=bx.CheckpointOptions(keep_best=keep, every_epochs=1),
        callbacks=[weights],
        optimizer_hparams={"optimizer": "sgd", "lr": 0.1, "schedule": "constant"},
        monitor=monitor,
        **options,
    )
    try:
        metrics = trainer.train_model(
            loader(70), loader(), loader(), num_epochs=epochs, resume=resume
        )
    except KeyboardInterrupt:
        metrics = None
    return trainer, weights, metrics


def scores(folder, keep=3):
    """Epoch and score of the models on the disk, the best last, as their files have them.

    Others are there only where a resume checkpoint goes back to them, and are worse.
    """
    best = BestCheckpoints(RunDirectory(folder).best)
    *others, first, second, third = [0, 0, 0, *best.steps()]
    needed = ResumeCheckpoints(RunDirectory(folder).resume).best_steps()
    assert {step for step in others if step} <= needed
    return [
        (step // STEPS, best.restore(step=step).metrics["val/acc"])
        for step in (first, second, third)[-keep:]
        if step
    ]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_the_three_best_stay_and_the_best_of_all_is_loaded(tmp_path):
    trainer, weights, metrics = trained(tmp_path)
    assert scores(tmp_path) == [(3, 8.0), (5, 8.5), (2, 9.0)]
    assert metrics["val/acc"] == 9.0
    assert_equal(trainer.state.params, weights.by_epoch[2])  # what was tested
    assert_equal(Scored.load_from_checkpoint(tmp_path).state.params, weights.by_epoch[2])
    for epoch in (3, 5):
        folder = RunDirectory(tmp_path).best / str(epoch * STEPS)
        assert_equal(Scored.load_from_checkpoint(folder).state.params, weights.by_epoch[epoch])
    assert "all good" in list_checkpoints(tmp_path).text


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_ties_go_to_the_older_and_nan_is_never_kept(tmp_path, keep):
    class Tied(Scored):
        scores = (math.nan, 3.0, 3.0, math.nan, 2.0, 3.0)

    _, _, metrics = trained(tmp_path, Tied, keep=keep)
    assert metrics["val/acc"] == 3.0
    assert scores(tmp_path, keep) == [(6, 3.0), (3, 3.0), (2, 3.0)][-keep:]


def test_the_order_of_a_user_decides(tmp_path):
    trained(tmp_path, OwnOrder)
    assert scores(tmp_path) == [(6, 6.0), (3, 8.0), (4, 7.0)]


@pytest.mark.parametrize("ends_in", range(1, 7))
def test_a_resumed_run_keeps_what_the_uninterrupted_one_does(tmp_path, ends_in):
    trained(tmp_path, ends_in=ends_in)
    trainer, _, metrics = trained(tmp_path, resume=True)
    assert scores(tmp_path) == [(3, 8.0), (5, 8.5), (2, 9.0)]
    assert metrics["val/acc"] == 9.0
    assert [model.step // STEPS for model in trainer.run.clock.kept] == [3, 5, 2]


def test_a_run_that_goes_on_in_another_folder_takes_the_best_models_along(tmp_path):
    _, weights, _ = trained(tmp_path / "first", ends_in=5)
    trainer, _, _ = trained(tmp_path / "second", resume=str(tmp_path / "first"))
    assert scores(tmp_path / "first") == [(4, 7.0), (3, 8.0), (2, 9.0)]
    assert scores(tmp_path / "second") == [(3, 8.0), (5, 8.5), (2, 9.0)]
    assert_equal(trainer.state.params, weights.by_epoch[2])


def test_going_back_to_an_older_point_forgets_the_better_models_after_it(tmp_path):
    trained(tmp_path, ends_in=4)
    older = min(RunDirectory(tmp_path).resume.iterdir(), key=lambda path: int(path.name))
    epoch = int(older.name) // STEPS
    assert epoch < 4

    class Worse(Scored):
        scores = (*SCORES[:epoch], *[1.0] * 6)

    trainer, weights, _ = trained(tmp_path, Worse, resume=str(older), keep=1)
    best_epoch, best_score = max(enumerate(SCORES[:epoch], start=1), key=lambda pair: pair[1])
    assert scores(tmp_path, 1) == [(best_epoch, best_score)]
    assert best_epoch not in weights.by_epoch
    assert trainer.run.best["val/acc"] == best_score


def test_a_trainer_that_stores_its_best_model_itself_gets_no_other_in_its_place(tmp_path):
    class Own(Scored):
        saved = ()

        def save_model(self, step=0):
            self.saved = (*self.saved, step // STEPS)

        def load_model(self):
            pass

    trainer, _, _ = trained(tmp_path, Own)
    assert trainer.saved == (1, 2)
    assert not RunDirectory(tmp_path).best.exists()
