"""Tests of `boltax.optim._horizon`."""

import pytest

from boltax.errors import OptimizerError
from boltax.optim._horizon import Horizon


def test_warmup_is_steps_or_a_fraction() -> None:
    assert Horizon(200, 10).warmup_steps() == 10
    assert Horizon(200, 0.05).warmup_steps() == 10
    assert Horizon(None, 10).warmup_steps() == 10


def test_fraction_of_an_unknown_length_is_an_error() -> None:
    with pytest.raises(OptimizerError, match=r"warmup=0\.05, a fraction of the run, .*unknown"):
        Horizon(None, 0.05).warmup_steps()


@pytest.mark.parametrize("warmup", [100, 101])
def test_warmup_must_be_shorter_than_a_run_that_decays(warmup: int) -> None:
    with pytest.raises(OptimizerError, match=f"warmup={warmup} with it for a run of 100 steps"):
        Horizon(100, warmup).rest("it")


def test_boundaries_are_steps_or_fractions() -> None:
    assert [Horizon(200, 0).boundary(key) for key in (0, 50, 0.5, "50", "0.5")] == [
        0,
        50,
        100,
        50,
        100,
    ]


def test_describe_names_the_warmup() -> None:
    assert Horizon(200, 0.05).describe() == " (warmup 10 of 200)"
    assert Horizon(None, 10).describe() == " (warmup 10)"
    assert Horizon(200, 0).describe() == ""
