"""Options check themselves."""

import dataclasses
import re

import pytest

from boltax import CheckpointOptions, LoopOptions
from boltax.errors import ConfigurationError, UnknownNameError


@pytest.mark.parametrize(
    "option",
    ["log_every", "steps_per_epoch", "limit_val_batches", "limit_test_batches", "prefetch"],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_number_that_cannot_be_is_refused(option, value):
    with pytest.raises(ConfigurationError, match=rf"LoopOptions\({option}={value}\)"):
        LoopOptions(**{option: value})


def test_options_are_frozen_and_refuse_unknown_names():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CheckpointOptions().keep_best = 2
    with pytest.raises(UnknownNameError, match="Did you mean 'keep_best'"):
        CheckpointOptions(keep_bst=True)
    with pytest.raises(ConfigurationError, match="keep_best=0"):
        CheckpointOptions(keep_best=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("on_spike", 'optimizer_hparams={"on_spike": "skip"}'),
        ("swa", "LoopOptions(ema=boltax.SWA(start=...))"),
        ("limit_train_batches", "LoopOptions(steps_per_epoch=...)"),
        ("fast_dev_run", "trainer.fast_dev_run(train_loader, val_loader, test_loader)"),
    ],
)
def test_what_is_an_option_of_something_else_says_of_what(name, words):
    with pytest.raises(ConfigurationError, match=re.escape(f"expected it there. Write {words}.")):
        LoopOptions(**{name: 1})
