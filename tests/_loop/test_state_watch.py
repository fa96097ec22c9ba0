"""Variables that become infinite while every loss is finite are told at the next validation."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.checkpoint import ResumeCheckpoints, RunDirectory
from boltax.errors import NonFiniteError
from boltax.tune import Population, Status
from dummies import classifier, loader


class Overflowing(nn.Module):
    """Has a statistic of which training makes no use, and one that is infinite from the start."""

    @nn.compact
    def __call__(self, x, train=True):
        scale = self.variable("batch_stats", "scale", lambda: jnp.ones(2))
        lowest = self.variable("extrema", "lowest", lambda: jnp.full(3, jnp.inf))
        if train and not self.is_initializing():
            scale.value = scale.value * jnp.asarray([1e15, 1.0])
            lowest.value = lowest.value * 2
        return nn.Dense(3)(x)


def make(folder, **options):
    params = {"log_dir": str(folder), "logger_type": "none"}
    return classifier("unused", model_class=Overflowing, logger_params=params, **options)


def train(trainer, num_epochs, *others):
    return trainer.train_model(loader(32, 16), *others, num_epochs=num_epochs)


@pytest.mark.parametrize("others", [[loader(16)], []], ids=["validated", "without validation"])
def test_a_run_ends_at_the_next_validation_naming_the_variable(tmp_path, others):
    trainer = make(tmp_path, checkpoint=bx.CheckpointOptions(every_epochs=1))
    with pytest.raises(
        NonFiniteError, match=r"batch_stats/scale became .*epoch 2, step 4"
    ) as found:
        train(trainer, 5, *others)
    assert "The best model, of step 2, is finite" in str(found.value)
    assert "lowest" not in str(found.value)
    assert ResumeCheckpoints(RunDirectory(tmp_path).resume).steps() == [2]
    assert all(np.isfinite(row["train/loss"]) for row in trainer.run.history)


def test_a_run_that_goes_on_is_warned_once(tmp_path, caplog):
    trainer = make(tmp_path, loop=bx.LoopOptions(on_nonfinite="continue"))
    train(trainer, 4, loader(16))
    assert caplog.text.count("Not finite any more") == 1
    assert "Not finite any more at val, epoch 2, step 4: batch_stats/scale" in caplog.text
    assert trainer.run.epoch == 4


@pytest.mark.parametrize("size", [1, 2])
def test_a_member_ends_as_one_that_diverged(tmp_path, size):
    population = Population(make(tmp_path), [{"seed": 0}, {"seed": 1}], members_per_step=size)
    table = population.train_model(loader(32, 16), loader(16), 5)
    for member, row in zip(population.members, table, strict=True):
        assert (member.status, member.epoch) == (Status.DIVERGED, 2)
        assert row["reason"] == "not finite any more: batch_stats/scale"
