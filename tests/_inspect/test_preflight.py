"""Preflight: the figures of the very step that training runs, and nothing executed or changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import boltax as bx
from boltax._base._chunks import Mode
from boltax._inspect._batch_size import largest_within
from boltax._inspect._found import Arrays
from boltax._step._bodies import Training
from boltax.errors import ConfigurationError, DataError
from dummies import Classifier, GuideRegressor, Linear, NnxMlp, classes, classifier, line, to_host


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def test_counts_what_the_trainer_holds(tmp_path):
    found = classifier(tmp_path).preflight(classes(16))
    assert found.parameters == Arrays(4 * 8 + 8 + 2 * 8 + 8 * 3 + 3, 4 * 83)
    assert found.collections == Arrays(16, 64)  # mean and variance of BatchNorm
    assert found.optimizer.nbytes >= 2 * found.parameters.nbytes  # Adam's two moments
    assert found.batch == Arrays(16 * 4 + 16, 4 * 80)


def test_counts_the_operations_of_both_passes(tmp_path):
    found = classifier(tmp_path).preflight(classes(16))
    forward = 2 * 16 * (4 * 8 + 8 * 3)
    first_has_no_gradient_of_its_inputs = 2 * 16 * (4 * 8)
    assert found.flops == 3 * forward - first_has_no_gradient_of_its_inputs
    assert found.flops_per_example == found.flops / 16


def test_the_peak_counts_memory_that_is_taken_over_once(tmp_path):
    trainer = classifier(tmp_path)
    found = trainer.preflight(classes(16))
    state = found.parameters.nbytes + found.collections.nbytes + found.optimizer.nbytes
    assert state < found.peak < 2 * state + found.batch.nbytes + found.temporaries


def test_the_state_and_the_metrics_are_donated(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model([classes(16)], num_epochs=1)
    metrics = jax.eval_shape(lambda m: m, trainer.run.metrics.epoch[0])
    program = trainer._made.steps.train.programs[Mode.SINGLE]
    compiled = program.lower((), Training(trainer.state, metrics), classes(16)).compile()
    memory, results = compiled.memory_analysis(), jax.tree.leaves(compiled.out_info)
    not_donated = memory.output_size_in_bytes - memory.alias_size_in_bytes
    assert not_donated <= 1 + 8 * len(results)  # whether the step was finite, and pointers


def test_runs_nothing_and_changes_nothing(tmp_path):
    trainer = classifier(tmp_path)
    before = to_host(trainer.state.params)
    with jax.transfer_guard("disallow"):
        trainer.preflight(shapes(classes(16)))
    assert trainer.run is None
    assert trainer.state.tx is None
    jax.tree.map(np.testing.assert_array_equal, before, to_host(trainer.state.params))


def test_shapes_tell_the_same_as_arrays(tmp_path):
    trainer = classifier(tmp_path)
    one, other = trainer.preflight(classes(16)), trainer.preflight(shapes(classes(16)))
    assert (one.peak, one.flops, one.batch) == (other.peak, other.flops, other.batch)


def test_the_same_before_and_after_training(tmp_path):
    trainer = classifier(tmp_path)
    before = trainer.preflight(classes(16))
    trainer.train_model([classes(16)], num_epochs=1)
    after = trainer.preflight(classes(16))
    assert (before.peak, before.optimizer) == (after.peak, after.optimizer)


@pytest.mark.parametrize("model_class", [Linear, NnxMlp], ids=["linen", "nnx"])
def test_every_kind_of_model(tmp_path, model_class):
    found = classifier(tmp_path, model_class=model_class, model_hparams={}).preflight(classes(16))
    assert found.fits
    assert found.flops > 0


def test_steps_of_the_users_own(tmp_path):
    trainer = classifier(tmp_path, GuideRegressor, Linear, exmp_input=[line(4)[0]])
    assert trainer.preflight(line(32)).parameters == Arrays(5, 20)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return jnp.tanh(nn.Dense(4)(x)), None


class Deep(nn.Module):
    """The same layer, as often as `depth` says, in a scan."""

    depth: int = 8

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
        )
        return nn.Dense(3)(layers()(x, None)[0])


def test_layers_in_a_scan_count_as_often_as_they_run(tmp_path):
    shallow, deep = (
        classifier(tmp_path, model_class=Deep, model_hparams={"depth": n}).preflight(classes(16))
        for n in (2, 8)
    )
    assert deep.flops - shallow.flops == 6 * 3 * 2 * 16 * 4 * 4


def test_the_table_says_what_fits(tmp_path):
    found = classifier(tmp_path).preflight(classes(16))
    text = str(found)
    assert text.startswith("Classifier, batches of 16, on cpu")
    assert "fits: " in text
    assert f"{found.parameters.count}  " in text


def test_a_device_that_is_too_small(tmp_path):
    from dataclasses import replace

    found = replace(classifier(tmp_path).preflight(classes(16)), memory=1000)
    assert found.fits is False
    assert "DOES NOT FIT" in str(found)


@pytest.mark.parametrize(
    "options, match",
    [({"debug": True}, "with debug=True, whose steps boltax does not compile")],
)
def test_steps_that_are_not_compiled(tmp_path, options, match):
    with pytest.raises(ConfigurationError, match=match):
        classifier(tmp_path, **options).preflight(classes(16))


def test_a_batch_whose_arrays_disagree(tmp_path):
    inputs, labels = classes(16)
    with pytest.raises(DataError, match="16"):
        classifier(tmp_path).preflight((inputs, labels[:5]))


def test_find_batch_size_finds_the_largest_that_fits(tmp_path):
    trainer = classifier(tmp_path)
    limit = trainer.preflight(classes(100)).needed
    size = trainer.find_batch_size(classes(4), limit=limit)
    needed = trainer.preflight(classes(size)).needed
    assert needed <= limit
    assert 92 <= size <= 100
    assert trainer.state.tx is None


def test_find_batch_size_goes_no_further_than_asked(tmp_path):
    assert classifier(tmp_path).find_batch_size(classes(4), largest=40) == 40


def test_find_batch_size_where_nothing_fits(tmp_path):
    with pytest.raises(ConfigurationError, match=r"which needs .* for a batch of one example"):
        classifier(tmp_path).find_batch_size(classes(4), limit=100)


@pytest.mark.parametrize("slope", [0.5, 3.0, 200.0])
@pytest.mark.parametrize("start", [1, 32, 5000])
def test_few_sizes_are_compiled(slope, start):
    asked = []

    def needed(size):
        asked.append(size)
        return 10_000 + slope * size + 40 * (size % 7)  # nearly a straight line

    size, _ = largest_within(needed, 50_000, start, 10**6)
    assert needed(size) <= 50_000
    assert needed(size + max(9, size // 18)) > 50_000
    assert len(asked) <= 14


def test_the_speed_in_the_log_has_the_operations(tmp_path):
    loop = bx.LoopOptions(log_every=4, steps_per_execution=1)
    trainer = classifier(tmp_path, Classifier, loop=loop)
    expected = trainer.preflight(classes(8)).flops
    logged = []
    trainer.log_metrics = lambda metrics, step: logged.append(dict(metrics))
    trainer.train_model([classes(8)] * 12, num_epochs=1)
    speeds = [row for row in logged if "speed/flops_per_second" in row]
    assert len(speeds) == 2  # the first record holds compiling
    for row in speeds:
        rate = row["speed/flops_per_second"] / row["speed/steps_per_second"]
        assert rate == pytest.approx(expected)
