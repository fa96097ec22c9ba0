import math
import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints, locate_resume
from boltax.errors import CheckpointError, RunDirectoryError


def arrays(value):
    params = {"w": jnp.full((3, 4), value), "b": jnp.zeros(4, jnp.bfloat16)}
    state = {"params": params, "opt_state": optax.adam(1e-3).init(params), "rng": jax.random.key(1)}
    return {"state": state, "interval": None, "epoch": [jnp.ones(3), np.int32(7)]}


def value_of(resume):
    return float(resume.arrays["state"]["params"]["w"][0, 0])


def damage(folder, name="structure.json"):
    content = bytearray((folder / name).read_bytes())
    content[10] ^= 1
    (folder / name).write_bytes(content)


def test_what_is_saved_comes_back(tmp_path):
    checkpoints = ResumeCheckpoints(tmp_path / "resume")
    progress = {"epoch": 3, "best": {"val/loss": math.inf}, "cursor": {"position": [1, 2]}}
    checkpoints.save(40, arrays(2.0), progress)
    resume = checkpoints.restore(jax.eval_shape(lambda: arrays(0.0)))
    assert (resume.progress, resume.step) == (progress, 40)
    assert resume.folder == tmp_path / "resume" / "40"
    assert jax.tree.structure(resume.arrays) == jax.tree.structure(arrays(0.0))
    assert value_of(resume) == 2.0
    names = ["arrays", "manifest.json", "progress.json", "structure.json"]
    assert sorted(os.listdir(resume.folder)) == names


def test_an_open_part_is_taken_as_stored(tmp_path):
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(1, arrays(2.0), {})
    template = {"state": arrays(0.0)["state"], "interval": ..., "epoch": ...}
    resume = checkpoints.restore(template)
    assert resume.arrays["interval"] is None
    assert [type(leaf) for leaf in resume.arrays["epoch"]] == [np.ndarray, np.ndarray]
    assert [leaf.tolist() for leaf in resume.arrays["epoch"]] == [[1, 1, 1], 7]


def test_the_state_goes_where_the_template_is(tmp_path):
    split = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(1, {"w": np.arange(8.0, dtype=np.float32), "m": [jnp.ones(2)]}, {})
    template = {"w": jax.ShapeDtypeStruct((8,), np.float32, sharding=split), "m": ...}
    assert checkpoints.restore(template).arrays["w"].sharding == split


def test_none_at_all_is_none(tmp_path):
    checkpoints = ResumeCheckpoints(tmp_path / "none")
    assert checkpoints.restore({}) is None
    assert (checkpoints.steps(), checkpoints.newest_step()) == ([], None)
    with pytest.raises(CheckpointError, match=r"step=3 .* holds no resume checkpoint"):
        checkpoints.restore({}, step=3)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay_whatever_their_step_is(tmp_path, keep):
    checkpoints = ResumeCheckpoints(tmp_path, keep=keep)
    for step in (100, 200, 300, 150, 50):
        checkpoints.save(step, {"w": np.float32(step)}, {"step": step})
    assert checkpoints.steps() == [300, 150, 50][-keep:]
    assert checkpoints.newest_step() == 50
    assert checkpoints.restore({"w": ...}).progress == {"step": 50}


@pytest.mark.parametrize("seed", range(20))
def test_the_newest_good_one_is_found_whatever_happened(tmp_path, seed):
    draw = random.Random(seed)
    checkpoints, saved, broken = ResumeCheckpoints(tmp_path, keep=3), [], set()
    for number in range(8):
        step = draw.randrange(5)
        checkpoints.save(step, {"none": None}, {"number": number})
        saved = [*(s for s in saved if s[0] != step), (step, number)][-3:]
        broken -= {step}
        assert checkpoints.steps() == [s for s, _ in saved]
        if draw.random() < 0.3:
            damage(tmp_path / str(step))
            broken.add(step)
        good = [number for step, number in saved if step not in broken]
        if good:
            assert checkpoints.restore({"none": ...}).progress == {"number": good[-1]}


def test_a_damaged_one_is_reported_and_the_one_before_it_is_loaded(tmp_path, caplog):
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(1, arrays(1.0), {})
    checkpoints.save(2, arrays(2.0), {})
    damage(tmp_path / "2")
    assert value_of(checkpoints.restore(arrays(0.0))) == 1.0
    assert "/2, which is damaged: structure.json has another checksum" in caplog.text
    with pytest.raises(CheckpointError, match=r"structure\.json has another checksum"):
        checkpoints.restore(arrays(0.0), step=2)
    damage(tmp_path / "1", "progress.json")
    with pytest.raises(CheckpointError, match=r"1, which is damaged: progress\.json") as caught:
        checkpoints.restore(arrays(0.0))
    assert "2, which is damaged: structure.json" in str(caught.value)


def test_arrays_that_do_not_fit_are_an_error_and_nothing_else_is_tried(tmp_path, caplog):
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(1, arrays(1.0), {})
    checkpoints.save(2, {"state": {"params": jnp.ones(3)}, "epoch": None}, {})
    template = {"state": arrays(0.0)["state"], "interval": ..., "epoch": ...}
    with pytest.raises(CheckpointError, match=r"missing +interval(.|\n)*missing +state/params/w"):
        checkpoints.restore(template)
    assert not caplog.records


@pytest.mark.parametrize("wrong", [({"w": "text"}, {}), ({}, {"a": object()}), ({}, {1: 2})])
def test_what_cannot_be_saved_leaves_the_older_ones(tmp_path, wrong):
    checkpoints = ResumeCheckpoints(tmp_path, keep=1)
    checkpoints.save(1, arrays(1.0), {})
    for step in (1, 2):
        with pytest.raises(CheckpointError, match="of what is to be saved"):
            checkpoints.save(step, *wrong)
    assert os.listdir(tmp_path) == ["1"]
    assert value_of(checkpoints.restore(arrays(0.0))) == 1.0


def test_a_folder_that_is_gone_or_in_the_way_is_named(tmp_path):
    (tmp_path / "resume").write_text("in the way")
    with pytest.raises(RunDirectoryError, match="resume/3"):
        ResumeCheckpoints(tmp_path / "resume").save(3, arrays(1.0), {})
    (tmp_path / "resume").unlink()
    ResumeCheckpoints(tmp_path / "resume").save(3, arrays(1.0), {})
    shutil.rmtree(tmp_path / "resume")
    ResumeCheckpoints(tmp_path / "resume").save(4, arrays(1.0), {})
    assert os.listdir(tmp_path / "resume") == ["4"]


def test_the_best_models_that_it_goes_back_to_are_known(tmp_path):
    checkpoints = ResumeCheckpoints(tmp_path, keep=3)
    for step, best in [(1, [5, 6]), (2, [6, 7]), (3, None)]:
        checkpoints.save(step, {}, {"best_steps": best})
    (tmp_path / "4").mkdir()
    assert checkpoints.best_steps() == {5, 6, 7}


def test_a_run_or_one_of_its_checkpoints_is_located(tmp_path):
    run = tmp_path / "version_0"
    for step in (300, 200):
        ResumeCheckpoints(run / "checkpoints" / "resume").save(step, {}, {})
    assert locate_resume(run) == (run, None)
    assert locate_resume(str(run)) == (run, None)
    assert locate_resume(run / "checkpoints" / "resume" / "200") == (run, 200)
    for wrong in ("resume/100", "best/200"):
        with pytest.raises(CheckpointError, match=r"while the run .* of the steps 300, 200"):
            locate_resume(run / "checkpoints" / wrong)


def test_a_run_without_a_resume_checkpoint_says_what_there_is(tmp_path):
    with pytest.raises(CheckpointError, match=r"none' to resume from, which does not exist"):
        locate_resume(tmp_path / "none")
    with pytest.raises(CheckpointError, match="a folder without resume checkpoints"):
        locate_resume(tmp_path)
    (tmp_path / "hparams.json").touch()
    with pytest.raises(CheckpointError, match="a run without resume checkpoints; expected a run's"):
        locate_resume(tmp_path)
