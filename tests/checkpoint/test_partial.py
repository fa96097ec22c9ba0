import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint import _partial
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import CheckpointError, ConfigurationError, UnknownNameError


def variables(value, *, head=2):
    return {
        "params": {
            "encoder": {"w": jnp.full((3, 4), value), "b": jnp.full(4, value)},
            "head": {"w": jnp.full((4, head), value)},
        },
        "batch_stats": {"encoder": {"mean": jnp.full(4, value)}},
    }


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    BestCheckpoints(run.best).save(3, variables(3.0), {})
    BestCheckpoints(run.saved).save(4, variables(4.0), {})
    saved = variables(5.0)
    state = {
        "step": jnp.int32(5),
        "params": saved["params"],
        "batch_stats": saved["batch_stats"],
        "collections": {"cache": {"index": jnp.int32(7)}},
        "opt_state": [saved["params"]],
        "rng": jax.random.key(0),
    }
    arrays = {"state": state, "interval": None, "epoch": [jnp.ones(2)]}
    ResumeCheckpoints(run.resume).save(5, arrays, {})
    return run.path


def values(tree):
    return {float(np.asarray(leaf).flat[0]) for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize(
    ("checkpoint", "value"), [("", 3.0), ("checkpoints/best/3", 3.0), ("checkpoints/saved/4", 4.0)]
)
def test_all_variables_are_loaded(run, checkpoint, value):
    loaded, found = load_variables(run / checkpoint, variables(0.0))
    assert jax.tree.structure(loaded) == jax.tree.structure(variables(0.0))
    assert (values(loaded), found) == ({value}, [])


def test_a_resume_checkpoint_gives_the_variables_of_its_state(run):
    like = variables(0.0) | {"cache": {"index": jnp.int32(0)}}
    loaded, _ = load_variables(run / "checkpoints/resume/5", like)
    assert values(loaded) == {5.0, 7.0}
    assert int(loaded["cache"]["index"]) == 7


def test_one_collection_is_loaded_and_the_others_stay(run):
    for only in (("params",), "params"):
        loaded, _ = load_variables(run, variables(0.0), only=only)
        assert (values(loaded["params"]), values(loaded["batch_stats"])) == ({3.0}, {0.0})


def test_only_what_is_needed_is_read(run, monkeypatch):
    read = []
    original = _partial.read_leaves
    monkeypatch.setattr(
        _partial, "read_leaves", lambda *args: read.extend(args[1]) or original(*args)
    )
    load_variables(run / "checkpoints/resume/5", variables(0.0), only=("batch_stats",))
    assert read == [("state", "batch_stats", "encoder", "mean")]


def test_names_are_mapped(run):
    saved = variables(0.0)
    like = {
        "params": {"net": {"backbone": saved["params"]["encoder"]}, "out": saved["params"]["head"]},
        "batch_stats": {"net": {"backbone": saved["batch_stats"]["encoder"]}},
    }
    loaded, _ = load_variables(run, like, rename={"encoder": "net/backbone", "head": "out"})
    assert values(loaded) == {3.0}
    inside = {"params": {"net": saved["params"]}}
    assert values(load_variables(run, inside, only="params", rename={"": "net"})[0]) == {3.0}


def test_the_longest_name_counts_and_names_are_whole(run):
    like = {"params": {"a": {"w": jnp.zeros((3, 4))}, "b": {"kept": jnp.zeros(4)}}}
    like["params"]["head"] = variables(0.0)["params"]["head"]
    rename = {"encoder": "a", "encoder/b": "b/kept"}
    assert values(load_variables(run, like, only="params", rename=rename)[0]) == {3.0}
    with pytest.raises(UnknownNameError, match=r"to rename 'enc'; expected one of: .*encoder"):
        load_variables(run, like, rename={"enc": "a"})


def test_a_difference_is_an_error_with_a_table(run):
    like = variables(0.0, head=7)
    like["params"]["encoder"] = {"w": jnp.zeros((3, 4), jnp.bfloat16), "more": jnp.zeros(1)}
    with pytest.raises(CheckpointError, match="Write partial=True") as caught:
        load_variables(run, like)
    rows = [line.split() for line in str(caught.value).splitlines()]
    assert ["shape", "params/head/w", "float32[4,", "2]", "float32[4,", "7]"] in rows
    assert ["dtype", "params/encoder/w", "float32[3,", "4]", "bfloat16[3,", "4]"] in rows
    assert ["missing", "params/encoder/more", "-", "float32[1]"] in rows
    assert ["unexpected", "params/encoder/b", "float32[4]", "-"] in rows


def test_what_fits_is_taken_and_the_rest_stays(run):
    loaded, found = load_variables(run, variables(0.0, head=7), partial=True)
    assert values(loaded["params"]["encoder"]) == values(loaded["batch_stats"]) == {3.0}
    assert values(loaded["params"]["head"]) == {0.0}
    assert [(each.kind, each.saved, each.wanted) for each in found] == [
        ("shape", "float32[4, 2]", "float32[4, 7]")
    ]


def test_misspelt_names_suggest_the_right_ones(run):
    with pytest.raises(UnknownNameError, match="Did you mean 'batch_stats'"):
        load_variables(run, variables(0.0), only=("batch_stat",))
    with pytest.raises(UnknownNameError, match="Did you mean 'encoder'"):
        load_variables(run, variables(0.0), rename={"encodr": "net"})


def test_two_arrays_of_one_name_are_refused(run):
    with pytest.raises(ConfigurationError, match="two arrays of the checkpoint are named params/"):
        load_variables(run, variables(0.0), rename={"head": "encoder"})


def test_no_checkpoint_says_what_there_is(run, tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; expected the folder of a run"):
        load_variables(tmp_path, variables(0.0))
    with pytest.raises(CheckpointError, match="holds only the steps 4"):
        load_variables(run / "checkpoints/saved/9", variables(0.0))


def test_a_damaged_checkpoint_is_refused(run):
    (run / "checkpoints/best/3/structure.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"which is damaged: structure\.json"):
        load_variables(run, variables(0.0))


def test_of_a_list_of_checkpoints_the_equal_mean_is_loaded(run):
    folders = [run / "checkpoints/best/3", run / "checkpoints/saved/4", run / "checkpoints/saved/4"]
    loaded, found = load_variables(folders, variables(0.0))
    assert (values(loaded), found) == ({np.float32(11 / 3)}, [])
    like = variables(0.0, head=5)
    partly, found = load_variables(folders, like, partial=True)
    assert values(partly["params"]["head"]) == {0.0}
    assert values(partly["params"]["encoder"]) == {np.float32(11 / 3)}
    assert len(found) == 1
    counted = variables(0.0) | {"cache": {"index": jnp.int32(0)}}
    latest, _ = load_variables([run / "checkpoints/resume/5"] * 2, counted)
    assert latest["cache"]["index"].dtype == jnp.int32
    with pytest.raises(CheckpointError, match="empty list of checkpoints"):
        load_variables([], like)
