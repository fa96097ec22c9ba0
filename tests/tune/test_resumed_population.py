"""A population that is interrupted goes on bit for bit."""

import os
import signal

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.errors import CheckpointError, DataError
from boltax.optim import learning_rate
from boltax.tune import (
    Overwrite,
    Population,
    PopulationBasedTraining,
    Replace,
    Scheduler,
    _content,
    _measure,
)
from dummies import Mlp, classifier, loader
from tune_dummies import MEMBERS, SGD, Broken, arrays, train_loader


class Counting(Scheduler):
    """Replaces and overwrites, keeps a count, and may end the process."""

    def __init__(self, end_after=None):
        self.end_after, self.asked = end_after, 0

    def on_validation_epoch_end(self, view):
        self.asked += 1
        if view.epoch == self.end_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return {
            1: Overwrite(0, 1, {"lr": 0.01}),
            2: Replace(2, {"seed": 5, "lr": 0.02, "weight_decay": 0.0}),
        }.get(view.epoch)

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def population(folder, size, scheduler, devices=None):
    trainer = classifier(
        folder,
        model_class=Mlp,
        optimizer_hparams=SGD,
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
        loop=bx.LoopOptions(prefetch=1),
    )
    return Population(trainer, MEMBERS, members_per_step=size, devices=devices, scheduler=scheduler)


def assert_same(one, other):
    assert one.table.history == other.table.history
    assert one.table.rows == other.table.rows
    assert one.members == other.members
    for number in range(len(one.members)):
        left, right = (arrays(p.member(number)) for p in (one, other))
        jax.tree.map(np.testing.assert_array_equal, left["params"], right["params"])


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_interrupted_between_and_within_epochs_it_goes_on_bit_for_bit(tmp_path, size):
    whole = population(tmp_path / "whole", size, Counting())
    whole.train_model(train_loader(), loader(32, 8), num_epochs=3)
    folder = tmp_path / "parts"
    data = Broken(2, 5)
    with pytest.raises(OSError, match="the disk is gone"):
        population(folder, size, Counting()).train_model(data, loader(32, 8), num_epochs=3)
    with pytest.raises(SystemExit, match="143"):
        population(folder, size, Counting(3)).train_model(
            data, loader(32, 8), num_epochs=3, resume=True
        )
    last = population(folder, size, scheduler := Counting())
    last.train_model(data, loader(32, 8), num_epochs=3, resume=True)
    assert scheduler.asked == 5
    assert_same(whole, last)


def test_a_finished_population_has_nothing_left_and_gives_its_table(tmp_path):
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (1e-3, 0.1)})
    first = population(tmp_path, 1, evolve)
    table = first.train_model(train_loader(), loader(32, 8), num_epochs=1)
    again = population(tmp_path, 1, evolve)
    assert again.train_model(train_loader(), loader(32, 8), 1, resume=True).rows == table.rows


def test_other_members_or_data_are_refused(tmp_path):
    population(tmp_path, 1, None).train_model(train_loader(), num_epochs=1)
    with pytest.raises(DataError, match="train_loader"):
        population(tmp_path, 1, None).train_model(loader(32, 8), num_epochs=1, resume=True)
    trainer = classifier(tmp_path, optimizer_hparams=SGD, logger_params={"log_dir": str(tmp_path)})
    fewer = Population(trainer, MEMBERS[:2], members_per_step=1)
    with pytest.raises(CheckpointError, match="holds one of 3; expected the same members"):
        fewer.train_model(train_loader(), num_epochs=1, resume=True)


def test_a_population_that_starts_anew_leaves_no_older_checkpoint(tmp_path):
    population(tmp_path, 1, None).train_model(train_loader(), num_epochs=2)
    second = population(tmp_path, 1, None)
    second.train_model(train_loader(), num_epochs=1)
    third = population(tmp_path, 1, None)
    assert third.train_model(train_loader(), num_epochs=1, resume=True)[0]["epoch"] == 1


def test_it_goes_on_bit_for_bit_on_fewer_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 3)
    whole = population(tmp_path / "whole", 1, Counting(), 1)
    whole.train_model(train_loader(), loader(32, 8), num_epochs=4)
    first = population(tmp_path / "parts", 1, Counting(end_after=2), 1)
    with pytest.raises(SystemExit):
        first.train_model(train_loader(), loader(32, 8), num_epochs=4)
    monkeypatch.setattr(_content, "most_lanes", lambda _: 2)
    last = population(tmp_path / "parts", 1, Counting(), 1)
    last.train_model(train_loader(), loader(32, 8), num_epochs=4, resume=True)
    assert (first._trainees.layout.lanes, last._trainees.layout.lanes) == (3, 2)
    assert_same(whole, last)


def test_more_epochs_leave_the_schedules_as_they_were_at_the_first_start(tmp_path, caplog):
    def trained(epochs, scheduler=None, **options):
        trainer = classifier(
            tmp_path,
            optimizer_hparams={"optimizer": "sgd", "lr": 0.05},  # warmup_cosine, the default
            logger_params={"log_dir": str(tmp_path / "run"), "logger_type": "none"},
        )
        members = [{"seed": 0}, {"seed": 1, "lr": 0.02}]
        population = Population(trainer, members, scheduler=scheduler)
        population.train_model(loader(32, 8), num_epochs=epochs, **options)
        return population

    with pytest.raises(SystemExit):
        trained(2, Ending(1))
    with pytest.raises(SystemExit):  # its checkpoint has the steps of the first start, too
        trained(3, Ending(2), resume=True)
    population = trained(4, resume=True)
    assert [member.step for member in population.members] == [16, 16]
    states = [population.member(number).state for number in (0, 1)]
    rates = [float(learning_rate(state.opt_state)) for state in states]
    assert rates == pytest.approx([0.0005, 0.0002])  # the last values of 8 steps
    for total in (12, 16):
        assert f"laid out over 8 steps of now {total}, those of" in caplog.text


class Ending(Scheduler):
    """Ends the process after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_validation_epoch_end(self, view):
        if view.epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)
