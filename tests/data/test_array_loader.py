"""ArrayLoader: orders by (seed, epoch), epochs by number, checks when it is made."""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.data import ArrayLoader
from boltax.errors import ConfigurationError, DataError


class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass
class Example:
    x: np.ndarray
    y: np.ndarray


X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def ys(pairs):
    return [batch.tolist() for batch, _ in pairs]


@pytest.mark.parametrize(
    "arrays", [(X, Y), [X, Y], {"x": X, "y": Y}, Pair(X, Y), Example(X, Y), {"a": ({"b": X}, Y)}]
)
def test_any_structure_is_kept(arrays):
    batches = list(ArrayLoader(arrays, batch_size=4))
    assert {type(batch) for batch in batches} == {type(arrays)}
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    jax.tree.map(np.testing.assert_array_equal, whole, arrays)


def test_single_array_gives_arrays():
    assert [b.tolist() for b in ArrayLoader(Y, batch_size=4)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_order_is_a_function_of_seed_and_epoch():
    loader, again = (ArrayLoader(Y, 3, shuffle=True, seed=7) for _ in range(2))
    assert ys(loader.epoch(5)) == ys(again.epoch(5))
    assert ys(loader.epoch(5)) != ys(loader.epoch(6))
    assert ys(loader.epoch(5)) != ys(ArrayLoader(Y, 3, shuffle=True, seed=8).epoch(5))


def test_order_does_not_change_between_versions():
    """A resumed run meets the order of the run that was stopped, maybe by an older boltax."""
    loader = ArrayLoader(np.arange(8), 8, shuffle=True, seed=1)
    assert loader.order(1).tolist() == [6, 1, 4, 0, 3, 2, 5, 7]


def test_epoch_holds_every_example_once():
    batches = ys(ArrayLoader(Y, 3, shuffle=True).epoch(1))
    assert sorted(itertools.chain(*batches)) == Y.tolist()
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


def test_leaves_are_shuffled_together():
    for batch in ArrayLoader({"x": X, "y": Y}, 3, shuffle=True):
        np.testing.assert_array_equal(batch["x"], X[batch["y"]])


def test_start_in_the_middle_gives_what_is_left():
    loader = ArrayLoader(Y, 3, shuffle=True, seed=3)
    assert ys(loader.epoch(2, after={"epoch": 2, "batch": 2})) == ys(loader.epoch(2))[2:]
    assert [cursor["batch"] for _, cursor in loader.epoch(2, after={"epoch": 2, "batch": 2})] == [
        3,
        4,
    ]


def test_each_iteration_is_a_further_epoch():
    loader = ArrayLoader(Y, 3, shuffle=True)
    iterated = [[b.tolist() for b in loader] for _ in range(2)]
    assert iterated == [ys(loader.epoch(1)), ys(loader.epoch(2))]


def test_iterations_by_hand_leave_the_epochs_alone():
    loader = ArrayLoader(Y, 3, shuffle=True)
    before = ys(loader.epoch(1))
    next(iter(loader))
    assert ys(loader.epoch(1)) == before


def test_drop_last_leaves_out_the_partial_batch():
    loader = ArrayLoader(Y, 4, drop_last=True)
    assert len(loader) == 2
    assert [len(batch) for batch in loader] == [4, 4]


def test_drop_last_keeps_a_full_last_batch():
    assert len(ArrayLoader(Y, 5, drop_last=True)) == len(ArrayLoader(Y, 5)) == 2


def test_batches_cannot_be_used_to_change_the_arrays():
    batch = next(iter(ArrayLoader(Y, 4)))
    with pytest.raises(ValueError, match="read-only"):
        batch += 1
    shuffled = next(iter(ArrayLoader(Y, 4, shuffle=True)))
    shuffled += 1
    assert Y.tolist() == list(range(10))
    assert Y.flags.writeable


def test_only_shuffled_batches_are_new_memory():
    assert np.shares_memory(next(iter(ArrayLoader(Y, 4))), Y)
    assert not ArrayLoader(Y, 4).owns_batches
    assert ArrayLoader(Y, 4, shuffle=True).owns_batches


def test_arrays_that_are_not_contiguous_are_shuffled_right():
    x = np.asfortranarray(X)
    for batch in ArrayLoader((x, Y), 3, shuffle=True):
        np.testing.assert_array_equal(batch[0], X[batch[1]])


def test_jax_arrays_are_converted_once():
    loader = ArrayLoader({"x": jnp.arange(6)}, 4)
    assert type(loader.arrays["x"]) is np.ndarray
    assert [batch["x"].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5]]


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    batches = list(ArrayLoader(torch.arange(5), 4, shuffle=True))
    assert {type(batch) for batch in batches} == {np.ndarray}
    assert sorted(np.concatenate(batches).tolist()) == list(range(5))


def test_memory_maps_are_read_in_pieces(tmp_path):
    np.save(tmp_path / "y.npy", Y)
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    loader = ArrayLoader(mapped, 4)
    assert np.shares_memory(loader.arrays, mapped)
    assert [len(batch) for batch in loader] == [4, 4, 2]


def test_fingerprint_tells_settings_apart():
    prints = [
        ArrayLoader(Y, 4).fingerprint(),
        ArrayLoader(Y, 5).fingerprint(),
        ArrayLoader(Y, 4, shuffle=True).fingerprint(),
        ArrayLoader(Y, 4, seed=1).fingerprint(),
        ArrayLoader(Y[:9], 4).fingerprint(),
    ]
    assert all(a != b for i, a in enumerate(prints) for b in prints[:i])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((X, Y[:9]), r"arrays\[1\]: int64\[9\]; expected .* same number of examples"),
        (np.zeros((0, 3)), r"float64\[0, 3\]; expected .*at least 1"),
        ({}, r"arrays: no arrays; expected at least one array"),
        ([1.0, 2.0], r"arrays\[0\]: float64\[\], .*write np.asarray"),
        ({"x": X, "name": np.array(["a"] * 10)}, r"arrays\['name'\]: <U1\[10\].* Leave text out"),
        (np.array([[1], [1, 2]], dtype=object), r"object\[2\].* Pad rows of unequal length"),
    ],
)
def test_unusable_arrays_are_refused(arrays, message):
    with pytest.raises(DataError, match=message):
        ArrayLoader(arrays, 2)


def test_drop_last_without_a_full_batch_is_refused():
    message = r"batch_size=16, drop_last=True\) with 10 examples.*Use drop_last=False"
    with pytest.raises(DataError, match=message):
        ArrayLoader(Y, 16, drop_last=True)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 2.5}, {"batch_size": True}, {"seed": -1}]
)
def test_numbers_out_of_range_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ConfigurationError, match=rf"{name}={value}\); expected a whole number"):
        ArrayLoader(Y, **{"batch_size": 2, **options})


def test_subclass_is_refused():
    with pytest.raises(ConfigurationError, match=r"subclass Augmented.*Pass a function instead"):
        type("Augmented", (ArrayLoader,), {})


def test_arrays_one_by_one_are_told_to_be_a_tuple():
    message = (
        r"ArrayLoader\(float64\[10, 2\], int64\[10\], \.\.\.\).*\(\(inputs, labels\), batch_size"
    )
    with pytest.raises(ConfigurationError, match=message):
        ArrayLoader(X, Y, 64)


def test_a_misspelt_option_is_told_the_right_one():
    with pytest.raises(ConfigurationError, match=r"'shufle'.*Did you mean 'shuffle'"):
        ArrayLoader(X, 4, shufle=True)
