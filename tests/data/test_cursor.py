"""Cursors as JSON: what comes back is equal, and hostile text makes nothing but an error."""

import json
import math
import random

import numpy as np
import pytest

from boltax.data._cursor import cursor_from_json, cursor_to_json
from boltax.errors import CheckpointError, DataError

PLACE = {"epoch": 1, "batch": 2}


def there_and_back(value):
    text = json.dumps(cursor_to_json({**PLACE, "state": value}), allow_nan=False)
    return cursor_from_json(json.loads(text))["state"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1, 2.5, "a", True, {"b": [None]}],
        (1, (2, "x"), []),
        {1: "a", (2, 3): b"\x00\xff"},
        {"__kind__": "bytes", "data": "!"},
        {1, "a", (2,)},
        2**127,
        -math.inf,
        random.Random(1).getstate(),
    ],
)
def test_plain_values_come_back_equal(value):
    assert there_and_back(value) == value


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "complex64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_come_back_with_dtype_and_shape(dtype, shape):
    array = np.ones(shape, dtype)
    back = there_and_back(array)
    assert (back.dtype, back.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(back, array)


def test_tensors_come_back():
    torch = pytest.importorskip("torch")
    state = torch.Generator().manual_seed(3).get_state()
    assert torch.equal(there_and_back({"generator": state})["generator"], state)


def test_what_has_no_json_form_is_named():
    message = r"cursor\['state'\]\[0\] of type object.*Leave it out"
    with pytest.raises(DataError, match=message):
        there_and_back([object()])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"epoch": 1},
        {"epoch": "1", "batch": 1},
        {"epoch": 1, "batch": -1},
        *(
            {**PLACE, "x": {"__kind__": kind, **rest}}
            for kind, rest in [
                ("pickle", {"data": "gASVAAAA"}),
                ("array", {"dtype": "object", "shape": [1], "data": "AAAAAAAAAAA="}),
                ("array", {"dtype": "float32", "shape": [2**70], "data": "AAAAAA=="}),
                ("array", {"dtype": "float32", "shape": [10**9], "data": "AAAAAA=="}),
                ("array", {"dtype": "(1000000,)f4", "shape": [1], "data": ""}),
                ("array", {"dtype": 3, "shape": [1], "data": ""}),
                ("bytes", {"data": "not base64!"}),
                ("set", {"items": [[1]]}),
                ("dict", {"items": [1]}),
                ("tuple", {}),
                ([], {}),
            ]
        ),
    ],
)
def test_what_is_no_cursor_is_refused(value):
    with pytest.raises(CheckpointError, match="expected a place in the training data"):
        cursor_from_json(value)


def test_too_many_levels_are_refused():
    value = []
    for _ in range(500):
        value = [value]
    with pytest.raises(CheckpointError, match="too many levels"):
        cursor_from_json({**PLACE, "x": value})
