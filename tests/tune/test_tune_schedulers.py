"""Schedulers: whom they stop and overwrite, in a population that trains."""

from dataclasses import replace

import jax.numpy as jnp
import pytest

from boltax.errors import ConfigurationError, MetricsError
from boltax.tune import (
    Member,
    Overwrite,
    Population,
    PopulationBasedTraining,
    PopulationView,
    Scheduler,
    SuccessiveHalving,
)
from boltax.tune._schedulers import best_first
from dummies import classifier, loader
from tune_dummies import SGD, train_loader


def view(values, epoch=1, metric="val/loss"):
    members = tuple(
        Member(number=i, seed=i, values={"lr": 0.1}, epoch=epoch, metrics={metric: value})
        for i, value in enumerate(values)
    )
    return PopulationView(epoch=epoch, num_epochs=16, members=members)


def test_what_is_not_finite_is_the_worst():
    nan, inf = float("nan"), float("inf")
    for mode in ("min", "max"):
        ranked = best_first(("val/loss", mode), view([nan, 1.0, inf, 0.5]).members)
        assert {member.number for member in ranked[2:]} == {0, 2}


@pytest.mark.parametrize(
    ("epoch", "stopped"), [(1, 0), (2, 3), (3, 0), (4, 3), (8, 3), (9, 0), (16, 3)]
)
def test_halving_acts_at_growing_intervals(epoch, stopped):
    halving = SuccessiveHalving(("val/loss", "min"), min_epochs=2, factor=2)
    assert len(halving.on_validation_epoch_end(view(range(6), epoch))) == stopped


def test_halving_compares_members_of_one_age():
    young = Member(number=6, seed=0, values={}, epoch=3, metrics={"val/loss": 9.0})
    old = view(range(6), 4)
    mixed = PopulationView(epoch=4, num_epochs=16, members=(*old.members, young))
    halving = SuccessiveHalving(("val/loss", "min"), factor=3)
    assert halving.on_validation_epoch_end(mixed) == []
    halving = SuccessiveHalving(("val/loss", "min"), factor=4)
    assert {stop.member for stop in halving.on_validation_epoch_end(mixed)} == {1, 2, 3, 4, 5}


def test_evolving_perturbs_copies_of_the_best_within_bounds():
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (0.05, 0.11)}, factors=(0.1, 10))
    requests = evolve.on_validation_epoch_end(view(range(8)))
    assert [request.member for request in requests] == [6, 7]
    assert {request.source for request in requests} <= {0, 1}
    assert {request.values["lr"] for request in requests} <= {0.05, 0.11}
    assert requests == evolve.on_validation_epoch_end(view(range(8)))  # nothing is remembered


def test_evolving_draws_anew_within_bounds():
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (1e-4, 1.0)}, resample=1.0)
    drawn = [
        request.values["lr"]
        for epoch in range(1, 40)
        for request in evolve.on_validation_epoch_end(view(range(4), epoch))
    ]
    assert min(drawn) > 1e-4
    assert max(drawn) < 1.0
    assert min(drawn) < 1e-3 < 1e-1 < max(drawn)


def test_evolving_waits_and_never_copies_the_last_one_left():
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": None}, every=3)
    assert not evolve.on_validation_epoch_end(view(range(4), 2))
    assert isinstance(evolve.on_validation_epoch_end(view(range(4), 3))[0], Overwrite)
    assert not evolve.on_validation_epoch_end(view([1.0], 3))


def test_halving_of_a_population_leaves_the_best_with_all_epochs(tmp_path):
    members = [{"lr": lr} for lr in (1e-6, 0.05, 1e-5, 1e-4)]
    trainer = classifier(tmp_path, optimizer_hparams=SGD)
    halving = SuccessiveHalving(("val/loss", "min"))
    together = Population(trainer, members, scheduler=halving, members_per_step=2)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=3)
    assert [row["epoch"] for row in table.rows] == [1, 3, 1, 2]
    assert table.best()["member"] == 1
    assert len(table.history) == 7


def test_evolving_a_population_lets_bad_members_go_on_from_good_ones(tmp_path):
    members = [{"seed": seed, "lr": lr} for seed, lr in enumerate((0.05, 1e-6, 0.04, 1e-6))]
    trainer = classifier(tmp_path, optimizer_hparams=SGD)
    evolve = PopulationBasedTraining(("val/loss", "min"), {"lr": (1e-6, 1.0)}, quantile=0.5)
    together = Population(trainer, members, scheduler=evolve, members_per_step=4)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=3)
    assert all(m.copied_from for m in (together.members[1], together.members[3]))
    assert min(row["lr"] for row in table.rows) > 0.02
    assert max(row["val/loss"] for row in table.rows) < 0.9


def test_a_scheduler_without_a_monitor_follows_the_trainers():
    def stopped(monitor):
        seen = replace(view([0.1, 0.9, 0.5, 0.3], metric="val/score"), monitor=monitor)
        return [stop.member for stop in SuccessiveHalving().on_validation_epoch_end(seen)]

    assert stopped(("val/score", "max")) == [3, 0]
    assert stopped(("val/score", "min")) == [2, 1]
    seen = replace(view([0.1, 0.9]), monitor=("val/loss", "min"))
    [request] = PopulationBasedTraining(None, {"lr": None}).on_validation_epoch_end(seen)
    assert (request.member, request.source) == (1, 0)
    with pytest.raises(ConfigurationError, match="SuccessiveHalving without a monitor"):
        stopped(None)


@pytest.mark.parametrize(
    ("scheduler", "monitor", "loaders", "error", "said"),
    [
        (
            SuccessiveHalving(("val_acc", "max")),
            None,
            2,
            MetricsError,
            r"'val_acc' of SuccessiveHalving.*monitor=\('val/acc', 'max'\)",
        ),
        (
            SuccessiveHalving(("val/f1", "max")),
            None,
            1,
            MetricsError,
            "'val/f1' of SuccessiveHalving.*train/acc, train/grad_norm, train/loss",
        ),
        (
            PopulationBasedTraining(("train/accuracy", "max"), {"lr": None}),
            None,
            2,
            MetricsError,
            "'train/accuracy' of PopulationBasedTraining.*Did you mean 'train/acc'",
        ),
        (SuccessiveHalving(), None, 2, ConfigurationError, "without a monitor"),
        (Scheduler(), ("val/mse", "min"), 2, MetricsError, "'val/mse', which is not among"),
    ],
)
def test_what_follows_a_metric_that_there_will_not_be_is_told_before_the_first_step(
    tmp_path, scheduler, monitor, loaders, error, said
):
    trainer = classifier(tmp_path, monitor=monitor)
    population = Population(trainer, [{"seed": 0}, {"seed": 1}], scheduler=scheduler)
    with pytest.raises(error, match=said):
        population.train_model(*(train_loader(), loader())[:loaders], num_epochs=2)
    assert all(member.step == 0 for member in population.members)


def test_without_a_validation_a_monitor_of_training_tells_the_best_of_a_member(tmp_path):
    def schedule(step):  # downhill, and then uphill again
        return jnp.where(step < 16, 0.05, -0.05)

    trainer = classifier(
        tmp_path,
        monitor=("train/loss", "min"),
        optimizer_hparams={"optimizer": "sgd", "schedule": schedule},
    )
    population = Population(trainer, [{"seed": 0}, {"seed": 1}])
    table = population.train_model(train_loader(), num_epochs=5)
    for row in table.rows:
        losses = [own["train/loss"] for own in table.history if own["member"] == row["member"]]
        assert row["train/loss"] == min(losses) < losses[-1]
