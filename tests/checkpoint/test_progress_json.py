import json
import math
import random
import struct

import numpy as np
import pytest

from boltax.checkpoint._files import read_json, write_json
from boltax.checkpoint._progress_json import decode_progress, encode_progress
from boltax.errors import CheckpointError


def through_a_file(value, path):
    write_json(path, {"progress": encode_progress(value)})
    return decode_progress(read_json(path)["progress"])


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text", {}, []], "ä": {"": [{"lone": "\udcff"}]}},
        {"nan": "nan", "inf": ["inf", math.inf, -math.inf]},
        {"__float__": "nan", "__key__": {"__key____float__": 1.0}, "__": 0},
        {"big": 2**200, "negative": -(2**70)},
    ],
)
def test_a_value_comes_back_equal(tmp_path, value):
    again = through_a_file(value, tmp_path / "x.json")
    assert again == value
    assert repr(again) == repr(value)


def test_nan_comes_back_wherever_it_is(tmp_path):
    again = through_a_file({"a": [math.nan, {"b": math.nan}]}, tmp_path / "x.json")
    assert math.isnan(again["a"][0])
    assert math.isnan(again["a"][1]["b"])


def test_floats_come_back_bit_for_bit(tmp_path):
    draw = random.Random(0)
    floats = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(2000)]
    floats = [0.0, -0.0, 5e-324, 0.1, *(x for x in floats if math.isfinite(x)), np.float64(0.3)]
    again = through_a_file(floats, tmp_path / "x.json")
    assert [x.hex() for x in again] == [x.hex() for x in floats]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [np.float32(1)]}, r"float32.* as progress\['a'\]\[0\] .*\.tolist\(\)"),
        ({"a": np.zeros(3)}, r"array.* as progress\['a'\]"),
        ({3: 1}, "3: 1"),
        ({"a": (1, 2)}, r"\(1, 2\) as progress\['a'\]"),
        pytest.param(10**5000, "16,610 bits as progress", id="more digits than Python reads"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place(value, message):
    with pytest.raises(CheckpointError, match=message):
        encode_progress(value)


def test_a_value_that_is_too_deep_to_be_read_is_not_written():
    value: list = []
    value.append(value)
    with pytest.raises(CheckpointError, match="at most 95 levels"):
        encode_progress(value)


@pytest.mark.parametrize("stored", ['{"__float__": "1e5"}', '{"__float__": "nan", "a": 1}'])
def test_other_tags_are_refused(stored):
    with pytest.raises(CheckpointError, match=r"in progress\.json; expected one of the words"):
        decode_progress([json.loads(stored)])
