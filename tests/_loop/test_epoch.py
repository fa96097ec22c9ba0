"""One pass of training steps: what is sent off, counted, saved and cut, in this order."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback, Stop
from boltax.errors import TrainingError
from dummies import classes, classifier, loader


class Order(Callback):
    """Notes what is told, with the step of the view and that of its state."""

    every = 2

    def __init__(self):
        self.told = []

    def on_step_end(self, view):
        self.told.append(("step", view.step, int(jax.device_get(view.state.step))))

    def on_log(self, view):
        self.told.append(("log", view.step, int(jax.device_get(view.state.step))))


def test_each_hook_sees_the_state_of_its_step(tmp_path):
    order = Order()
    trainer = classifier(tmp_path, callbacks=[order], loop=bx.LoopOptions(log_every=3))
    trainer.train_model(loader(48, 8), num_epochs=1)
    assert order.told == [
        ("step", 2, 2),
        ("log", 3, 3),
        ("step", 4, 4),
        ("step", 6, 6),
        ("log", 6, 6),
    ]


def test_the_epochs_mean_is_that_of_all_its_examples(tmp_path):
    """With a learning rate of 0 every batch sees the first parameters."""
    hparams = {"optimizer": "sgd", "lr": 0.0, "schedule": "constant"}
    model_hparams = {"dropout": 0.0}
    trainer = classifier(tmp_path, optimizer_hparams=hparams, model_hparams=model_hparams)
    trainer.init_optimizer(1, 4)
    params = jax.device_get(trainer.state.params)
    record = trainer.train_epoch(loader(50, 16))
    inputs, labels = classes(50)
    hits = 0
    for begin in range(0, 50, 16):  # BatchNorm normalises by the batch
        x, y = inputs[begin : begin + 16], labels[begin : begin + 16]
        hidden = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
        hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
        norm = params["BatchNorm_0"]
        hidden = np.maximum(hidden * norm["scale"] + norm["bias"], 0)
        logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        hits += int((logits.argmax(-1) == y).sum())
    assert record["train/acc"] == pytest.approx(hits / 50)


def test_by_hand_each_call_is_one_more_epoch(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(2, 4)
    for epoch in (1, 2):
        trainer.train_epoch(loader(64, 16))
        assert (trainer.run.epoch, trainer.run.step) == (epoch, 4 * epoch)


def test_a_callback_that_asks_to_stop_ends_the_epoch_at_its_step(tmp_path):
    class Enough(Callback):
        def on_step_end(self, view):
            return Stop("enough") if view.step == 3 else None

    trainer = classifier(tmp_path, callbacks=[Enough()])
    trainer.train_model(loader(64, 8), num_epochs=5)
    assert (trainer.run.epoch, trainer.run.step) == (1, 3)
    assert trainer.run.counters.cursor["batch"] == 3
    assert not trainer.run.is_cut


def test_before_there_is_an_optimizer_nothing_trains(tmp_path):
    with pytest.raises(TrainingError, match="before there is an optimizer"):
        classifier(tmp_path).train_epoch(loader())


def test_an_exception_says_after_how_many_steps_it_came(tmp_path):
    class Breaks(Callback):
        def on_step_end(self, view):
            if view.step == 3:
                raise OSError("broken")

    trainer = classifier(tmp_path, callbacks=[Breaks()])
    with pytest.raises(OSError, match="broken") as raised:
        trainer.train_model(loader(64, 8), num_epochs=1)
    assert any("completed steps: train, epoch 1, step 3" in note for note in raised.value.__notes__)
