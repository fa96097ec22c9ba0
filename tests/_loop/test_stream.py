"""From a source and the events of a run to chunks."""

import pytest

import boltax as bx
from boltax._loop._clock import save_trigger
from boltax._loop._stream import steps_to_event, steps_to_next
from boltax._loop._trainees import Loaders
from boltax._step._fused import MOST_STEPS
from boltax.callbacks import Callback
from boltax.errors import ConfigurationError, DataError
from dummies import classifier, loader


class At(Callback):
    """Looks at every so many steps."""

    def __init__(self, every):
        self.every = every

    def on_step_end(self, view):
        return None


class Logs(Callback):
    def on_log(self, view):
        return None


def distance(folder, step, left=None, **options):
    """Steps to the next event of a run with these options, from a step on."""
    trainer = classifier(folder, **options)
    trainer.init_optimizer(1, None)
    single = trainer._single(trainer.run)
    single.run.clock.trigger = save_trigger(trainer.checkpoint)
    return steps_to_event(single, step, left)


def test_steps_go_off_together_up_to_the_next_event(tmp_path):
    assert distance(tmp_path, 3) == MOST_STEPS
    assert distance(tmp_path, 3, left=9) == 9
    saving = bx.CheckpointOptions(every_steps=10)
    assert distance(tmp_path, 3, left=9, checkpoint=saving) == 7
    assert distance(tmp_path, 3, callbacks=[At(4)], checkpoint=saving) == 1


def test_a_record_ends_them_where_a_callback_looks_at_the_state(tmp_path):
    loop = bx.LoopOptions(log_every=5)
    assert distance(tmp_path, 3, loop=loop) == MOST_STEPS
    assert distance(tmp_path, 3, loop=loop, callbacks=[Logs()]) == 2


def test_a_callback_that_asks_for_a_step_that_is_over():
    assert steps_to_next("Mine", 3, 5) == 2
    with pytest.raises(ConfigurationError, match=r"Received 3 from Mine.next_step\(3\)"):
        steps_to_next("Mine", 3, 3)


def test_an_empty_loader_is_an_error_before_the_first_step(tmp_path):
    trainer = classifier(tmp_path)
    with pytest.raises(DataError):
        trainer.train_model([], num_epochs=1)


def test_loaders_are_named():
    assert Loaders(loader())._fields == ("train", "val", "test")
