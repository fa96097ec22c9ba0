"""The learning rate range test: what it finds, and that it leaves everything as it was."""

import random

import jax
import numpy as np
import optax
import pytest

import boltax as bx
from boltax._inspect._lr_find import result_of
from boltax._loop._saving import state_tree
from boltax.errors import ConfigurationError, OptimizerError, TrainingError
from dummies import Classifier, GuideRegressor, Linear, classes, classifier, line, loader, to_host

SGD = {"optimizer": "sgd", "lr": 0.1, "gradient_clip": None}


class Regression(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch[0]) - batch[1]) ** 2).mean(-1)


def regression(folder, **options):
    x, y = line(16)
    settings = {"exmp_input": (x, y), "optimizer_hparams": SGD, **options}
    return classifier(folder, Regression, Linear, **settings), bx.data.ArrayLoader((x, y), 16)


def test_the_losses_are_those_of_gradient_descent_with_a_growing_rate(tmp_path):
    trainer, data = regression(tmp_path)
    found = trainer.lr_find(data, min_lr=1e-3, max_lr=0.1, num_steps=12)
    np.testing.assert_allclose(found.lr, np.geomspace(1e-3, 0.1, 12))
    (x, y), dense = line(16), to_host(trainer.state.params)["Dense_0"]
    kernel, bias = np.asarray(dense["kernel"]), np.asarray(dense["bias"])
    for rate, loss in zip(found.lr, found.losses, strict=True):
        error = x @ kernel + bias - y
        assert loss == pytest.approx((error**2).mean(), rel=1e-4)
        kernel = kernel - rate * 2 * x.T @ error / len(x)
        bias = bias - rate * 2 * error.mean(0)


def test_what_follows_a_divergence_does_not_count(tmp_path):
    trainer, data = regression(tmp_path)
    found = trainer.lr_find(data, max_lr=1e4, num_steps=60)
    assert len(found.lr) == len(found.losses) == len(found.smoothed) < 60
    assert found.lr[-1] < 100
    assert np.isfinite(found.losses).all()
    assert 1e-3 < found.suggestion < 1


@pytest.mark.parametrize("offset", [0.0, -5.0], ids=["positive", "through zero"])
def test_the_suggestion_is_where_the_loss_falls_most_steeply(offset):
    rates = np.geomspace(1e-6, 10, 100)
    losses = offset + 2 - np.tanh(2 * np.log10(rates / 1e-2)) + np.where(rates > 1, rates**3, 0)
    found = result_of(rates, losses)
    assert 5e-3 < found.suggestion < 5e-2
    assert found.lr[-1] < 10
    assert result_of(rates, np.linspace(1, 2, 100)).suggestion is None


def snapshot(trainer):
    tree = state_tree(trainer.state)
    return jax.tree.map(np.asarray, {**tree, "rng": jax.random.key_data(tree["rng"])})


def test_a_trainer_is_as_it_was_and_trains_as_if_nothing_had_been(tmp_path):
    tested, other = (classifier(tmp_path) for _ in range(2))
    data = loader(50, 16, shuffle=True)
    before, run = snapshot(tested), tested.run
    found = tested.lr_find(data, num_steps=10)
    jax.tree.map(np.testing.assert_array_equal, snapshot(tested), before)
    assert tested.run is run
    assert found.lr.size
    for trainer in (tested, other):
        trainer.train_model(data, data, num_epochs=1)
    jax.tree.map(np.testing.assert_array_equal, snapshot(tested), snapshot(other))
    trained = snapshot(tested)
    tested.lr_find(data, num_steps=10)
    jax.tree.map(np.testing.assert_array_equal, snapshot(tested), trained)


def test_the_order_of_a_torch_loader_and_of_global_generators_is_kept(tmp_path):
    torch = pytest.importorskip("torch")

    class Pairs(torch.utils.data.Dataset):
        x, y = classes(40)

        def __len__(self):
            return 40

        def __getitem__(self, index):
            return self.x[index], self.y[index]

    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(Pairs(), batch_size=8, shuffle=True)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    classifier(tmp_path).lr_find(data, num_steps=10)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_a_short_loader_is_repeated_without_its_ragged_batch(tmp_path):
    sizes = []

    class Counting(Classifier):
        def loss_function(self, model, batch, train):
            sizes.append(len(batch[1]))
            return super().loss_function(model, batch, train)

    trainer = classifier(tmp_path, Counting)
    sizes.clear()
    assert trainer.lr_find(loader(20, 8), num_steps=30).lr.size > 2
    assert set(sizes) == {8}


@pytest.mark.parametrize(
    "hparams",
    [
        {"lr": 1e-3, "schedule": "warmup_cosine", "warmup": 0.1, "weight_decay": 0.1},
        {"optimizer": "sgd", "schedule": lambda step: 0.1},
        optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
        lambda total: optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(0.1)),
    ],
    ids=["schedule", "own schedule", "transformation", "function"],
)
def test_any_optimizer_with_a_rate_in_its_state_is_tested(tmp_path, hparams):
    found = classifier(tmp_path, optimizer_hparams=hparams).lr_find(loader(), num_steps=10)
    np.testing.assert_allclose(found.lr, np.geomspace(1e-7, 10, 10)[: found.lr.size])


@pytest.mark.parametrize(
    ("hparams", "why"),
    [
        ({"optimizer": "polyak_sgd"}, "does not exist"),
        (optax.adam(1e-3), "is not in the optimizer's state"),
        (
            optax.inject_hyperparams(optax.adam)(optax.linear_schedule(0.1, 0.0, 5)),
            "follows a schedule of its own",
        ),
    ],
    ids=["none", "built in", "scheduled"],
)
def test_an_optimizer_without_a_rate_to_set_is_refused(tmp_path, hparams, why):
    trainer = classifier(tmp_path, optimizer_hparams=hparams)
    with pytest.raises(OptimizerError, match=rf"learning rate {why}.*inject_hyperparams"):
        trainer.lr_find(loader(), num_steps=10)


def test_own_steps_are_tested_by_their_loss(tmp_path):
    x, y = line(16)
    options = {"exmp_input": [x[:4]], "optimizer_hparams": SGD}
    trainer = classifier(tmp_path, GuideRegressor, Linear, **options)
    assert trainer.lr_find([(x, y)], num_steps=20).suggestion > 0

    class Silent(GuideRegressor):
        def create_functions(self):
            train_step, eval_step = super().create_functions()
            return lambda state, batch: (train_step(state, batch)[0], {"mse": 0.0}), eval_step

    trainer = classifier(tmp_path, Silent, Linear, **options)
    with pytest.raises(ConfigurationError, match=r"metrics \['mse'\].*expected 'loss'"):
        trainer.lr_find([(x, y)], num_steps=20)


def test_a_loss_that_is_never_finite_is_an_error(tmp_path):
    bad = classes(8)
    bad[0][:] = np.nan
    with pytest.raises(TrainingError, match=r"loss of nan at the first step.*1e-07"):
        classifier(tmp_path).lr_find([bad], num_steps=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_lr": 1.0, "max_lr": 0.1}, r"min_lr=1.0 and max_lr=0.1"),
        ({"min_lr": 0.0}, r"min_lr=0.0"),
        ({"num_steps": 5}, r"num_steps=5.*at least 10"),
    ],
)
def test_a_range_that_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(ConfigurationError, match=message):
        classifier(tmp_path).lr_find(loader(), **options)


def test_a_loader_that_is_used_up_by_reading_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"generator that can be read only once"):
        classifier(tmp_path).lr_find(batch for batch in loader())


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    trainer, data = regression(tmp_path)
    trainer.lr_find(data, max_lr=1e3, num_steps=30).plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes()[:4] == b"\x89PNG"
