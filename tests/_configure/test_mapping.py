"""Arguments as a mapping: strict YAML, files of ml_collections, and options of a command line."""

from pathlib import Path

import pytest

from boltax._configure._mapping import changed, flat, parse, read_mapping, write_mapping
from boltax.errors import ConfigurationError

pytest.importorskip("yaml")


@pytest.mark.parametrize(
    "text, value",
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("7", 7),
        (".inf", float("inf")),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
        ("'3'", "3"),
        ("null", None),
        ("[1, 2.0]", [1, 2.0]),
        ("00:01:00", "00:01:00"),
    ],
)
def test_values_are_what_they_look_like(text, value):
    found = parse(text, "here")
    assert (found, type(found)) == (value, type(value))


BAD = {
    "a tab": ("a:\n\tb: 1", r"c\.yaml:2 with a tab at its beginning.*Indent with spaces"),
    "a key twice": ("a: 1\nb: 2\na: 3", r"c\.yaml:3 with the key 'a' a second time"),
    "a key twice inside": ("x:\n  a: 1\n  a: 3", r"c\.yaml:3 with the key 'a' a second time"),
    "an object": ("a: !!python/object/apply:os.getcwd []", "makes no objects"),
    "an open bracket": ("a: [1", r"c\.yaml:1 with"),
    "a list": ("- 1", "holds list; expected names with values"),
    "numbers as names": ("1: 2", "expected names with values"),
}


@pytest.mark.parametrize("text, message", BAD.values(), ids=BAD)
def test_a_bad_file_is_told_with_its_line(text, message):
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_mapping("c.yaml")


def test_options_take_the_place_of_values_and_leave_the_file_as_it_is():
    mapping = {"optimizer_hparams": {"lr": 1.0, "optimizer": "sgd"}, "seed": 1}
    found = changed(mapping, ["--optimizer_hparams.lr", "3e-4", "--loop.ema=0.9", "--seed", "-2"])
    assert dict(flat(found)) == {
        "optimizer_hparams.lr": 3e-4,
        "optimizer_hparams.optimizer": "sgd",
        "loop.ema": 0.9,
        "seed": -2,
    }
    assert mapping["optimizer_hparams"]["lr"] == 1.0


@pytest.mark.parametrize(
    "options, message",
    [
        (["--seed"], "--seed without a value"),
        (["--seed", "--debug"], "--seed without a value"),
        (["seed", "1"], "'seed' among the options"),
        (["--seed.x", "1"], "but seed is 1"),
        (["--x", "[1"], "--x:1 with"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigurationError, match=message):
        changed({"seed": 1}, options)


def test_a_file_of_ml_collections():
    pytest.importorskip("ml_collections")
    Path("config.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'optimizer_hparams': {'lr': 0.1}, 'seed': 3})\n"
    )
    for name in ("config.py", "config.py:get_config"):
        assert read_mapping(name) == {"optimizer_hparams": {"lr": 0.1}, "seed": 3}


def test_what_is_written_is_read_again():
    mapping = {"a": {"b": (1, 2.5, None)}, "c": "3e-4", "d": 3e-4, "e": "yes", "f": True}
    write_mapping(Path("c.yaml"), mapping, "a head")
    assert read_mapping("c.yaml") == {**mapping, "a": {"b": [1, 2.5, None]}}
