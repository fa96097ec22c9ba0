"""Schedules that follow the validation: each member's follows its own, as in its single run."""

import os
import signal

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.errors import ConfigurationError, MetricsError, TrainingError
from boltax.tune import Overwrite, Population, Replace, Scheduler, Stop
from dummies import GuideRegressor, Linear, Plain, classifier, line, loader
from tune_dummies import arrays, train_loader

PLATEAU = {"name": "reduce_on_plateau", "factor": 0.5, "patience": 1, "rtol": 0.1, "cooldown": 0}
HPARAMS = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "warmup": 2,
    "schedule": {**PLATEAU, "monitor": ("val/loss", "min")},
}
MEMBERS = [{"lr": 0.3}, {"seed": 1, "lr": 1e-4}, {"seed": 2, "lr": 0.03}]


def population(folder, size, scheduler=None, members=MEMBERS, devices=1, **options):
    options = {"optimizer_hparams": HPARAMS, "model_class": Plain, **options}
    trainer = classifier(folder, **options)
    return Population(trainer, members, members_per_step=size, scheduler=scheduler, devices=devices)


def single(folder, number, num_epochs=6):
    member = dict(MEMBERS[number])
    options = {"seed": member.pop("seed", 42), "model_class": Plain}
    alone = classifier(folder, optimizer_hparams={**HPARAMS, **member}, **options)
    alone.train_model(train_loader(), loader(32, 8), num_epochs=num_epochs)
    return alone


def rate_of(trainer):
    return float(bx.optim.learning_rate(trainer.state.opt_state))


@pytest.mark.parametrize(("size", "devices"), [(1, 1), (2, 2)])
def test_each_member_reacts_to_its_own_validation_as_its_single_run(tmp_path, size, devices):
    together = population(tmp_path, size, devices=devices)
    together.train_model(train_loader(), loader(32, 8), num_epochs=6)
    close = {"rtol": 0, "atol": 0} if size == 1 else {"rtol": 2e-4, "atol": 2e-5}
    fallen = set()
    for number, given in enumerate(MEMBERS):
        member, alone = together.member(number), single(tmp_path, number)
        one, other = ({**arrays(trainer), "hparams": None} for trainer in (member, alone))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **close), one, other)
        assert member.state.evaluations.number == 6
        fallen.add(rate_of(member) / given["lr"])
    assert len(fallen) > 1  # they did not all fall alike


class Ending(Scheduler):
    """Stops a member after the second epoch, and may end the process after the third."""

    def __init__(self, requests=None, end_after=None):
        self.requests, self.end_after = requests or {}, end_after

    def on_validation_epoch_end(self, view):
        if view.epoch == self.end_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.requests.get(view.epoch)


@pytest.mark.parametrize("size", [1, 3])
def test_a_member_that_ends_leaves_the_schedules_of_the_others_alone(tmp_path, size):
    stop = Ending({1: [Stop(0, "enough"), Stop(1, "enough")]})
    members = [{"lr": 0.1}, *MEMBERS]  # two of four are left, and the rows of the others given up
    together = population(tmp_path, size, stop, members)
    together.train_model(train_loader(), loader(32, 8), num_epochs=6)
    member, alone = together.member(3), single(tmp_path, 2)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5),
        arrays(member)["params"],
        arrays(alone)["params"],
    )
    assert rate_of(member) == rate_of(alone) < 0.03


def test_an_interrupted_population_goes_on_with_its_schedules_bit_for_bit(tmp_path):
    def started(name, end_after=None):
        logger_params = {"log_dir": str(tmp_path / name), "logger_type": "csv"}
        requests = {
            1: Stop(0, "enough"),
            2: Overwrite(2, 1, {"lr": 0.02}),
            4: Replace(0, {"seed": 4, "lr": 0.2}),
        }
        return population(tmp_path, 2, Ending(requests, end_after), logger_params=logger_params)

    whole = started("whole")
    whole.train_model(train_loader(), loader(32, 8), num_epochs=5)
    with pytest.raises(SystemExit, match="143"):
        started("parts", 3).train_model(train_loader(), loader(32, 8), num_epochs=5)
    last = started("parts")
    last.train_model(train_loader(), loader(32, 8), num_epochs=5, resume=True)
    assert whole.table.history == last.table.history
    for number in (1, 2, 3):
        one, other = (arrays(each.member(number)) for each in (whole, last))
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert last.member(3).state.evaluations.number == 5  # a newcomer begins with none


def test_parts_of_a_member_follow_metrics_of_their_own(tmp_path):
    plateau = {**PLATEAU, "rtol": 0.0, "atol": 100.0}  # nothing is ever good enough
    parts = {
        "Dense_0": {"optimizer": "sgd", "schedule": {**plateau, "monitor": ("val/loss", "min")}},
        "Dense_1": {"optimizer": "sgd", "schedule": {**PLATEAU, "monitor": ("val/acc", "max")}},
    }
    parts["Dense_1"]["schedule"].pop("rtol")
    members = [{"Dense_0.lr": 0.1}, {"Dense_0.lr": 0.2}]
    together = population(tmp_path, 2, None, members, optimizer_hparams={"optimizers": parts})
    together.train_model(train_loader(), loader(32, 8), num_epochs=4)
    state = together.member(1).state
    assert set(state.evaluations.metrics) == {"val/acc", "val/loss"}
    assert bx.optim.learning_rate(state.opt_state)["Dense_0"] == pytest.approx(0.2 / 2**2)


def test_what_is_followed_has_to_be_there(tmp_path):
    with pytest.raises(ConfigurationError, match="follow val/loss, but no val_loader"):
        population(tmp_path, 1).train_model(train_loader(), num_epochs=1)
    schedule = {**PLATEAU, "monitor": ("val/f1", "min")}
    wrong = population(tmp_path, 1, optimizer_hparams={**HPARAMS, "schedule": schedule})
    with pytest.raises(MetricsError, match=r"val/acc, val/loss; expected val/f1"):
        wrong.train_model(train_loader(), loader(32, 8), num_epochs=1)
    with pytest.raises(TrainingError, match="have not been trained"):  # told before anything is
        _ = wrong.table


def test_steps_of_the_guide_are_told_by_one_validation_batch(tmp_path):
    schedule = {**PLATEAU, "monitor": ("val/f1", "min")}
    data, hparams = bx.data.ArrayLoader(line(), 8), {**HPARAMS, "schedule": schedule}
    trainer = classifier(
        tmp_path, GuideRegressor, Linear, exmp_input=line(4)[0], optimizer_hparams=hparams
    )
    wrong = Population(trainer, [{"lr": 0.1}, {"lr": 0.2}], members_per_step=2)
    with pytest.raises(MetricsError, match=r"val/loss; expected val/f1") as raised:
        wrong.train_model(data, data, num_epochs=2)
    assert "the check of one validation batch" in str(raised.value.__notes__)
    assert wrong._trainees.run.step < len(data)  # and not after the first epoch
