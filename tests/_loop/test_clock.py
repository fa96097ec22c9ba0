"""When a resume checkpoint is due."""

import time

from boltax import CheckpointOptions
from boltax._base._triggers import Every
from boltax._loop._clock import SaveClock, save_trigger


def test_what_is_due_stays_due_until_it_is_saved():
    clock = SaveClock(Every(steps=4))
    assert not clock.ask(3, None)
    assert clock.ask(4, None)
    assert clock.ask(5, None)
    clock.note_saved((1, "train", 5))
    assert not clock.ask(6, None)
    assert clock.ask(8, None)


def test_a_save_that_failed_is_due_again_when_its_time_has_come():
    clock = SaveClock()
    assert not clock.ask(1, None)
    clock.retry_at = time.monotonic() - 1
    assert clock.ask(2, None)
    clock.note_saved((1, "train", 2))
    assert clock.retry_at == float("inf")


def test_the_options_say_when():
    trigger = save_trigger(CheckpointOptions(every_steps=7, every_minutes=2, every_epochs=3))
    assert (trigger.steps, trigger.minutes, trigger.epochs) == (7, 2, 3)
