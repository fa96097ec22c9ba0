import json

import pytest

import checkpoint_project as project
from boltax._base._options import LoopOptions
from boltax.checkpoint._decode import decode
from boltax.checkpoint._files import read_json
from boltax.checkpoint._names import Lookup
from boltax.errors import CheckpointError

LOOKUP = Lookup(project.Trainer)


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    project.CALLS.clear()


HOSTILE = [
    {"__name__": "os:system"},
    {"__name__": "jax:os"},
    {"__name__": "flax.linen:nn.os.system"},
    {"__name__": "__import__"},
    {"__name__": "trainer:system"},
    {"__name__": "trainer:Popen"},
    {"__name__": "jax.numpy:load"},
    {"__name__": ["os", "system"]},
    {"__name__": {"__name__": "flax.linen:relu"}},
    {"__name__": 3},
    {"__name__": "flax.linen:relu", "args": ["x"]},
    {"__name__": "flax.linen:relu", "__tuple__": []},
    {"__reduce__": ["os:system", "ls"]},
    {"__class__": "x"},
    {"__tuple__": "abc"},
    {"__tuple__": {"a": 1}},
    {"__float__": "1e999"},
    {"__float__": 3},
    {"__path__": 3},
    {"__path__": ["a"]},
    {"__dtype__": "O"},
    {"__dtype__": "V1000000000"},
    {"__scalar_type__": "object"},
    {"__type__": "eval"},
    {"__type__": "object"},
    {"__type__": []},
    {"__enum__": ["trainer:Mode", "__class__"]},
    {"__enum__": ["trainer:Mode", "NONE"]},
    {"__enum__": ["trainer:Mlp", "features"]},
    {"__enum__": ["trainer:Mode"]},
    {"__enum__": 3},
    {"__dataclass__": {"name": "trainer:Popen", "fields": {"args": "ls"}}},
    {"__dataclass__": {"name": "trainer:Mlp", "fields": {"features": 3}}},
    {"__dataclass__": {"name": "trainer:Trainer", "fields": {"model_class": 3}}},
    {"__dataclass__": {"name": "trainer:run_anything", "fields": {}}},
    {"__dataclass__": {"name": "trainer:Widths", "fields": {"first": 1}}},
    {"__dataclass__": {"name": "trainer:Widths", "fields": {"__class__": 1, "rest": 1}}},
    {"__dataclass__": {"name": "boltax:LoopOptions", "fields": {"log_every": -1}}},
    {"__dataclass__": {"name": "boltax:LoopOptions", "fields": {"evil": 1}}},
    {"__dataclass__": {"name": "boltax:TrainerModule", "fields": {}}},
    {"__dataclass__": {"name": "flax.linen:Dense", "fields": {"features": 3}}},
    {"__dataclass__": "trainer:Widths"},
    {"__module__": {"name": "trainer:Popen", "fields": {"args": "ls"}}},
    {"__module__": {"name": "trainer:Mlp", "fields": {"__class__": 3}}},
    {"__module__": {"name": "flax.linen:relu", "fields": {}}},
    {"__module__": {"name": "flax.linen:Dense", "fields": {"parent": 3}}},
    {"__module__": "flax.linen:Dense"},
    {"__partial__": {"name": "trainer:run_anything", "args": [], "kwargs": {}}},
    {"__partial__": {"name": "os:system", "args": ["ls"], "kwargs": {}}},
    {"__partial__": {"name": "jax.numpy:load", "args": ["x"], "kwargs": {"allow_pickle": True}}},
    {"__partial__": {"name": "flax.linen:relu", "args": "x", "kwargs": {}}},
    {"__partial__": {"name": "flax.linen:relu"}},
    {"__array__": {"dtype": "float32", "shape": [2], "values": [1]}},
    {"__array__": {"dtype": "float32", "shape": [-1], "values": [1]}},
    {"__array__": {"dtype": "float32", "shape": [True], "values": [1]}},
    {"__array__": {"dtype": "float32", "shape": [10**12], "values": []}},
    {"__array__": {"dtype": "float32", "shape": [0, 10**30], "values": []}},
    {"__array__": {"dtype": "float32", "shape": [1] * 100, "values": [1]}},
    {"__array__": {"dtype": "O", "shape": [1], "values": [1]}},
    {"__array__": {"dtype": "int8", "shape": [1], "values": [1000]}},
    {"__array__": {"dtype": "int8", "shape": [1], "values": [10**40]}},
    {"__array__": {"dtype": "float32", "shape": [1], "values": [None]}},
    {"__array__": {"dtype": "float32", "shape": [1], "values": [[1]]}},
    {"__array__": {"dtype": "float32", "shape": [1001], "values": [0] * 1001}},
    {"__array__": []},
    {"__not_stored__": 3},
    {"__tuple__": [], "a": 1},
    float("inf"),
    float("nan"),
]


@pytest.mark.parametrize("value", HOSTILE, ids=[json.dumps(v)[:60] for v in HOSTILE])
def test_what_encode_does_not_write_is_refused_and_runs_nothing(value):
    with pytest.raises(CheckpointError, match="Received"):
        decode({"a": [value]}, LOOKUP)
    assert not project.CALLS


def test_an_error_names_the_place():
    with pytest.raises(CheckpointError, match=r"at model_hparams\['a'\]\[1\]"):
        decode({"a": [1, {"__tuple__": 3}]}, LOOKUP, "model_hparams")


def test_a_dataclass_is_made_without_its_code():
    stored = {"name": "trainer:Widths", "fields": {"first": 1, "rest": {"__tuple__": []}}}
    decoded = decode({"__dataclass__": stored}, LOOKUP)
    assert not project.CALLS
    assert decoded == project.Widths(1, ())


def test_options_from_an_older_version_get_the_defaults_of_this_one():
    stored = {"__dataclass__": {"name": "boltax:LoopOptions", "fields": {"log_every": 7}}}
    assert decode(stored, LOOKUP) == LoopOptions(log_every=7)


def test_fields_that_have_changed_are_named():
    stored = {"name": "trainer:Widths", "fields": {"first": 1, "third": 2}}
    with pytest.raises(CheckpointError, match=r"with the fields \['first', 'third'\]; expected"):
        decode({"__dataclass__": stored}, LOOKUP)


def test_a_deep_value_is_refused(tmp_path):
    value = 1
    for _ in range(500):
        value = [value]
    with pytest.raises(CheckpointError, match="more than 64 levels"):
        decode(value, LOOKUP)
    (tmp_path / "hparams.json").write_text('{"__tuple__":[' * 2000 + "]}" * 2000)
    with pytest.raises(CheckpointError, match="nested more than 100 levels"):
        read_json(tmp_path / "hparams.json")


def test_huge_numbers_are_refused_or_exact(tmp_path):
    (tmp_path / "hparams.json").write_text('{"a": 1e999}')
    with pytest.raises(CheckpointError, match=r"inf at hparams\['a'\]"):
        decode(read_json(tmp_path / "hparams.json"), LOOKUP)
    (tmp_path / "hparams.json").write_text('{"a": ' + "9" * 300 + "}")
    assert decode(read_json(tmp_path / "hparams.json"), LOOKUP) == {"a": 10**300 - 1}


def test_the_same_tag_twice_is_refused(tmp_path):
    (tmp_path / "hparams.json").write_text('{"__tuple__": [1], "__tuple__": [2]}')
    with pytest.raises(CheckpointError, match="a key occurs twice"):
        read_json(tmp_path / "hparams.json")
