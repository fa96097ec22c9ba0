"""How long a run is, and over how many steps its learning rate is laid out."""

import json
import math
from pathlib import Path

import numpy as np
import optax
import pytest

import boltax as bx
from boltax._loop import _limits
from boltax._loop._limits import planned_epochs, planned_steps
from boltax.callbacks import Callback
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.optim import learning_rate
from dummies import Classifier, classifier, loader

LR, WARMUP = 1e-2, 4
SCHEDULED = {"optimizer": "sgd", "lr": LR, "warmup": WARMUP}  # warmup_cosine, the default


class Rates(Callback):
    """Notes the learning rate of each step."""

    def __init__(self):
        self.rates = {}

    def on_step_end(self, view):
        self.rates[view.step] = float(learning_rate(view.state.opt_state))


def cosine(step, total):
    """The default schedule by hand: the rate of a step that is counted from 1."""
    done = step - 1
    if done < WARMUP:
        return LR * done / WARMUP
    part = min((done - WARMUP) / (total - WARMUP), 1.0)
    return LR * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))


def trained(folder, *, hparams=SCHEDULED, trainer_class=Classifier, **arguments):
    """A run in a folder, with the rates of its steps."""
    rates = Rates()
    options = {"logger_params": {"log_dir": str(folder), "logger_type": "none"}}
    trainer = classifier(
        folder, trainer_class, optimizer_hparams=hparams, callbacks=[rates], **options
    )
    trainer.train_model(loader(40, 8, drop_last=True), **arguments)
    return trainer, rates.rates


def assert_rates(rates, total):
    wanted = {step: cosine(step, total) for step in rates}
    np.testing.assert_allclose(list(rates.values()), list(wanted.values()), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("num_epochs", "steps_per_epoch", "max_steps", "epochs", "steps"),
    [
        (None, 1, 600, 600, 600),  # max_steps alone is the limit
        (None, 7, 600, 86, 600),
        (None, None, 600, 600, 600),
        (None, 7, None, 500, 3500),
        (None, None, None, 500, None),
        (10, 7, 600, 10, 70),
        (100, 7, 600, 100, 600),
        (10, None, 600, 10, 600),
        (10, None, None, 10, None),
    ],
)
def test_max_steps_alone_lifts_the_cap_on_epochs(
    num_epochs, steps_per_epoch, max_steps, epochs, steps
):
    assert planned_epochs(num_epochs, steps_per_epoch, max_steps) == epochs
    assert planned_steps(epochs, steps_per_epoch, max_steps) == steps


def test_a_run_by_steps_goes_on_beyond_the_epochs_of_the_default_and_so_does_its_schedule(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(_limits, "DEFAULT_EPOCHS", 6)  # in place of 500
    rates = Rates()
    trainer = classifier(tmp_path, optimizer_hparams=SCHEDULED, callbacks=[rates])
    trainer.train_model(loader(8, 8), max_steps=9)
    assert (trainer.run.step, trainer.run.epoch) == (9, 9)
    assert list(rates.rates) == list(range(1, 10))
    assert_rates(rates.rates, 9)


@pytest.mark.parametrize("longer", [{"num_epochs": 4}, {"max_steps": 18}], ids=str)
def test_a_resumed_run_keeps_its_schedule_whatever_more_it_is_given(tmp_path, longer, caplog):
    trained(tmp_path, num_epochs=2)
    trainer, rates = trained(tmp_path, **longer, resume=True)
    assert min(rates) == 11 < max(rates)
    assert_rates(rates, 10)
    np.testing.assert_allclose(list(rates.values()), LR * 0.01, rtol=1e-5)  # its last value
    saved = sorted(Path(tmp_path, "checkpoints/resume").glob("*/progress.json"))[-1]
    progress = json.loads(saved.read_text())["progress"]
    assert (progress["schedule_steps"], progress["total_steps"]) == (
        10,
        trainer.run.limits.total_steps,
    )
    assert (
        f"laid out over 10 steps of now {trainer.run.limits.total_steps}, those of" in caplog.text
    )
    assert "Later steps have its last value" in caplog.text


def test_a_third_start_keeps_the_schedule_of_the_first(tmp_path):
    trained(tmp_path, num_epochs=2)
    trained(tmp_path, num_epochs=3, resume=True)
    _, rates = trained(tmp_path, num_epochs=4, resume=True)
    assert list(rates) == [16, 17, 18, 19, 20]
    assert_rates(rates, 10)


def test_a_run_that_is_cut_and_gets_fewer_epochs_keeps_it_too(tmp_path):
    trained(tmp_path, num_epochs=4, max_time=1e-9)  # ends after its first step
    _, rates = trained(tmp_path, num_epochs=2, resume=True)
    assert max(rates) == 10
    assert_rates(rates, 20)


def test_a_checkpoint_of_before_says_the_steps_in_all(tmp_path, monkeypatch):
    save = ResumeCheckpoints.save

    def of_before(checkpoints, step, arrays, progress):
        older = {name: value for name, value in progress.items() if name != "schedule_steps"}
        save(checkpoints, step, arrays, older)

    monkeypatch.setattr(ResumeCheckpoints, "save", of_before)
    trained(tmp_path, num_epochs=2)
    _, rates = trained(tmp_path, num_epochs=3, resume=True)
    assert_rates(rates, 10)


def test_a_constant_rate_has_nothing_to_tell(tmp_path, caplog):
    constant = {"optimizer": "sgd", "lr": LR, "schedule": "constant"}
    trained(tmp_path, hparams=constant, num_epochs=1)
    _, rates = trained(tmp_path, hparams=constant, num_epochs=2, resume=True)
    np.testing.assert_allclose(list(rates.values()), LR, rtol=1e-6)
    assert "steps in all: 5 -> 10" in caplog.text
    assert "laid out" not in caplog.text


def test_an_init_optimizer_of_a_user_gets_the_epochs_of_the_first_start(tmp_path):
    class Own(Classifier):
        def init_optimizer(self, num_epochs, num_steps_per_epoch):
            self.given = (num_epochs, num_steps_per_epoch)
            super().init_optimizer(num_epochs, num_steps_per_epoch)

    trained(tmp_path, trainer_class=Own, num_epochs=2)
    trainer, rates = trained(tmp_path, trainer_class=Own, num_epochs=3, resume=True)
    assert trainer.given == (2, 5)
    assert_rates(rates, 10)


@pytest.mark.parametrize(
    "name", ["cosine", "warmup_cosine", "linear", "exponential", "piecewise", "constant"]
)
def test_beyond_its_end_a_schedule_holds_its_last_value(name):
    spec = {"name": name, "boundaries": {0.5: 0.1}} if name == "piecewise" else name
    tx = bx.optim.build({"optimizer": "sgd", "lr": LR, "schedule": spec}, total_steps=10).tx
    params, rates = {"w": np.ones(2, np.float32)}, []
    state = tx.init(params)
    for _ in range(30):
        updates, state = tx.update(params, state, params)
        rates.append(float(learning_rate(state)))
        params = optax.apply_updates(params, updates)
    assert len(set(rates[10:])) == 1
    assert rates[10] <= rates[0]
