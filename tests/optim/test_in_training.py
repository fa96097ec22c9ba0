"""Optimizers in a trainer: what its steps give them, and what a run's folder gives back."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import boltax as bx
from boltax.errors import OptimizerError
from boltax.testing import assert_resumes_exactly
from dummies import (
    ActorCritic,
    Classifier,
    GuideRegressor,
    Linear,
    Mlp,
    OneByOne,
    classifier,
    line,
    loader,
)

SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}
ADAM = {"optimizer": "adam", "lr": 0.05}
PARTS = {"optimizers": {"actor": ADAM, "critic": SGD}}


def one_by_one(folder: Any, **options: Any) -> Any:
    return classifier(
        folder,
        OneByOne,
        ActorCritic,
        exmp_input=[line(4)[0]],
        **{"optimizer_hparams": PARTS, **options},
    )


def lines() -> bx.data.ArrayLoader:
    return bx.data.ArrayLoader(line(32), 8)


@pytest.mark.parametrize("debug", [False, True])
def test_a_step_counts_once_however_many_parts_it_updates(tmp_path, debug) -> None:
    trainer = one_by_one(tmp_path, debug=debug, callbacks=[bx.callbacks.LearningRateMonitor()])
    metrics = trainer.train_model(lines(), lines(), num_epochs=2)
    assert (int(trainer.state.step), trainer.run.step) == (8, 8)
    row = trainer.run.history[-1]
    assert row["train/seen_step"] == np.mean([4, 5, 6, 7])  # the same all through a step
    assert row["lr/critic"] == pytest.approx(0.1)
    assert 0.0 < row["lr/actor"] < 0.05
    assert metrics["val/loss"] < trainer.run.history[0]["val/loss"]


def test_several_optimizers_resume_bitwise() -> None:
    def make_trainer(log_dir: str) -> Any:
        return one_by_one(None, logger_params={"log_dir": log_dir, "logger_type": "csv"})

    assert_resumes_exactly(make_trainer, lambda: [lines(), lines()], interrupt_at=3)


def test_a_loss_function_trains_parts_with_optimizers_of_their_own(tmp_path) -> None:
    names = {"Dense_0": SGD, "Dense_1": {**SGD, "lr": 0.0}, "BatchNorm_0": ADAM}
    trainer = classifier(tmp_path, optimizer_hparams={"optimizers": names})
    before = jax.device_get(trainer.state.params)
    trainer.train_model(loader(16), num_epochs=1)
    after = jax.device_get(trainer.state.params)
    np.testing.assert_array_equal(after["Dense_1"]["kernel"], before["Dense_1"]["kernel"])
    assert not np.array_equal(after["Dense_0"]["kernel"], before["Dense_0"]["kernel"])


def test_frozen_parts_stay_bitwise_and_the_others_train(tmp_path) -> None:
    hparams = {"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.1, "freeze": "Dense_0/"}
    trainer = classifier(tmp_path, optimizer_hparams=hparams)
    before = jax.device_get(trainer.state.params)
    trainer.train_model(loader(32), num_epochs=2)
    after = jax.device_get(trainer.state.params)
    jax.tree.map(np.testing.assert_array_equal, after["Dense_0"], before["Dense_0"])
    assert not np.array_equal(after["Dense_1"]["kernel"], before["Dense_1"]["kernel"])


def make_sgd(total_steps: int | None) -> optax.GradientTransformation:
    return optax.sgd(1.0 / (total_steps or 1))


EVERYTHING = {
    "optimizer": "adamw",
    "lr": 0.1,
    "schedule": {"name": "reduce_on_plateau", "monitor": ["val/loss", "min"], "patience": 2},
    "warmup": 2,
    "gradient_clip": {"adaptive": 0.1},
    "weight_decay": 0.1,
    "decay_mask": "kernels",
    "lr_scale": {"Dense_0/": 0.1},
    "freeze": ["Dense_1/bias"],
}


@pytest.mark.parametrize("hparams", [EVERYTHING, make_sgd, {"optimizers": {"Dense_0": make_sgd}}])
def test_a_folder_gives_back_the_optimizer_of_its_run(tmp_path, hparams) -> None:
    is_regression, data = hparams is not EVERYTHING, loader(16)
    options = {"optimizer_hparams": hparams}
    if is_regression:
        data, options = lines(), {**options, "exmp_input": line(4)}
    kinds = (Regressor, Linear) if is_regression else (Classifier, Mlp)
    trainer = classifier(tmp_path, *kinds, **options)
    trainer.train_model(data, data, num_epochs=1)
    loaded = type(trainer).load_from_checkpoint(trainer.log_dir)
    assert loaded.optimizer_hparams == hparams
    loaded.train_model(data, data, num_epochs=2, resume=True)
    assert loaded.run.epoch == 2


def test_all_options_are_plain_data() -> None:
    read = json.loads(json.dumps(EVERYTHING))
    assert bx.optim.build(read, 10).describe == bx.optim.build(EVERYTHING, 10).describe


class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch[0]) - batch[1]) ** 2).mean(-1)


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"optimizer": "lbfgs"}, "optimizer 'lbfgs' with grad, step; expected value, value_fn too"),
        (
            optax.lbfgs(),
            r"the given transformation .*expected value, value_fn too.*value_fn=lambda",
        ),
        ({"optimizer": "momo"}, r"'momo' .*expected value too .*apply_gradients\(.*loss=loss\)"),
        (optax.contrib.reduce_on_plateau(), r"the given transformation .*expected value too"),
    ],
)
def test_own_steps_that_give_an_optimizer_too_little_are_told_what_to_write(
    tmp_path: Path, hparams: Any, match: str
) -> None:
    """`GuideRegressor` gives gradients alone."""
    trainer = classifier(
        tmp_path, GuideRegressor, Linear, exmp_input=[line(4)[0]], optimizer_hparams=hparams
    )
    with pytest.raises(OptimizerError, match=match):
        trainer.train_model(lines(), lines(), num_epochs=1)


@pytest.mark.parametrize("tx", [optax.lbfgs(), optax.sgd(optax.linear_schedule(0.1, 0.0, 8))])
def test_own_steps_may_hand_a_line_search_its_value_function(tmp_path, tx) -> None:
    class Searching(GuideRegressor):
        def create_functions(self):
            def train_step(state, batch):
                def loss_of(params):
                    outputs = state.apply_fn({"params": params}, batch[0])
                    return ((outputs - batch[1]) ** 2).mean()

                loss, grads = jax.value_and_grad(loss_of)(state.params)
                return state.apply_gradients(grads=grads, loss=loss, value_fn=loss_of), {
                    "loss": loss
                }

            return train_step, super().create_functions()[1]

    trainer = classifier(tmp_path, Searching, Linear, exmp_input=[line(4)[0]], optimizer_hparams=tx)
    trainer.train_model(lines(), lines(), num_epochs=2)
    history = trainer.run.history
    assert history[-1]["val/loss"] < history[0]["train/loss"]


def test_backtracking_line_search_trains_a_loss_function(tmp_path) -> None:
    tx = optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=8)
    )
    trainer = classifier(tmp_path, Regressor, Linear, exmp_input=line(4), optimizer_hparams=tx)
    metrics = trainer.train_model(lines(), lines(), num_epochs=3)
    assert metrics["val/loss"] < 0.1


def test_the_step_and_the_loss_are_extra_arguments(tmp_path) -> None:
    seen = []

    def update(updates, state, params=None, *, step, value, loss, grad, value_fn, **extra):
        seen.append((step.dtype, value is loss, sorted(grad), callable(value_fn), sorted(extra)))
        return updates, state

    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    trainer = classifier(tmp_path, Regressor, Linear, exmp_input=line(4), optimizer_hparams=tx)
    trainer.train_model(lines(), num_epochs=1)
    assert seen[0][:4] == (jnp.int32, True, ["Dense_0"], True)


def test_scalars_are_an_error_where_an_optimizer_cannot_train_them() -> None:
    tx = bx.optim.build({"optimizer": "sm3"}, 10).tx
    with pytest.raises(OptimizerError, match=r"parameter a/temperature of shape \[\].*\[1\]"):
        tx.init({"a": {"temperature": jnp.ones(()), "w": jnp.ones(3)}})


class Parts(bx.TrainerModule):
    """Two linear layers that are added; what is in the batch's third array goes to the first."""

    def loss_function(self, model, batch, train):
        inputs, targets, offset = batch
        error = (model(inputs) - targets)[:, 0] ** 2
        kernel = model.params.get("actor", {"kernel": jnp.zeros(1)})["kernel"]  # as it is made
        return error + jnp.sqrt(offset * (kernel**2).sum())


def parts_of(tmp_path, folder: str, offset: float, hparams: Any, **options: Any) -> Any:
    inputs, targets = line(16)
    batch = inputs, targets, np.full(16, offset, np.float32)
    trainer = classifier(
        tmp_path / folder,
        Parts,
        ActorCritic,
        exmp_input=batch,
        optimizer_hparams=hparams,
        loop=bx.LoopOptions(log_norms=True, **options),
    )
    return trainer, [batch, batch]


FROZEN: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "schedule": "constant",
    "l2_regularization": 0.3,
    "freeze": "actor/",
}


def by_hand(params: Any, batch: Any) -> dict[str, Any]:
    """One step of the critic alone, in NumPy, with its gradients clipped at a norm of 1."""
    inputs, targets, _ = (np.asarray(x, np.float64) for x in batch)
    own = {name: np.asarray(x, np.float64) for name, x in params["critic"].items()}
    actor = {name: np.asarray(x, np.float64) for name, x in params["actor"].items()}
    outputs = inputs @ (own["kernel"] + actor["kernel"]) + own["bias"] + actor["bias"]
    error = 2 * (outputs - targets) / len(inputs)
    squares = sum((x**2).sum() for x in own.values())
    grads = {"kernel": inputs.T @ error, "bias": error.sum(0)}
    grads = {name: grad + 0.3 * own[name] for name, grad in grads.items()}
    norm = np.sqrt(sum((x**2).sum() for x in grads.values()))
    new = {name: own[name] - 0.1 * min(1, 1 / norm) * grads[name] for name in own}
    return {
        "critic": new,
        "grad_norm": norm,
        "l2_penalty": 0.5 * 0.3 * squares,
        "param_norm": np.sqrt(sum((x**2).sum() for x in new.values())),
        "update_norm": np.sqrt(sum(((new[n] - own[n]) ** 2).sum() for n in own)),
    }


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize(
    "hparams",
    [
        FROZEN,
        {
            "optimizers": {
                "actor": {"optimizer": "sgd", "lr": 1.0, "freeze": "^kernel"},
                "critic": {"optimizer": "sgd", "lr": 1.0},
            }
        },
    ],
    ids=["one", "by name"],
)
def test_every_number_is_that_of_the_parameters_which_are_trained(
    tmp_path, hparams, microbatches
) -> None:
    trainer, batches = parts_of(tmp_path, "a", 0.0, hparams, microbatches=microbatches)
    if hparams is not FROZEN:  # the frozen kernel's gradient is NaN: 0 * inf
        trainer.train_model(batches, num_epochs=1)
        assert np.isfinite(trainer.run.history[-1]["train/grad_norm"])
        return
    expected = by_hand(jax.device_get(trainer.state.params), batches[0])
    trainer.train_model(batches[:1], num_epochs=1)
    row = trainer.run.history[-1]
    for name in ("grad_norm", "l2_penalty", "param_norm", "update_norm"):
        assert row[f"train/{name}"] == pytest.approx(expected[name], rel=1e-5), name
    after = jax.device_get(trainer.state.params)["critic"]
    for name, value in expected["critic"].items():
        np.testing.assert_allclose(after[name], value, rtol=1e-5)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_gradient_of_a_frozen_part_that_is_not_finite_stops_and_skips_nothing(
    tmp_path, policy
) -> None:
    """The root has an infinite slope at 0, and 0 times that is NaN."""
    trainer, batches = parts_of(tmp_path, "a", 0.0, FROZEN, on_nonfinite=policy)
    before = jax.device_get(trainer.state.params)
    trainer.train_model(batches, num_epochs=1)
    after = jax.device_get(trainer.state.params)
    assert int(trainer.state.step) == 2
    assert not np.array_equal(after["critic"]["kernel"], before["critic"]["kernel"])
    np.testing.assert_array_equal(after["actor"]["kernel"], before["actor"]["kernel"])


class OfCritic(bx.TrainerModule):
    """Steps of one's own, with a loss of the critic alone and without a metric `grad_norm`."""

    def create_functions(self):
        def loss_of(params, batch):
            return ((batch[0] @ params["critic"]["kernel"] - batch[1]) ** 2).mean()

        def train_step(state, batch):
            loss, grads = jax.value_and_grad(loss_of)(state.params, batch)
            return state.apply_gradients(grads=grads), {"loss": loss}

        return train_step, lambda state, batch: {"loss": loss_of(state.params, batch)}


@pytest.mark.parametrize("debug", [False, True])
def test_a_frozen_parameter_that_is_not_finite_does_not_stop_steps_of_ones_own(
    tmp_path, debug
) -> None:
    options = {"exmp_input": [line(4)[0]], "debug": debug}
    hparams = {name: value for name, value in FROZEN.items() if name != "l2_regularization"}
    trainer = classifier(tmp_path, OfCritic, ActorCritic, optimizer_hparams=hparams, **options)
    actor = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), trainer.state.params["actor"])
    trainer.state = trainer.state.replace(params={**trainer.state.params, "actor": actor})
    trainer.train_model(lines(), num_epochs=1)
    assert int(trainer.state.step) == 4
