"""A population that is given new members when the first ones have ended."""

import numpy as np
import pytest

import tune_project as project
from boltax.errors import TrainingError
from boltax.tune import Population
from compile_counts import compiled


@pytest.mark.parametrize("members_per_step", [1, 2])
def test_further_members_train_in_the_programs_that_there_are(members_per_step):
    loaders = project.make_loaders()[:2]
    trainer = project.make_trainer(lr=0.01)
    members = [{"lr": 0.01, "seed": 1}, {"lr": 0.1, "seed": 2}]
    population = Population(trainer, members, members_per_step=members_per_step)
    population.train_model(*loaders, num_epochs=2)
    before = population.member(1).eval_model(loaders[1])["acc"]
    population.release()
    compiled.clear()
    table = population.train_further([{"lr": 0.05, "seed": 3}, {"lr": 0.02, "seed": 4}])
    assert not compiled["jit(_single)"]
    assert [row["epoch"] for row in table.rows] == [2, 2, 2, 2]
    assert [row["lr"] for row in table.rows] == pytest.approx([0.01, 0.1, 0.05, 0.02])
    best = population.member(1)  # it has left the device
    assert best.eval_model(loaders[1])["acc"] >= before - 1e-6
    assert np.isfinite(population.member(3).eval_model(loaders[1])["loss"])


def test_there_are_no_further_members_before_the_first():
    population = Population(project.make_trainer(lr=0.01), [{"lr": 0.01}])
    with pytest.raises(TrainingError, match="train_model first"):
        population.train_further([{"lr": 0.02}])
