"""Validations of a population that fall within an epoch."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.errors import ConfigurationError
from boltax.tune import (
    Overwrite,
    Population,
    PopulationBasedTraining,
    Replace,
    Scheduler,
    SuccessiveHalving,
)
from boltax.tune._schedulers import Member, PopulationView
from dummies import Plain, classifier, loader
from tune_dummies import MEMBERS, SGD, Broken, arrays, train_loader

CALL = {"num_epochs": 2, "validate_every": 3}
"""With 8 steps in an epoch."""


def population(folder, scheduler=None, size=2):
    trainer = classifier(
        folder,
        model_class=Plain,
        optimizer_hparams=SGD,
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
    )
    return Population(trainer, MEMBERS, members_per_step=size, scheduler=scheduler)


class Changing(Scheduler):
    """Replaces and overwrites within epochs, and notes what it sees."""

    def __init__(self):
        self.seen = []

    def on_validation_epoch_end(self, view):
        self.seen.append((view.epoch, view.step, view.epochs_since, view.steps_since))
        return {
            6: Overwrite(0, 1, {"lr": 0.01}),
            9: Replace(2, {"seed": 5, "lr": 0.02, "weight_decay": 0.0}),
        }.get(view.step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    scheduler = Changing()
    found = population(tmp_path_factory.mktemp("whole"), scheduler)
    found.train_model(train_loader(), loader(32, 8), validate_at_start=True, **CALL)
    return found, scheduler


def test_the_scheduler_is_asked_after_each_validation_but_the_first(whole):
    assert whole[1].seen == [
        (0, 3, 0, 3),
        (0, 6, 0, 3),
        (1, 9, 1, 3),
        (1, 12, 0, 3),
        (1, 15, 0, 3),
        (2, 16, 1, 1),
        (2, 18, 0, 2),  # of the member that came late
        (2, 21, 0, 3),
        (3, 24, 1, 3),
    ]


def test_a_member_equals_its_single_run(tmp_path, whole):
    hparams = {**SGD, "lr": 3e-2, "weight_decay": 0.1}
    trainer = classifier(tmp_path, model_class=Plain, optimizer_hparams=hparams, seed=1)
    trainer.train_model(train_loader(), loader(32, 8), validate_at_start=True, **CALL)
    own = [row for row in whole[0].table.history if row["member"] == 1]
    rows = [row for row in trainer.run.history if "val/loss" in row]
    for name in ("step", "train/loss", "val/loss", "val/acc"):
        expected = [row[name] for row in rows if name in row]
        found = [row[name] for row in own if name in row and "val/loss" in row]
        assert found == pytest.approx(expected, rel=1e-4)


def test_interrupted_within_and_behind_a_validation_it_goes_on_bit_for_bit(tmp_path, whole):
    for at in (4, 7):
        with pytest.raises(OSError, match="the disk is gone"):
            population(tmp_path, Changing()).train_model(
                Broken(1, at), loader(32, 8), validate_at_start=True, resume=True, **CALL
            )
    last = population(tmp_path, Changing())
    last.train_model(train_loader(), loader(32, 8), validate_at_start=True, resume=True, **CALL)
    assert last.table.history == whole[0].table.history
    assert last.members == whole[0].members
    for number in range(4):
        left, right = (arrays(p.member(number))["params"] for p in (last, whole[0]))
        jax.tree.map(np.testing.assert_array_equal, left, right)


def view(epoch, step, epochs_since=0, steps_since=0, own=None):
    own = {"epoch": epoch, "step": step} if own is None else own
    members = tuple(
        Member(number=n, seed=n, values={"lr": 0.1}, metrics={"val/loss": float(n)}, **own)
        for n in range(4)
    )
    return PopulationView(
        epoch=epoch,
        num_epochs=8,
        members=members,
        step=step,
        epochs_since=epochs_since,
        steps_since=steps_since,
    )


def stopped(scheduler, *arguments):
    return [r.member for r in scheduler.on_validation_epoch_end(view(*arguments))]


def test_halving_acts_once_at_the_first_validation_behind_its_point():
    by_epoch = SuccessiveHalving(("val/loss", "min"))
    assert stopped(by_epoch, 0, 5, 0, 5) == []
    assert stopped(by_epoch, 1, 10, 1, 5) == [2, 3]
    assert stopped(by_epoch, 1, 15, 0, 5) == []
    by_step = SuccessiveHalving(("val/loss", "min"), min_steps=8)
    found = [bool(stopped(by_step, 0, step, 0, 5)) for step in range(5, 45, 5)]
    assert found == [False, True, False, True, False, False, True, False]  # behind 8, 16, 32


def test_evolution_acts_once_at_the_first_validation_behind_its_point():
    def asked(every, *arguments):
        evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (0.01, 1.0)}, every=every)
        return bool(evolve.on_validation_epoch_end(view(*arguments)))

    assert [asked(1, 0, 5, 0, 5), asked(1, 1, 10, 1, 5), asked(1, 1, 15, 0, 5)] == [0, 1, 0]
    by_step = bx.Every(steps=12)
    assert [asked(by_step, 0, s, 0, 5) for s in (5, 10, 15, 20, 25)] == [0, 0, 1, 0, 1]


def test_two_units_at_once_are_refused():
    with pytest.raises(ConfigurationError, match="expected one of them"):
        SuccessiveHalving(min_epochs=2, min_steps=10)
    with pytest.raises(ConfigurationError, match="expected steps or epochs"):
        PopulationBasedTraining(None, {"lr": None}, every=bx.Every(minutes=1))
