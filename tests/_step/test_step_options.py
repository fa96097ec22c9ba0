"""Options of the step together: bitwise the same fused and resumed; norms; nothing when off."""

import jax
import numpy as np
import optax
import pytest

import boltax as bx
from boltax._inspect._replay import replay
from boltax._loop._saving import state_tree
from boltax.errors import NonFiniteError
from boltax.models._vmap import Vmap
from boltax.testing import assert_resumes_exactly
from dummies import (
    Classifier,
    EqxMlp,
    GuideRegressor,
    Linear,
    NnxMlp,
    classes,
    classifier,
    line,
    loader,
    to_host,
)

ALL = {"microbatches": 3, "precision": "fp16", "ema": 0.9, "log_norms": "layers"}
ALL["log_every"] = 3


class Steep(Classifier):
    """Its first steps overflow in float16."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return 20 * loss, metrics

    def on_gradients(self, gradients, *, loss, state, updates):
        halved = jax.tree.map(lambda leaf: leaf / 2, gradients)
        return halved, {"ahead": optax.tree.norm(updates(halved))}


def make(folder, **options):
    return classifier(
        "unused",
        Steep,
        loop=bx.LoopOptions(**{"steps_per_execution": 1, **ALL, **options}),
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
    )


def test_all_of_them_resume_bitwise_within_an_epoch(tmp_path):
    assert_resumes_exactly(
        make, lambda: [loader(50, 8, shuffle=True), loader(20, 8)], interrupt_at=9, folder=tmp_path
    )


def test_all_of_them_are_fused_without_a_difference(tmp_path):
    single, fused = make(tmp_path / "a"), make(tmp_path / "b", steps_per_execution=3)
    for trainer in (single, fused):
        trainer.train_model(loader(50, 8), num_epochs=1)
    trees = [to_host(state_tree(t.state.replace(rng=None))) for t in (single, fused)]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    assert int(single.state.loss_scale.overflows) > 0


@pytest.mark.parametrize(
    ("model_class", "hparams"), [(NnxMlp, {}), (Vmap(EqxMlp), {"mode": "batch"})]
)
def test_all_of_them_work_with_other_kinds_of_models(tmp_path, model_class, hparams):
    loop = bx.LoopOptions(**{**ALL, "precision": "bf16"})
    trainer = classifier(tmp_path, model_class=model_class, model_hparams=hparams, loop=loop)
    data = loader(48, 8)
    trainer.train_model(data, data, num_epochs=6)
    assert trainer.run.history[-1]["val/acc"] > 0.8
    assert np.isfinite(trainer.run.history[-1]["train/update_norm"])


@pytest.mark.parametrize("own", [False, True], ids=["loss", "own steps"])
def test_norms_are_those_of_the_parameters_and_their_change(tmp_path, own):
    x, y = line(16)
    loop = bx.LoopOptions(log_norms=True)
    if own:
        trainer = classifier(tmp_path, GuideRegressor, Linear, exmp_input=[x[:4]], loop=loop)
        batch = x, y
    else:
        trainer, batch = classifier(tmp_path, loop=loop), classes(16)
    before = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trainer.state.params)])
    trainer.train_model([batch], num_epochs=1)
    after = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trainer.state.params)])
    row = trainer.run.history[-1]
    assert row["train/param_norm"] == pytest.approx(np.linalg.norm(after), rel=1e-5)
    assert row["train/update_norm"] == pytest.approx(np.linalg.norm(after - before), rel=1e-4)


def test_a_step_that_is_not_finite_is_replayed_with_them(tmp_path):
    bad = classes(8)
    bad[0][3] = np.nan
    trainer = make(tmp_path)
    with pytest.raises(NonFiniteError, match="step 2"):
        trainer.train_model([classes(8), bad], num_epochs=1)
    assert "The first NaN" in replay(tmp_path, Steep)


def test_a_step_without_options_has_nothing_of_them(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(1, 1)
    assert trainer.state.ema is None
    assert trainer.state.loss_scale is None
    assert not {"ema", "loss_scale"} & state_tree(trainer.state).keys()  # as in older checkpoints
    _, metrics = trainer.train_step(trainer.state, jax.device_put(classes(8)))
    assert metrics.keys() == {"loss", "acc", "grad_norm"}
