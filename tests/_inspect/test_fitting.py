"""A step that is made to fit into the memory, before anything runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._inspect._fitting import Fitting, Way, form_of
from boltax.errors import ConfigurationError, UnknownNameError
from boltax.tune import Population
from dummies import Mlp, classes, classifier, loader

BATCH, WIDTH = 4, 8


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.tanh(nn.Dense(WIDTH)(x)))


class Deep(nn.Module):
    """Whose activations are much larger than its parameters."""

    @nn.compact
    def __call__(self, x):
        x = jnp.repeat(x[:, None], 256, 1)
        for _ in range(2):
            x = Block()(x)
        return nn.Dense(3)(x.mean(1))


def trainer(folder, **loop):
    return classifier(
        folder,
        model_class=Deep,
        optimizer_hparams={"optimizer": "sgd", "lr": 0.1, "schedule": "constant"},
        logger_params={"log_dir": str(folder), "logger_type": "none"},
        loop=bx.LoopOptions(sanity_check=False, steps_per_execution=1, **loop),
        exmp_input=classes(BATCH),
        checkpoint=bx.CheckpointOptions(keep_last=0),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trainer without a bound, and what each way needs."""
    one = trainer(tmp_path_factory.mktemp("whole"))
    return one, one.fitting(classes(BATCH), 10**9)


def test_all_ways_are_compiled_and_shown(whole):
    one, found = whole
    ways = {(way.microbatches, way.remat): way for way in found.ways}
    assert {remat for _, remat in ways} == {None, "full"}
    assert sorted({number for number, _ in ways}) == [1, 2, 4]
    plain = one.preflight(classes(BATCH))
    assert (ways[1, None].needed, ways[1, None].flops) == (plain.needed, plain.flops)
    assert ways[4, None].needed < ways[2, None].needed < ways[1, None].needed
    assert ways[4, None].flops == ways[1, None].flops < ways[1, "full"].flops
    assert found.chosen == ways[1, None]
    assert "           1   None" in str(found)
    assert "fits, and is taken" in str(found)


def test_the_fastest_that_fits_is_taken_and_trains_alike(whole, tmp_path, caplog, capsys):
    one, found = whole
    memory = next(w.needed for w in found.ways if (w.microbatches, w.remat) == (2, None))
    fitted = trainer(tmp_path, microbatches="auto", remat="auto", memory=memory)
    for each in (one, fitted):
        each.train_model(loader(BATCH, BATCH), num_epochs=2)
    assert (fitted.loop.microbatches, fitted.loop.remat) == (2, None)
    pairs = zip(*(jax.tree.leaves(each.state.params) for each in (one, fitted)), strict=True)
    for left, right in pairs:
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_what_cannot_fit_says_what_would_before_the_first_step(whole, tmp_path):
    _, found = whole
    memory = next(w.needed for w in found.ways if (w.microbatches, w.remat) == (4, None))
    bounded = trainer(tmp_path, memory=memory)
    with pytest.raises(ConfigurationError) as told:
        bounded.train_model(loader(BATCH, BATCH), num_epochs=1)
    text = str(told.value)
    assert "does not fit into" in text
    assert "Write LoopOptions(microbatches=4, remat=None), or" in text
    assert f'parallel="fsdp" for the {jax.device_count()} devices here' in text
    assert "           2   None" in text
    assert bounded.state.tx is None  # nothing has begun
    hopeless = trainer(tmp_path / "hopeless", microbatches="auto", memory=1000)
    with pytest.raises(ConfigurationError, match="find_batch_size"):
        hopeless.train_model(loader(BATCH, BATCH), num_epochs=1)


def test_without_a_bound_batches_stay_whole(tmp_path):
    one = trainer(tmp_path, microbatches="auto", remat="auto")
    one.train_model(loader(BATCH, BATCH), num_epochs=1)
    assert (one.loop.microbatches, one.loop.remat) == (1, None)


def test_batches_stay_whole_where_batch_norm_would_see_a_part(tmp_path):
    one = classifier(tmp_path, model_class=Mlp)
    found = one.fitting(classes(16), 1)
    assert {way.microbatches for way in found.ways} == {1}
    assert found.notes == ("batches stay whole: BatchNorm would normalise by the part",)
    assert found.chosen is None


def test_the_batch_is_that_of_a_loader_in_memory(whole):
    one, _ = whole
    inputs, labels = form_of(loader(40, 16), one)
    assert (inputs.shape, labels.shape) == ((16, 4), (16,))
    assert form_of([classes(3)], one) is one.exmp_input


def test_of_equal_operations_the_fewest_parts_are_taken():
    ways = (Way(1, "full", 5, 30, True), Way(4, None, 5, 20, True), Way(2, None, 9, 20, False))
    assert Fitting("Net", 8, 6, ways).chosen == ways[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"microbatches": "aut"}, "Did you mean 'auto'"),
        ({"remat": "ful"}, "Did you mean 'full'"),
        ({"memory": 0}, "at least 1"),
        ({"microbatches": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options, told):
    with pytest.raises((ConfigurationError, UnknownNameError), match=told):
        bx.LoopOptions(**options)


def test_members_ask_for_numbers(tmp_path):
    with pytest.raises(ConfigurationError, match="for a population; expected numbers"):
        Population(trainer(tmp_path, remat="auto"), [{"seed": 1}])
