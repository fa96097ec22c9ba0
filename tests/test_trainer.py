"""`TrainerModule` as its users see it: what it trains, writes, returns and gives back."""

import json
import os
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltax as bx
from boltax._base._chunks import Chunk, Plan
from boltax._step._bodies import Training
from boltax._step._state import variables_of
from boltax.errors import CheckpointError
from dummies import (
    Classifier,
    GuideRegressor,
    Linear,
    Mlp,
    NnxMlp,
    classes,
    classifier,
    line,
    loader,
    to_host,
)

MODELS = pytest.mark.parametrize("model_class", [Mlp, NnxMlp], ids=["linen", "nnx"])


@MODELS
def test_it_learns_and_returns_the_metrics_of_the_best_model(tmp_path, model_class):
    trainer = classifier(tmp_path, model_class=model_class)
    metrics = trainer.train_model(loader(200, shuffle=True), loader(60), loader(60), num_epochs=5)
    phases = ("train", "val", "test")
    expected = {f"{phase}/{name}" for phase in phases for name in ("loss", "acc")}
    assert set(metrics) == {*expected, "train/grad_norm"}
    assert metrics["test/acc"] > 0.9


def test_the_run_directory_has_what_the_contract_says(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(), loader(), loader(), num_epochs=2)
    folder = Path(trainer.log_dir)
    assert folder == tmp_path / "Mlp" / "version_0"
    present = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {
        "hparams.json",
        "model.txt",
        "history.csv",
        "metrics/best_eval.json",
        "metrics/test.json",
    } <= present
    assert {
        "metrics/eval_epoch_001.json",
        "metrics/eval_epoch_002.json",
        "checkpoints/best",
    } <= present
    assert "Dense_0" in (folder / "model.txt").read_text()
    assert json.loads((folder / "hparams.json").read_text())["seed"] == 42
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    assert classifier(tmp_path).log_dir.endswith("version_1")


@MODELS
def test_a_trainer_comes_back_from_its_folder_alone(tmp_path, model_class):
    trainer = classifier(
        tmp_path, model_class=model_class, model_hparams={"features": 12}, label_smoothing=0.1
    )
    trainer.train_model(loader(), loader(), loader(), num_epochs=1)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert again.model_hparams == {"features": 12}
    assert again.hparams == {"label_smoothing": 0.1}
    jax.tree.map(
        np.testing.assert_array_equal, variables_of(again.state), variables_of(trainer.state)
    )
    assert again.log_dir == trainer.log_dir
    inputs = classes(5)[0]
    np.testing.assert_array_equal(again.bind_model()(inputs), trainer.bind_model()(inputs))


def test_a_loaded_trainer_leaves_its_folder_as_it_is_and_may_go_on_in_another(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(), loader(), num_epochs=1)
    folder = Path(trainer.log_dir)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    Classifier.load_from_checkpoint(folder).eval_model(loader())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    params = {"base_log_dir": str(tmp_path / "other"), "logger_type": "csv"}
    other = Classifier.load_from_checkpoint(folder, logger_params=params)
    jax.tree.map(np.testing.assert_array_equal, other.state.params, trainer.state.params)
    assert Path(other.log_dir).parent == tmp_path / "other" / "Mlp"


def test_an_optimizer_that_could_not_be_stored_is_asked_for_when_training(tmp_path):
    trainer = classifier(tmp_path, optimizer_hparams=optax.sgd(0.1))
    trainer.train_model(loader(), num_epochs=1)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    with pytest.raises(bx.errors.OptimizerError, match=r"optimizer_hparams=\.\.\."):
        again.train_model(loader(), num_epochs=1)


def test_a_folder_without_a_model_says_so(tmp_path):
    trainer = classifier(tmp_path)
    with pytest.raises(bx.errors.CheckpointError, match="best"):
        Classifier.load_from_checkpoint(trainer.log_dir)
    with pytest.raises(bx.errors.BoltaxError, match="nowhere"):
        Classifier.load_from_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 64])
def test_evaluation_is_exact_for_every_batch_size(tmp_path, batch_size):
    trainer = classifier(tmp_path)
    inputs, labels = classes(50)
    logits = np.asarray(trainer.bind_model()(inputs))
    metrics = trainer.eval_model(loader(50, batch_size))
    assert metrics["acc"] == (logits.argmax(-1) == labels).mean()
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    assert metrics["loss"] == pytest.approx(
        -log_probabilities[np.arange(50), labels].mean(), rel=1e-5
    )


@pytest.mark.parametrize("batch_size", [7, 50])
def test_predictions_come_in_order_and_all_of_them(tmp_path, batch_size):
    trainer = classifier(tmp_path)
    inputs, _ = classes(50)
    np.testing.assert_allclose(
        trainer.predict_model(loader(50, batch_size)),
        trainer.bind_model()(inputs),
        rtol=1e-5,
        atol=1e-6,
    )


@MODELS
def test_two_runs_with_one_seed_are_bitwise_equal_and_another_seed_is_not(tmp_path, model_class):
    def train(seed):
        trainer = classifier(tmp_path, model_class=model_class, seed=seed)
        trainer.train_model(loader(shuffle=True), num_epochs=2)
        return to_host(trainer.state.params)

    first, second, other = train(1), train(1), train(2)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
    )


def test_batch_norm_statistics_move_in_training_only(tmp_path):
    trainer = classifier(tmp_path)
    before = to_host(trainer.state.batch_stats)
    trainer.eval_model(loader())
    jax.tree.map(np.testing.assert_array_equal, before, to_host(trainer.state.batch_stats))
    trainer.train_model(loader(), num_epochs=1)
    assert not np.array_equal(
        before["BatchNorm_0"]["mean"], trainer.state.batch_stats["BatchNorm_0"]["mean"]
    )


@MODELS
def test_each_step_is_traced_once_for_each_shape_of_batch(tmp_path, model_class):
    traces = []

    class Counting(Classifier):
        def loss_function(self, model, batch, train):
            traces.append((train, batch[0].shape[0]))
            return super().loss_function(model, batch, train)

    trainer = classifier(tmp_path, Counting, model_class)
    traces.clear()
    trainer.train_model(loader(), loader(), num_epochs=3)
    assert sorted(traces) == [
        (False, 16),
        (True, 2),
        (True, 16),
    ]  # evaluation fills the last one up


def test_nothing_moves_between_host_and_device_implicitly(tmp_path):
    trainer = classifier(tmp_path, loop=bx.LoopOptions(log_every=2))
    with jax.transfer_guard("disallow"):
        metrics = trainer.train_model(loader(), loader(), loader(), num_epochs=2)
        trainer.predict_model(loader())
    assert np.isfinite(metrics["test/loss"])


def test_debug_runs_the_steps_as_python_with_the_same_numbers(tmp_path):
    calls = []

    class Counting(Classifier):
        def loss_function(self, model, batch, train):
            calls.append(train)
            return super().loss_function(model, batch, train)

    sgd = {
        "optimizer": "sgd",
        "lr": 0.1,
        "schedule": "constant",
    }  # Adam would turn rounding into whole steps
    compiled = classifier(tmp_path, optimizer_hparams=sgd)
    eager = classifier(tmp_path, Counting, optimizer_hparams=sgd, debug=True)
    calls.clear()
    metrics = [
        trainer.train_model(loader(), loader(), num_epochs=1) for trainer in (compiled, eager)
    ]
    assert calls.count(True) == 4
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-4)


def test_extra_hyperparameters_are_stored_and_reach_the_loss_as_traced_numbers(tmp_path):
    seen = []

    class Smoothed(Classifier):
        def loss_function(self, model, batch, train):
            seen.append((model.hparams["smoothing"], model.hparams["mode"]))
            return super().loss_function(model, batch, train)

    trainer = classifier(tmp_path, Smoothed, smoothing=0.25, mode="plain")
    trainer.train_model(loader(), num_epochs=1)
    assert all(isinstance(number, jax.core.Tracer) and mode == "plain" for number, mode in seen)
    assert float(trainer.state.hparams["smoothing"]) == 0.25
    assert json.loads(Path(trainer.log_dir, "hparams.json").read_text())["smoothing"] == 0.25


def test_l2_regularization_is_the_gradient_of_half_the_squared_norm(tmp_path):
    class NoLoss(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            return (model(batch) * 0.0).mean()

    trainer = classifier(
        tmp_path,
        NoLoss,
        Linear,
        exmp_input=classes(4)[0],
        optimizer_hparams={
            "optimizer": "sgd",
            "lr": 0.5,
            "schedule": "constant",
            "gradient_clip": None,
            "l2_regularization": 0.1,
        },
    )
    before = to_host(trainer.state.params)
    metrics = trainer.train_model(bx.data.ArrayLoader(classes(4)[0], 4), num_epochs=1)
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old * (1 - 0.5 * 0.1), rtol=1e-6),
        to_host(trainer.state.params),
        before,
    )
    assert metrics["train/loss"] == 0.0
    assert metrics["train/l2_penalty"] == pytest.approx(
        0.05 * sum((x**2).sum() for x in jax.tree.leaves(before))
    )


def test_the_loss_may_be_scalar_or_per_example_with_the_same_result(tmp_path):
    class Scalar(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss.mean(), metrics

    results = [
        classifier(tmp_path, c).train_model(loader(), loader(), num_epochs=2)
        for c in (Classifier, Scalar)
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_batches_may_be_dicts_and_predictions_too(tmp_path):
    class OnDicts(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            return ((model(batch["x"]) - batch["y"]) ** 2).mean(-1), {}

        def predict_function(self, model, batch):
            return {"y": model(batch["x"])}

    inputs, targets = line()
    data = bx.data.ArrayLoader({"x": inputs, "y": targets}, 8, shuffle=True)
    trainer = classifier(
        tmp_path, OnDicts, Linear, exmp_input=next(iter(data)), optimizer_hparams={"lr": 0.1}
    )
    trainer.train_model(data, num_epochs=40)
    np.testing.assert_allclose(
        trainer.predict_model(bx.data.ArrayLoader({"x": inputs, "y": targets}, 8))["y"],
        targets,
        atol=0.1,
    )


def test_endless_generators_train_with_steps_per_epoch(tmp_path):
    def endless():
        while True:
            yield classes(8)

    trainer = classifier(tmp_path, loop=bx.LoopOptions(steps_per_epoch=5))
    trainer.train_model(endless(), loader(), num_epochs=3)
    assert trainer.run.step == 15


@pytest.mark.parametrize(("limits", "steps"), [({"max_steps": 6}, 6), ({"max_time": 0.0001}, 1)])
def test_limits_stop_within_an_epoch_and_still_validate_and_save(tmp_path, limits, steps):
    trainer = classifier(tmp_path)
    metrics = trainer.train_model(loader(), loader(), num_epochs=50, **limits)
    assert trainer.run.step == steps
    assert "val/acc" in metrics
    assert len(os.listdir(Path(trainer.log_dir, "checkpoints", "best"))) >= 1


def test_without_a_validation_loader_the_newest_model_is_kept(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(), num_epochs=2)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, trainer.state.params)


def test_training_again_starts_anew_from_the_current_parameters(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(), loader(), num_epochs=2)
    first = to_host(trainer.state.params)
    trainer.train_model(loader(), loader(), num_epochs=1)
    assert int(trainer.state.step) == 4
    assert not np.array_equal(first["Dense_0"]["kernel"], trainer.state.params["Dense_0"]["kernel"])


def test_nan_is_never_the_best_and_the_best_is_tested(tmp_path):
    class Scripted(Classifier):
        scores = iter([0.3, float("nan"), 0.9, 0.5, float("nan")])

        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            eval_metrics["val/score"] = next(self.scores)

    trainer = classifier(tmp_path, Scripted, monitor=("val/score", "max"))
    metrics = trainer.train_model(loader(), loader(), loader(), num_epochs=5)
    assert metrics["val/score"] == 0.9
    assert [
        p.name for p in Path(trainer.log_dir, "checkpoints/best").iterdir() if p.name.isdigit()
    ] == ["12"]


def test_the_guides_order_of_metrics_decides_without_a_monitor(tmp_path):
    trainer = classifier(tmp_path)
    assert trainer.is_new_model_better(
        {"val/acc": 0.5, "val/loss": 9.0}, {"val/acc": 0.4, "val/loss": 1.0}
    )
    assert not trainer.is_new_model_better({"val/loss": 9.0}, {"val/loss": 1.0})
    assert trainer.is_new_model_better(
        {"val/val_metric": 1.0, "val/acc": 0.1}, {"val/val_metric": 2.0, "val/acc": 0.9}
    )
    assert not trainer.is_new_model_better({"val/loss": float("nan")}, None)
    assert trainer.is_new_model_better({"val/loss": 1.0}, {"val/loss": float("nan")})


def test_train_step_and_eval_step_are_the_guides_and_donate_nothing(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(1, 4)
    batch = jax.device_put(classes(8))
    state, metrics = trainer.train_step(trainer.state, batch)
    assert int(state.step) == 1
    assert metrics["acc"].shape == (8,)
    assert trainer.eval_step(trainer.state, batch)["loss"].shape == (8,)


def test_state_and_accumulators_are_donated_to_the_step(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(1, 4)
    chunk = Chunk(Plan(), jax.device_put(classes(8)), [{"epoch": 1, "batch": 1}], 8)
    nothing = trainer._made.steps.empty_train(trainer.state, chunk, None)
    begun, _ = trainer._made.steps.train((), Training(trainer.state, nothing), chunk)
    carry, _ = trainer._made.steps.train((), begun, chunk)
    for old in (trainer.state, begun.state):
        donated = jax.tree.leaves((old.params, old.opt_state, old.batch_stats))
        assert all(leaf.is_deleted() for leaf in donated)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(begun.metrics))
    assert int(carry.state.step) == 2


def test_a_linen_model_with_no_train_argument_and_a_guide_trainer(tmp_path):
    inputs, targets = line()
    trainer = classifier(
        tmp_path, GuideRegressor, Linear, exmp_input=inputs[:4], optimizer_hparams={"lr": 0.1}
    )
    metrics = trainer.train_model(
        bx.data.ArrayLoader((inputs, targets), 8),
        bx.data.ArrayLoader((inputs, targets), 8),
        num_epochs=40,
    )
    assert metrics["val/loss"] < 1e-2


def test_several_collections_and_streams_live_in_the_state(tmp_path):
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            seen = self.variable("counter", "calls", lambda: jnp.zeros((), jnp.int32))
            if train and not self.is_initializing():
                seen.value = seen.value + 1
                x = x + jax.random.normal(self.make_rng("noise"), x.shape)
            return nn.Dense(3)(x)

    trainer = classifier(tmp_path, model_class=Noisy)
    trainer.train_model(loader(), loader(), num_epochs=2)
    assert int(trainer.state.collections["counter"]["calls"]) == 8


def test_images_and_figures_reach_the_logger_from_a_hook(tmp_path):
    class Drawing(Classifier):
        def on_training_epoch_end(self, epoch_idx):
            self.logger.log_image("picture", np.zeros((4, 4, 3), np.float32), step=epoch_idx)

    trainer = classifier(
        tmp_path,
        Drawing,
        logger_params={"base_log_dir": str(tmp_path), "logger_type": "TensorBoard"},
    )
    trainer.train_model(loader(), num_epochs=1)
    assert any(name.startswith("events.out") for name in os.listdir(trainer.log_dir))


def test_weights_of_another_run_are_loaded_in_part_and_trained_on(tmp_path):
    old = classifier(tmp_path)
    old.train_model(loader(), num_epochs=1)
    new = classifier(tmp_path, model_hparams={"num_classes": 5})
    with pytest.raises(CheckpointError, match=r"shape +params/Dense_1/kernel"):
        new.load_weights(old.log_dir)
    differences = new.load_weights(old.log_dir, partial=True)
    assert {str(d).split(":")[0] for d in differences} == {
        "params/Dense_1/kernel",
        "params/Dense_1/bias",
    }
    np.testing.assert_array_equal(
        new.state.params["Dense_0"]["kernel"], old.state.params["Dense_0"]["kernel"]
    )
    new.train_model(loader(), num_epochs=1)
    assert int(new.state.step) == 4


def test_a_trainer_comes_from_any_checkpoint_of_a_run(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(), num_epochs=2)
    last = to_host(trainer.state.params)
    folder = Path(trainer.log_dir) / "checkpoints" / "resume" / "8"
    loaded = Classifier.load_from_checkpoint(folder)
    jax.tree.map(np.testing.assert_array_equal, to_host(loaded.state.params), last)


def test_the_keys_of_a_run_are_the_halves_of_its_seed(tmp_path):
    keys: list[jax.Array] = []

    class Recording(Classifier):
        def run_model_init(self, exmp_input, init_rng):
            keys.append(init_rng)
            return super().run_model_init(exmp_input, init_rng)

    trainer = classifier(tmp_path, Recording, seed=7)
    found = [jax.random.key_data(key) for key in (trainer.state.rng, *keys)]
    expected = jax.random.key_data(jax.random.split(jax.random.key(7)))
    assert np.array_equal(found, expected)
