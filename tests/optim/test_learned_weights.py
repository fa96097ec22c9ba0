"""Tests of `boltax.optim._learned_weights`: what is loaded, and what is refused."""

import numpy as np
import pytest
from flax import serialization

from boltax import optim
from boltax.errors import OptimizerError
from boltax.optim._learned_weights import VARIABLE, load_weights
from learned_weights import MAKERS, NAMES, PUBLISHED, arrays, nested, write, write_all

each_optimizer = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def no_weights_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@each_optimizer
@pytest.mark.parametrize("as_checkpoint", [False, True])
def test_both_published_forms_give_every_array(name, as_checkpoint, tmp_path):
    wanted = arrays(PUBLISHED[name])
    found = load_weights(
        PUBLISHED[name], write(tmp_path / "file", wanted, as_checkpoint=as_checkpoint)
    )
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array)


@each_optimizer
def test_weights_are_found_by_folder_variable_and_cache(name, tmp_path, monkeypatch):
    write_all(tmp_path / "given")
    MAKERS[name](10, tmp_path / "given")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "given"))
    MAKERS[name](10)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    write_all(tmp_path / "cache" / "boltax" / "learned_optimizers")
    MAKERS[name](10)


@each_optimizer
def test_a_copy_of_the_published_folders_is_found(name, tmp_path):
    write(tmp_path / PUBLISHED[name].files[1], arrays(PUBLISHED[name]))
    MAKERS[name](10, tmp_path)


@each_optimizer
def test_without_weights_the_error_says_where_to_get_and_to_put_them(name, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    with pytest.raises(OptimizerError, match=r"Received no weights .*The project ") as caught:
        MAKERS[name](10)
    text = str(caught.value)
    for part in (
        VARIABLE,
        "weights=PATH",
        str(tmp_path / "own"),
        str(tmp_path / "cache" / "boltax" / "learned_optimizers"),
        *PUBLISHED[name].files,
    ):
        assert part in text


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(OptimizerError, match=r"Received weights='nowhere/velo\.params'"):
        optim.velo(10, "nowhere/velo.params")


def test_wrong_shapes_are_a_table_of_found_and_expected(tmp_path):
    found = arrays(PUBLISHED["celo"])
    found["rnn_params/step_size/w"] = found["rnn_params/step_size/w"].T
    found["ff_mod_stack/~/b1"] = found["ff_mod_stack/~/b1"].astype(np.float16)
    found["ff_mod_stack/~/w9"] = found["ff_mod_stack/~/w1"]
    del found["lstm_init_state/cell"]
    with pytest.raises(OptimizerError, match="whose arrays are others") as caught:
        optim.celo(10, write(tmp_path / "file", found))
    rows = [" ".join(line.split()) for line in str(caught.value).splitlines()[1:]]
    assert rows == [
        "array found expected",
        "lstm_init_state/cell - float32[1, 8]",
        "ff_mod_stack/~/b1 float16[1, 4] float32[1, 4]",
        "rnn_params/step_size/w float32[1, 8] float32[8, 1]",
        "ff_mod_stack/~/w9 float32[1, 4, 4] -",
    ]


@pytest.mark.parametrize("own, other", [("velo", "celo"), ("celo", "velo"), ("celo_adam", "celo")])
def test_weights_of_another_optimizer_are_refused(own, other, tmp_path):
    path = write(tmp_path / "file", arrays(PUBLISHED[other]))
    with pytest.raises(OptimizerError, match=f"optimizer '{own}', whose arrays are others"):
        MAKERS[own](10, path)


def test_a_file_that_holds_one_array_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(serialization.msgpack_serialize(np.ones(3, np.float32)))
    with pytest.raises(OptimizerError, match=r"\(top\) +float32\[3\] +-"):
        optim.celo(10, tmp_path / "file")


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "pickle"])
def test_a_damaged_file_is_refused(kind, tmp_path):
    whole = serialization.msgpack_serialize(nested(arrays(PUBLISHED["celo"])))
    content = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"weights",
        "pickle": b"\x80\x04K\x01.",
    }[kind]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(OptimizerError, match=r"cannot be read|whose arrays are others"):
        optim.celo(10, tmp_path / "file")
