"""Populations: each member is its single run, whatever happens to the others."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

import boltax as bx
from boltax.models._vmap import Vmap
from boltax.optim._traced import TracedOptimizer
from boltax.tune import Overwrite, Population, Replace, Scheduler, Status, Stop, _measure
from dummies import Classifier, EqxMlp, Mlp, NnxMlp, classes, classifier, loader
from tune_dummies import MEMBERS, SGD, arrays, train_loader


class Plain(nn.Module):
    """Dense layers alone."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


class SmallCnn(nn.Module):
    """A convolution with BatchNorm."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), use_bias=False)(x.reshape(-1, 2, 2, 1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Smoothed(Classifier):
    """Reads a traced hyperparameter."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss + model.hparams["offset"] * model.params["Dense_0"]["kernel"].sum(), metrics


def population(
    folder, members=MEMBERS, trainer_class=Classifier, size=1, scheduler=None, **options
):
    options = {"optimizer_hparams": SGD, **options}
    trainer = classifier(folder / "population", trainer_class, **options)
    return Population(trainer, members, members_per_step=size, scheduler=scheduler)


def single(folder, trainer_class=Classifier, num_epochs=2, **options):
    trainer = classifier(folder / "single", trainer_class, **options)
    trainer.train_model(train_loader(), loader(32, 8), num_epochs=num_epochs)
    return trainer


def trained_by_hand(trainer, *epochs):
    """Steps over these epochs of the loader."""
    for epoch in epochs:
        for batch, _ in train_loader().epoch(epoch):
            trainer.state, _ = trainer.train_step(trainer.state, batch)


def assert_close(member, alone, *, rtol=2e-5, atol=2e-6):
    for name in ("params", "batch_stats", "step", "rng"):  # opt_state may have more values
        one, other = arrays(member)[name], arrays(alone)[name]
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), one, other
        )


def test_members_in_turn_are_their_single_runs_bit_for_bit(tmp_path):
    together = population(tmp_path)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    hparams = {**SGD, "weight_decay": 0.1, "lr": 3e-2}
    alone = single(tmp_path, optimizer_hparams=hparams, seed=1)
    assert_close(together.member(1), alone, rtol=0, atol=0)
    assert table[1]["val/loss"] == alone.run.best["val/loss"]
    rows = [row["train/loss"] for row in table.history if row["member"] == 1]
    assert rows == [row["train/loss"] for row in alone.run.history]


@pytest.mark.parametrize("model", [Plain, Mlp, SmallCnn, NnxMlp, Vmap(EqxMlp)])
def test_members_of_one_program_are_their_single_runs(tmp_path, model):
    together = population(tmp_path, size=2, model_class=model)  # two groups, the second filled up
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    hparams = {**SGD, "weight_decay": 0.1, "lr": 3e-2}
    alone = single(tmp_path, optimizer_hparams=hparams, seed=1, model_class=model, num_epochs=1)
    assert_close(together.member(1), alone)
    assert table[1]["val/loss"] == pytest.approx(alone.run.best["val/loss"], rel=1e-5)


def test_a_number_of_the_users_loss_differs_between_members(tmp_path):
    members = [{"offset": 0.0}, {"offset": 0.1}]
    together = population(tmp_path, members, Smoothed, size=2, model_class=Plain, offset=0.0)
    together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    alone = single(tmp_path, Smoothed, 1, model_class=Plain, optimizer_hparams=SGD, offset=0.1)
    assert_close(together.member(1), alone)
    assert together.member(1).hparams == {"offset": 0.1}


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("options", [{"ema": 0.9}, {"precision": "fp16"}])
def test_options_that_add_to_the_state_hold_for_each_member(tmp_path, size, options):
    loop, model = bx.LoopOptions(**options), Plain if "precision" in options else SmallCnn
    together = population(tmp_path, size=size, model_class=model, loop=loop)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    hparams = {**SGD, "weight_decay": 0.1, "lr": 3e-2}
    alone = single(tmp_path, model_class=model, optimizer_hparams=hparams, seed=1, loop=loop)
    close = {"rtol": 0, "atol": 0} if size == 1 else {"rtol": 2e-3, "atol": 1e-4}
    member = together.member(1)
    assert_close(member, alone, **close)
    for name in ("ema", "loss_scale"):
        one, other = (arrays(trainer).get(name) for trainer in (member, alone))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **close), one, other)
    assert table[1]["val/loss"] == pytest.approx(alone.run.best["val/loss"], rel=1e-3)
    member.load_model()
    assert member.eval_model(loader(32, 8), "val/")["val/loss"] == pytest.approx(
        table[1]["val/loss"], rel=1e-5
    )


def test_l2_penalty_and_clipping_differ_between_members(tmp_path):
    members = [{}, {"l2_regularization": 0.1, "gradient_clip": 0.1}]
    together = population(tmp_path, members, size=2, model_class=Plain)
    together.train_model(train_loader(), num_epochs=1)
    for number in (0, 1):
        hparams = {**SGD, **members[number]}
        alone = classifier(tmp_path, model_class=Plain, optimizer_hparams=hparams)
        alone.init_optimizer(1, 8)
        trained_by_hand(alone, 1)
        assert_close(together.member(number), alone)


def test_a_member_is_an_ordinary_trainer(tmp_path):
    together = population(tmp_path, size=3)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    member = together.member(1)
    outputs = member.bind_model()(classes(5)[0])
    member.load_model()
    again = member.eval_model(loader(32, 8), "val/")
    assert again["val/loss"] == pytest.approx(table[1]["val/loss"], rel=1e-6)
    loaded = Classifier.load_from_checkpoint(member.log_dir)
    assert loaded.seed == 1
    assert loaded.optimizer_hparams["weight_decay"] == 0.1
    assert loaded.bind_model()(classes(5)[0]).shape == outputs.shape
    member.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert member.run.step == 8


def test_a_diverged_member_ends_and_the_others_go_on(tmp_path):
    members = [{"lr": 0.05}, {"lr": 1e30}, {"lr": 0.02}]
    together = population(tmp_path, members, size=3, model_class=Plain)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=3)
    assert [m.status for m in together.members] == [
        Status.FINISHED,
        Status.DIVERGED,
        Status.FINISHED,
    ]
    assert "not finite at step" in table[1]["reason"]
    assert table[1]["epoch"] == 1
    alone = single(tmp_path, num_epochs=3, model_class=Plain, optimizer_hparams={**SGD, "lr": 0.02})
    assert_close(together.member(2), alone)


class Asked(Scheduler):
    """Asks for given things after given epochs."""

    def __init__(self, requests):
        self.requests, self.views = requests, []

    def on_validation_epoch_end(self, view):
        self.views.append(view)
        return self.requests.get(view.epoch)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_stopped_member_leaves_and_keeps_its_best(tmp_path, size):
    scheduler = Asked({1: Stop(1, "enough"), 2: [Stop(0, "enough")]})
    together = population(tmp_path, size=size, scheduler=scheduler, model_class=Plain)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=3)
    assert [row["epoch"] for row in table.rows] == [2, 1, 3]
    assert [m.reason for m in together.members][:2] == ["enough", "enough"]
    hparams = {**SGD, "weight_decay": 0.1, "lr": 1e-2}
    alone = single(tmp_path, num_epochs=3, model_class=Plain, optimizer_hparams=hparams, seed=2)
    assert_close(together.member(2), alone)
    stopped = together.member(1)
    assert stopped.eval_model(loader(32, 8), "val/")["val/loss"] == pytest.approx(
        table[1]["val/loss"], rel=1e-6
    )


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_replacement_is_a_fresh_member_with_epochs_of_its_own(tmp_path, size):
    values = {"seed": 7, "lr": 0.02, "weight_decay": 0.0}
    scheduler = Asked({1: Replace(1, values, "a better idea")})
    together = population(tmp_path, size=size, scheduler=scheduler, model_class=Plain)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    assert [(row["epoch"], row["status"]) for row in table.rows] == [
        (2, "finished"),
        (1, "stopped"),
        (2, "finished"),
        (2, "finished"),
    ]
    assert together.members[3].replaces == 1
    assert len(scheduler.views) == 3  # the newcomer's second epoch is the third pass
    hparams = {**SGD, "lr": 0.02}
    alone = classifier(tmp_path, model_class=Plain, optimizer_hparams=hparams, seed=7)
    alone.init_optimizer(2, 8)
    trained_by_hand(alone, 2, 3)  # the loader's epochs that the newcomer saw
    assert_close(together.member(3), alone)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_an_overwritten_member_goes_on_as_a_copy_with_other_values(tmp_path, size):
    scheduler = Asked({1: Overwrite(0, 2, {"lr": 0.03})})
    together = population(tmp_path, size=size, scheduler=scheduler, model_class=Plain)
    together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    member = together.members[0]
    assert member.values == {"lr": 0.03, "weight_decay": 0.1}
    assert (member.seed, member.copied_from, member.epoch) == (0, (2,), 2)
    alone = classifier(
        tmp_path,
        model_class=Plain,
        optimizer_hparams={**SGD, "lr": 1e-2, "weight_decay": 0.1},
        seed=2,
    )
    alone.init_optimizer(2, 8)
    trained_by_hand(alone, 1)
    changed = TracedOptimizer({**SGD, "weight_decay": 0.1}, 16, ["lr"]).with_values
    with jax.transfer_guard("allow"):
        opt_state = changed(alone.state.opt_state, {"lr": 0.03})
        root = jax.random.split(jax.random.key(0))[0]
    alone.state = alone.state.replace(opt_state=opt_state, rng=root)
    trained_by_hand(alone, 2)
    assert_close(together.member(0), alone)


def test_requests_of_all_kinds_together(tmp_path):
    members = [{"seed": seed, "lr": 0.01 * (seed + 1)} for seed in range(5)]
    scheduler = Asked(
        {
            1: [Stop(0, "a"), Overwrite(1, 4), Replace(3, {"seed": 9, "lr": 0.5})],
            2: [Replace(0, {"seed": 10, "lr": 0.1}), Replace(2, {"seed": 11, "lr": 0.1})],
        }
    )
    together = population(tmp_path, members, size=2, scheduler=scheduler, model_class=Plain)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=3)
    assert [m.epoch for m in together.members] == [1, 3, 2, 1, 3, 3, 3, 3]
    assert [m.replaces for m in together.members][5:] == [3, 0, 2]
    assert len(table.history) == 1 + 3 + 2 + 1 + 3 * 4
    same = [together.member(number) for number in (1, 4)]
    jax.tree.map(np.testing.assert_array_equal, *(arrays(t)["params"] for t in same))


def test_the_loggers_get_members_best_and_mean(tmp_path):
    together = population(tmp_path, size=3)
    table = together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    log = next((tmp_path / "population").rglob("metrics.csv")).read_text()
    wanted = {"member_002/val/loss", "mean/val/loss", "best/val/acc", "best/member", "epoch"}
    assert wanted <= set(log.splitlines()[0].split(","))
    rows = (Path(together.log_dir) / "members.csv").read_text().splitlines()
    assert len(rows) == 1 + len(table)


def test_the_fastest_way_is_measured_and_members_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "SHARE", math.inf)
    monkeypatch.setattr(_measure, "SHARE_OF_SMALL", math.inf)
    monkeypatch.setattr(_measure, "GAIN", 0.0)  # the largest group wins
    together = population(tmp_path, size="auto", model_class=Plain)
    together.train_model(train_loader(), loader(32, 8), num_epochs=2)
    assert together._trainees.layout.size == 2
    hparams = {**SGD, "weight_decay": 0.1, "lr": 3e-2}
    alone = single(tmp_path, model_class=Plain, optimizer_hparams=hparams, seed=1)
    assert_close(together.member(1), alone)


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Batching rule for 'own' not implemented"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    ],
)
def test_what_does_not_go_into_one_program_goes_in_turn(tmp_path, monkeypatch, error):
    class OneOnly(_measure._Candidate):
        def __init__(self, run, chunk, layout, chosen=None):
            if layout.size > 1 or layout.devices > 1:
                raise error
            super().__init__(run, chunk, layout, chosen)

    monkeypatch.setattr(_measure, "SHARE", math.inf)
    monkeypatch.setattr(_measure, "SHARE_OF_SMALL", math.inf)
    monkeypatch.setattr(_measure, "_Candidate", OneOnly)
    together = population(tmp_path, size="auto", model_class=Plain)
    together.train_model(train_loader(), num_epochs=1)
    assert together._trainees.layout.size == 1
    assert {member.status for member in together.members} == {Status.FINISHED}
