"""A batch in parts gives the update and the metrics of the whole batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import boltax as bx
from boltax._step._bodies import accumulate
from boltax._step._state import variables_of
from boltax.errors import ConfigurationError, LossError
from boltax.metrics import confusion_matrix
from boltax.metrics._accumulate import compute, empty_like, nothing
from dummies import Classifier, GuideRegressor, Linear, Plain, classes, classifier, to_host

SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}


class NnxPlain(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


class Weighted(bx.TrainerModule):
    """Metrics of all kinds; the loss in the form that an attribute names."""

    form = "examples"

    def loss_function(self, model, batch, train):
        inputs, labels = batch
        logits = model(inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        weight = (labels + 1).astype(jnp.float32)  # some examples count more than others
        metrics = {
            "acc": logits.argmax(-1) == labels,
            "scalar": loss.mean(),
            "vector": logits,
            "pair": ((weight * loss).sum(), weight.sum()),
            "confusion": confusion_matrix(logits.argmax(-1), labels, 3),
        }
        pair = (weight * loss).sum(), weight.sum()
        return {"examples": loss, "scalar": loss.mean(), "pair": pair}[self.form], metrics


def form_of(form):
    return type("Weighted", (Weighted,), {"form": form})


def one_step(folder, examples, microbatches, **options):
    """The parameters and the metrics after one step with a batch of some examples."""
    loop = bx.LoopOptions(microbatches=microbatches)
    trainer = classifier(
        folder, **{"optimizer_hparams": SGD, "model_class": Plain, "loop": loop, **options}
    )
    trainer.init_optimizer(1, 1)
    state, metrics = trainer.train_step(trainer.state, jax.device_put(classes(examples)))
    empty = empty_like(nothing())
    return to_host(variables_of(state)), compute(accumulate(empty, metrics, examples))


def assert_close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), left, right)


@pytest.mark.parametrize(
    ("form", "examples", "parts"),
    [("pair", 12, 3), ("examples", 10, 4), ("scalar", 10, 4), ("pair", 10, 4), ("examples", 2, 4)],
)
def test_parts_give_the_update_and_the_metrics_of_the_whole(tmp_path, form, examples, parts):
    whole = one_step(tmp_path, examples, 1, trainer_class=form_of(form))
    split = one_step(tmp_path, examples, parts, trainer_class=form_of(form))
    assert whole[1].keys() == split[1].keys()
    assert_close(split, whole)


@pytest.mark.parametrize("model_class", [Plain, NnxPlain], ids=["linen", "nnx"])
def test_clipping_decay_and_the_penalty_act_once_on_the_whole(tmp_path, model_class):
    hparams = {**SGD, "gradient_clip": 0.1, "l2_regularization": 0.5}
    options = {"model_class": model_class, "optimizer_hparams": hparams}
    whole, split = (one_step(tmp_path, 10, parts, **options) for parts in (1, 3))
    assert_close(split, whole)
    assert whole[1]["l2_penalty"] > 0


def test_a_line_search_sees_the_loss_of_the_whole_batch(tmp_path):
    options = {"optimizer_hparams": {"optimizer": "lbfgs"}}
    whole, split = (one_step(tmp_path, 10, parts, **options) for parts in (1, 3))
    assert_close(split[0], whole[0])


def test_a_loss_of_a_pair_is_the_mean_over_what_it_counts(tmp_path):
    _, metrics = one_step(tmp_path, 12, 1, trainer_class=form_of("pair"))
    assert metrics["loss"] == pytest.approx(metrics["pair"], rel=1e-6)
    assert metrics["loss"] != pytest.approx(metrics["scalar"], rel=1e-3)


def test_a_part_that_counts_nothing_changes_nothing(tmp_path):
    class Masked(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            counted = (batch[1] == 0).astype(loss.dtype)
            return ((loss * counted).sum(), counted.sum()), metrics

    labels = np.array([0, 1, 0, 1], np.int32)  # every second example: one part has none that counts
    batch = classes(4)[0], labels
    trainers = []
    for parts in (1, 2):
        loop = bx.LoopOptions(microbatches=parts)
        trainer = classifier(tmp_path, Masked, Plain, optimizer_hparams=SGD, loop=loop)
        trainer.train_model([batch], num_epochs=1)
        trainers.append(trainer)
    assert_close(*(to_host(trainer.state.params) for trainer in trainers))


def test_a_loss_that_is_no_pair_of_scalars_is_refused(tmp_path):
    class Wrong(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return (loss, jnp.float32(3)), metrics

    with pytest.raises(LossError, match=r"float32\[4\], float32\[\].*pair \(total, count\)"):
        classifier(tmp_path, Wrong)


def test_statistics_go_from_part_to_part_and_each_draws_its_own_numbers(tmp_path):
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))

    class Drawing(Classifier):
        def loss_function(self, model, batch, train):
            loss, _ = super().loss_function(model, batch, train)
            number = jax.random.uniform(model.rng("a"))
            return loss, {"mean": number, "square": number**2}

    variables, metrics = one_step(tmp_path, 8, 2, model_class=Norm, trainer_class=Drawing)
    mean = np.zeros(4)
    for part in (classes(8)[0][0::2], classes(8)[0][1::2]):
        mean = 0.5 * mean + 0.5 * part.mean(0)
    np.testing.assert_allclose(variables["batch_stats"]["BatchNorm_0"]["mean"], mean, rtol=1e-5)
    assert metrics["square"] - metrics["mean"] ** 2 > 1e-6


def test_convolutions_on_a_cpu_get_no_loop(tmp_path):
    class Conv(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.Conv(2, (2,))(x[..., None]).mean(1))

    programs = {}
    for model in (Conv, Plain):
        loop = bx.LoopOptions(microbatches=2)
        trainer = classifier(tmp_path, model_class=model, loop=loop, optimizer_hparams=SGD)
        trainer.init_optimizer(1, 1)
        programs[model] = trainer.train_step.lower(trainer.state, classes(8)).as_text()
    assert "stablehlo.while" in programs[Plain]
    assert (jax.default_backend() != "cpu") == ("stablehlo.while" in programs[Conv])
    whole, split = (one_step(tmp_path, 8, parts, model_class=Conv) for parts in (1, 2))
    assert_close(split, whole)


def test_own_steps_and_microbatches_exclude_each_other(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"microbatches=2\) for GuideRegressor.*Write loss_function"
    ):
        classifier(tmp_path, GuideRegressor, Linear, loop=bx.LoopOptions(microbatches=2))
