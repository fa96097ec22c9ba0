"""A last batch with fewer examples: counted exactly, and not compiled for where that can be."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.data import ArrayLoader

SIZE = 16


class Mlp(nn.Module):
    is_mixing: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        if self.is_mixing:  # an example's output depends on the others in its batch
            x = x - x.mean(0, keepdims=True)
        return nn.Dense(3)(nn.relu(x))


class Classifier(bx.TrainerModule):
    """Notes each trace of its evaluation, by the size of the batch."""

    def __init__(self, *args, **kwargs):
        self.traces = []
        super().__init__(*args, **kwargs)

    def loss_function(self, model, batch, train):
        inputs, labels = batch
        if not train:
            self.traces.append(len(labels))
        logits = model(inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


class WithMean(Classifier):
    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss.mean(), metrics


class WithPair(Classifier):
    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {**metrics, "per_one": (batch[0].sum(), (batch[1] == 1).sum())}


def arrays(number):
    rng = np.random.default_rng(number)
    inputs = rng.normal(size=(number, 4)).astype(np.float32)
    return inputs, rng.integers(0, 3, number).astype(np.int32)


def trainer_of(cls, folder, *, is_mixing=False, steps_per_execution=1):
    return cls(
        Mlp,
        {"is_mixing": is_mixing},
        exmp_input=arrays(SIZE),
        logger_params={"base_log_dir": str(folder)},
        loop=bx.LoopOptions(steps_per_execution=steps_per_execution),
        enable_progress_bar=False,
    )


def batches_of(data):
    return [tuple(a[i : i + SIZE] for a in data) for i in range(0, len(data[0]), SIZE)]


LOADERS = {
    "arrays": lambda data: ArrayLoader(data, SIZE),
    "arrays on the device": lambda data: ArrayLoader(data, SIZE, device_resident=True),
    "shuffled": lambda data: ArrayLoader(data, SIZE, shuffle=True),
    "a list": batches_of,
}


def by_hand(trainer, data):
    """The mean loss and accuracy, from the step of each batch as it is."""
    parts = [
        (len(b[1]), jax.device_get(trainer.eval_step(trainer.state, b))) for b in batches_of(data)
    ]
    return {
        name: sum(size * np.mean(part[name], dtype=np.float64) for size, part in parts)
        / len(data[0])
        for name in ("loss", "acc")
    }


def sizes_traced(trainer, loader):
    trainer.traces.clear()
    metrics = trainer.eval_model(loader)
    return metrics, set(trainer.traces)


@pytest.mark.parametrize("steps", [1, 3, "auto"])
@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("number", [65, 79])
def test_a_smaller_batch_is_filled_up_and_not_compiled_for(tmp_path, kind, steps, number):
    data = arrays(number)
    trainer = trainer_of(Classifier, tmp_path, steps_per_execution=steps)
    metrics, sizes = sizes_traced(trainer, LOADERS[kind](data))
    again, none = sizes_traced(trainer, LOADERS[kind](data))
    assert sizes == {SIZE}
    assert none == set()
    assert metrics == again
    assert metrics == pytest.approx(by_hand(trainer, data), rel=1e-6)


@pytest.mark.parametrize("cls", [WithMean, WithPair])
def test_metrics_of_a_whole_batch_are_those_of_the_batch_as_it_is(tmp_path, cls):
    data = arrays(70)
    trainer = trainer_of(cls, tmp_path)
    metrics, sizes = sizes_traced(trainer, ArrayLoader(data, SIZE))
    assert sizes == {SIZE, 70 % SIZE}
    expected = by_hand(trainer, data)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    if cls is WithPair:
        ratio = data[0].sum(dtype=np.float64) / (data[1] == 1).sum()
        assert metrics["per_one"] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_model_that_mixes_examples_sees_no_others(tmp_path, kind):
    data = arrays(67)
    trainer = trainer_of(Classifier, tmp_path, is_mixing=True)
    loader = LOADERS[kind](data)
    _, sizes = sizes_traced(trainer, loader)
    assert sizes == {SIZE, 67 % SIZE}
    if kind != "shuffled":  # whose batches are others
        assert trainer.eval_model(loader) == pytest.approx(by_hand(trainer, data), rel=1e-6)


def test_batches_of_several_sizes_are_each_counted_once(tmp_path):
    data = arrays(4 * SIZE)
    cuts = [(0, 16), (16, 32), (32, 35), (35, 51), (51, 52), (52, 64)]
    batches = [tuple(a[i:j] for a in data) for i, j in cuts]
    trainer = trainer_of(Classifier, tmp_path)
    metrics, sizes = sizes_traced(trainer, batches)
    assert sizes == {SIZE}
    assert metrics == pytest.approx(by_hand(trainer, data), rel=1e-6)


def test_a_larger_batch_and_other_shapes_are_compiled_for(tmp_path):
    data = arrays(48)
    trainer = trainer_of(Classifier, tmp_path)
    _, sizes = sizes_traced(trainer, [tuple(a[:16] for a in data), tuple(a[16:] for a in data)])
    assert sizes == {16, 32}
