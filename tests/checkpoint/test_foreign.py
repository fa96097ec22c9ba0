"""Weights from elsewhere: files and folders, names and layouts by rules, and what does not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import struct
from safetensors.numpy import save_file

from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._rules import LAYOUTS, parse_rules, targets
from boltax.checkpoint._sources import open_foreign
from boltax.errors import BoltaxError, CheckpointError, ConfigurationError, UnknownNameError

RNG = np.random.default_rng(0)
STORED = {
    "net.0.weight": RNG.normal(size=(5, 4)).astype(np.float32),
    "net.0.bias": np.arange(5, dtype=np.float32),
    "norm.running_mean": np.ones(5, np.float32),
    "norm.num_batches_tracked": np.array(3),
}
LIKE = {
    "params": {
        "Dense_0": {"kernel": np.zeros((4, 5), np.float32), "bias": np.zeros(5, np.float32)}
    },
    "batch_stats": {"norm": {"mean": np.zeros(5, np.float32)}},
}
RULES = [
    (r"net\.(\d)\.weight", r"Dense_\1/kernel", "linear"),
    (r"net\.(\d)\.bias", r"Dense_\1/bias"),
    (r"norm\.running_mean", "batch_stats/norm/mean"),
    (r".*num_batches_tracked", None),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(STORED, path)
    return path


KERNEL = STORED["net.0.weight"].T


def assert_loaded(variables) -> None:
    dense = variables["params"]["Dense_0"]
    np.testing.assert_array_equal(dense["kernel"], STORED["net.0.weight"].T)
    np.testing.assert_array_equal(dense["bias"], STORED["net.0.bias"])
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], np.ones(5))


def test_a_file_and_its_folder_are_loaded_by_rules(file) -> None:
    for place in (file, file.parent):
        variables, differences = load_variables(place, LIKE, rules=RULES)
        assert_loaded(variables)
        assert differences == []


def test_several_files_are_found_by_their_index(tmp_path) -> None:
    names = list(STORED)
    files = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for name, own in files.items():
        save_file({n: STORED[n] for n in own}, tmp_path / name)
    weight_map = {n: name for name, own in files.items() for n in own}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for place in (index, tmp_path):
        assert_loaded(load_variables(place, LIKE, rules=RULES)[0])
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors, which does not exist"):
        load_variables(index, LIKE, rules=RULES)
    weight_map["norm.running_mean"] = "a.safetensors"
    del weight_map["norm.num_batches_tracked"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"norm\.running_mean is in a\.safetensors"):
        load_variables(index, LIKE, rules=RULES)
    for wrong in ({"weight_map": {"x": "../../secret"}}, {"weight_map": {}}, []):
        index.write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match="expected"):
            load_variables(index, LIKE)


@pytest.mark.parametrize("manager", [False, True])
def test_folders_of_orbax_are_loaded_in_part(tmp_path, manager) -> None:
    tree = {
        "params": {"net.0": [jnp.asarray(STORED["net.0.weight"]), jnp.arange(5.0)]},
        "opt": (jnp.ones(1000), {"step": 3}),
        "stats": {"mean": jnp.ones(5)},
    }
    if manager:
        with ocp.CheckpointManager(tmp_path / "run") as saver:
            saver.save(7, args=ocp.args.StandardSave(tree))
    else:
        with ocp.StandardCheckpointer() as saver:
            saver.save(tmp_path / "run", tree)
    rules = [
        (r"params/net\.0/0", "Dense_0/kernel", "linear"),
        (r"params/net\.0/1", "Dense_0/bias"),
        (r"stats/mean", "batch_stats/norm/mean"),
        (r"opt/.*", None),
    ]
    place = tmp_path / "run" / "7" if manager else tmp_path / "run"
    assert_loaded(load_variables(place, LIKE, rules=rules)[0])
    if manager:
        (metadata,) = place.glob("default/_METADATA")
        metadata.write_text("{")
        with pytest.raises(CheckpointError, match="which orbax cannot read"):
            load_variables(place, LIKE, rules=rules)


@struct.dataclass
class KauldronState:
    """What Kauldron stores of a training, in its default item."""

    step: jax.Array
    params: dict
    opt_state: tuple
    collections: dict


def test_a_folder_as_kauldron_writes_it(tmp_path) -> None:
    params = {"backbone": {"Dense_0": {"kernel": KERNEL, "bias": jnp.arange(5.0)}}}
    state = KauldronState(
        step=jnp.asarray(7),
        params=params,
        opt_state=(jax.tree.map(jnp.zeros_like, params),),
        collections={"batch_stats": {"backbone": {"norm": {"mean": jnp.ones(5)}}}},
    )
    options = ocp.CheckpointManagerOptions(step_prefix="ckpt")
    with ocp.CheckpointManager(tmp_path / "checkpoints", options=options) as saver:
        items = {"default": ocp.args.StandardSave(state), "timer": ocp.args.JsonSave({"s": 3})}
        saver.save(7, args=ocp.args.Composite(**items))
    rules = [
        (r"params/backbone/(.*)", r"\1"),
        (r"collections/batch_stats/backbone/(.*)", r"batch_stats/\1"),
        (r"(step|opt_state)(/.*)?", None),
    ]
    (place,) = (tmp_path / "checkpoints").glob("ckpt_*7")
    assert_loaded(load_variables(place, LIKE, rules=rules)[0])


def test_a_folder_as_maxtext_writes_it(tmp_path) -> None:
    """Parameters twice below their name, layers one by one or stacked along their second axis."""
    stacked = jnp.stack([KERNEL, KERNEL + 1], axis=1)
    decoder = {"layers": {"mlp": {"wi": {"kernel": stacked}}}, "norm": {"scale": jnp.ones(5)}}
    params = {"params": {"decoder": decoder, "head": {"bias": jnp.arange(5.0)}}}
    state = {"step": jnp.asarray(7), "params": params, "opt_state": {"mu": params}}
    with ocp.CheckpointManager(tmp_path / "checkpoints", item_names=("items",)) as saver:
        saver.save(7, args=ocp.args.Composite(items=ocp.args.PyTreeSave(state)))
    rules = [
        (r"params/params/decoder/layers/mlp/wi/kernel", "Dense_0/kernel", lambda x: x[:, 0]),
        (r"params/params/decoder/norm/scale", "batch_stats/norm/mean"),
        (r"params/params/head/bias", "Dense_0/bias"),
        (r"(step|opt_state)(/.*)?", None),
    ]
    for place in (tmp_path / "checkpoints" / "7", tmp_path / "checkpoints" / "7" / "items"):
        assert_loaded(load_variables(place, LIKE, rules=rules)[0])


def test_names_as_the_model_has_them_need_no_rules(tmp_path) -> None:
    save_file({"Dense_0.bias": np.ones(5, np.float32)}, tmp_path / "a.safetensors")
    variables, found = load_variables(tmp_path / "a.safetensors", LIKE, partial=True)
    np.testing.assert_array_equal(variables["params"]["Dense_0"]["bias"], np.ones(5))
    assert {(d.kind, d.names) for d in found} == {
        ("missing", ("params", "Dense_0/kernel")),
        ("missing", ("batch_stats", "norm/mean")),
    }


def test_what_differs_is_a_table_and_nothing_is_cast(file) -> None:
    wrong = [(r"net\.(\d)\.weight", r"Dense_\1/kernel"), *RULES[1:3]]
    with pytest.raises(CheckpointError, match=r"(?s)after the rules:.*Write rules=") as error:
        load_variables(file, LIKE, rules=wrong)
    rows = [line.split() for line in str(error.value).splitlines()]
    assert ["shape", "params/Dense_0/kernel", "float32[5,", "4]", "float32[4,", "5]"] in rows
    assert ["unexpected", "params/norm/num_batches_tracked", "int64[]", "-"] in rows
    half = {name: a.astype(np.float16) if a.ndim else a for name, a in STORED.items()}
    save_file(half, file)
    with pytest.raises(CheckpointError, match=r"dtype +params/Dense_0/kernel +float16"):
        load_variables(file, LIKE, rules=RULES)
    asked = [(*rule[:2], [*rule[2:], "float32"]) if rule[1] else rule for rule in RULES]
    loaded = load_variables(file, LIKE, rules=asked)[0]["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(loaded, STORED["net.0.weight"].T.astype(np.float16))
    assert loaded.dtype == np.float32


def test_a_file_that_is_cut_short_is_damaged(file) -> None:
    content = file.read_bytes()
    for size in (0, 5, 40, len(content) - 4):
        file.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"cannot be read .*cut short or damaged"):
            load_variables(file, LIKE, rules=RULES)
    with pytest.raises(CheckpointError, match=r"which does not exist"):
        load_variables(file.with_name("none.safetensors"), LIKE)


def test_names_that_match_nothing_are_told_with_those_that_there_are(file) -> None:
    with pytest.raises(CheckpointError, match=r"none of which has a name of the model's: .*net\.0"):
        load_variables(file, LIKE)
    with pytest.raises(UnknownNameError, match=r"matches the whole of no name.*such as net\.0\."):
        load_variables(file, LIKE, rules=[(r"nets\.0\.weight", "Dense_0/kernel")])
    with pytest.raises(UnknownNameError, match="all matched by rules before it"):
        load_variables(file, LIKE, rules=[(".*", None), *RULES])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("a", "expected a list of"),
        ([("a",)], r"the rule \('a',\); expected"),
        ([("(", "b")], r"missing \)"),
        ([("a", r"\1")], "invalid group reference"),
        ([("a", "b", "liner")], "Did you mean 'linear'"),
        ([(r"net\.0\..*", "x")], "are both named x"),
    ],
)
def test_rules_that_are_none_are_refused(file, rules, message) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError), match=message):
        load_variables(file, LIKE, rules=rules)
    with pytest.raises(ConfigurationError, match="expected rules alone"):
        load_variables(file, LIKE, rules=RULES, rename={"a": "b"})


def test_layouts_are_those_of_pytorch() -> None:
    conv = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # [out, in, height, width]
    laid = LAYOUTS["conv"](conv, ())
    assert laid.shape == (4, 5, 3, 2)
    assert laid[3, 4, 2, 1] == conv[1, 2, 3, 4]
    assert LAYOUTS["conv"](conv[..., 0], ()).shape == (4, 3, 2)
    assert LAYOUTS["embedding"](conv, ()) is conv
    heads = LAYOUTS["reshape"](np.arange(24).reshape(4, 6), (4, 2, 3))
    assert heads[1, 1, 2] == 11


def test_one_array_may_go_to_several_names_in_equal_parts() -> None:
    rules = parse_rules([("qkv", ["q", "k", "v"], ("linear", "reshape"))])
    found = targets(["qkv"], rules)
    stored = np.arange(24).reshape(6, 4)
    parts = {name: target.laid_out(stored, (4, 1, 2)) for name, target in found.items()}
    np.testing.assert_array_equal(parts["k"][:, 0, :], stored[2:4].T)
    assert list(parts) == ["q", "k", "v"]
    with pytest.raises(ConfigurationError, match=r"3 names for qkv, an array of shape \(4, 6\)"):
        found["q"].laid_out(stored.T, (4, 1, 2))


def test_a_function_lays_out_too_and_a_folder_with_several_is_asked_about(file) -> None:
    rules = [(r"net\.0\.bias", "Dense_0/bias", lambda array: array[::-1]), (r".*\.[wrn].*", None)]
    variables, _ = load_variables(file, LIKE, rules=rules, partial=True)
    np.testing.assert_array_equal(variables["params"]["Dense_0"]["bias"], np.arange(5.0)[::-1])
    save_file(STORED, file.with_name("other.safetensors"))
    with pytest.raises(CheckpointError, match=r"several sets of weights: model\.safetensors"):
        open_foreign(file.parent)
    assert open_foreign(file.parent / "nothing") is None
    with pytest.raises(BoltaxError, match="nothing"):
        load_variables(file.parent / "nothing", LIKE)
