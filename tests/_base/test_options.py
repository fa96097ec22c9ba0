"""Options check themselves."""

import dataclasses

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
