import math
import os
import random
import resource
import shutil

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.checkpoint._best import Best, BestCheckpoints
from boltax.errors import CheckpointError, RunDirectoryError


def variables(value):
    """Like those of a model with BatchNorm; `value` tells one from another."""
    return {
        "params": {"Dense_0": {"kernel": jnp.full((3, 4), value), "bias": jnp.zeros(4)}},
        "batch_stats": {"mean": jnp.ones(4, jnp.bfloat16)},
    }


def value_of(best):
    return float(best.variables["params"]["Dense_0"]["kernel"][0, 0])


def test_the_model_saved_last_is_the_best(tmp_path):
    best = BestCheckpoints(tmp_path / "best", keep=3)
    for step, value in [(30, 1.0), (10, 2.0), (20, 3.0)]:
        best.save(step, variables(value), {"val/loss": value})
    assert best.steps() == [30, 10, 20]
    loaded = best.restore()
    assert isinstance(loaded, Best)
    assert (loaded.step, loaded.metrics, value_of(loaded)) == (20, {"val/loss": 3.0}, 3.0)
    assert value_of(best.restore(step=30)) == 1.0


def test_a_checkpoint_is_restored_bitwise(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(5, variables(0.1), {})
    saved, loaded = jax.tree.leaves(variables(0.1)), jax.tree.leaves(best.restore().variables)
    assert [(a.dtype, a.tobytes()) for a in map(np.asarray, saved)] == [
        (b.dtype, b.tobytes()) for b in map(np.asarray, loaded)
    ]


@pytest.mark.parametrize("keep", [1, 2])
def test_older_ones_beyond_keep_are_deleted_by_order_of_saving(tmp_path, keep):
    best = BestCheckpoints(tmp_path, keep=keep)
    for step in (50, 3, 40, 7):
        best.save(step, variables(1.0), {})
    assert best.steps() == [40, 7][-keep:]
    assert sorted(os.listdir(tmp_path)) == sorted(str(step) for step in best.steps())


def test_protected_ones_are_not_deleted(tmp_path):
    best = BestCheckpoints(tmp_path, keep=1)
    for step in (1, 2, 3, 4):
        best.save(step, variables(1.0), {}, protected={1, 3})
    assert best.steps() == [1, 3, 4]
    best.save(5, variables(1.0), {})
    assert best.steps() == [5]


def test_going_back_forgets_what_came_later_and_keeps_what_older_points_need(tmp_path):
    best = BestCheckpoints(tmp_path, keep=9)
    for step in (2, 4, 6, 8):
        best.save(step, variables(float(step)), {})
    best.go_back([6], protected={2, 8})
    assert best.steps() == [2, 6]
    best.go_back([], protected={2, 6})
    assert best.steps() == []


def test_models_that_are_not_named_are_discarded(tmp_path):
    best = BestCheckpoints(tmp_path, keep=4)
    for step in (4, 1, 2, 3):
        best.save(step, variables(float(step)), {})
    best.discard_except({4, 2, 99})
    assert best.steps() == [4, 2]
    assert best.restore().step == 2
    best.discard_except(())
    assert best.steps() == []


def test_a_second_run_over_the_same_steps_replaces_them(tmp_path):
    best = BestCheckpoints(tmp_path, keep=2)
    for value, step in [(1.0, 10), (2.0, 20), (3.0, 10)]:
        best.save(step, variables(value), {"val/loss": value})
    assert best.steps() == [20, 10]
    assert value_of(best.restore()) == 3.0
    assert value_of(best.restore(step=20)) == 2.0
    best.save(10, variables(4.0), {})
    assert best.steps() == [20, 10]
    assert value_of(best.restore()) == 4.0


def test_metrics_that_are_not_numbers_change_nothing(tmp_path):
    best = BestCheckpoints(tmp_path, keep=2)
    for step, loss in enumerate([3.0, math.nan, 1.0, math.inf]):
        best.save(step, variables(float(step)), {"val/loss": loss})
    assert best.steps() == [2, 3]
    assert best.restore().metrics == {"val/loss": math.inf}
    best.save(9, variables(9.0), {"val/loss": math.nan})
    assert math.isnan(best.restore().metrics["val/loss"])


def test_whatever_is_saved_the_newest_are_kept(tmp_path):
    draw = random.Random(0)
    best, saved = BestCheckpoints(tmp_path, keep=2), []
    for number in range(12):
        step = draw.randrange(4)
        best.save(step, {"params": {"w": np.float32(number)}}, {})
        saved = [*(s for s in saved if s != step), step][-2:]
        assert best.steps() == saved
        assert float(best.restore().variables["params"]["w"]) == number


def test_a_new_object_goes_on_where_another_stopped(tmp_path):
    BestCheckpoints(tmp_path, keep=2).save(10, variables(1.0), {})
    BestCheckpoints(tmp_path, keep=2).save(5, variables(2.0), {})
    assert BestCheckpoints(tmp_path).steps() == [10, 5]


def test_arrays_among_the_metrics_come_back(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(1, variables(1.0), {"val/per_class": jnp.array([0.5, 1.0])})
    assert np.array_equal(best.restore().metrics["val/per_class"], [0.5, 1.0])


def test_a_template_gives_containers_and_is_compared(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(1, variables(1.0), {})
    template = flax.core.freeze(jax.eval_shape(lambda: variables(0.0)))
    assert isinstance(best.restore(template=template).variables, flax.core.FrozenDict)
    template = variables(0.0) | {"batch_stats": {"mean": jnp.ones(4)}}
    with pytest.raises(CheckpointError, match=r"dtype +batch_stats/mean +bfloat16.4. +float32.4."):
        best.restore(template=template)


def test_the_variables_are_not_those_that_a_step_then_donates(tmp_path):
    best, state = BestCheckpoints(tmp_path), variables(1.0)
    best.save(1, state, {})
    jax.tree.map(lambda leaf: leaf.delete(), state)
    assert value_of(best.restore(template=state)) == 1.0


@pytest.mark.parametrize("directory", ["none", "empty"])
def test_no_saved_model_says_what_to_give(tmp_path, directory):
    (tmp_path / "empty").mkdir()
    best = BestCheckpoints(tmp_path / directory)
    assert best.steps() == []
    with pytest.raises(CheckpointError, match="holds no saved model; expected the best model of"):
        best.restore()


def test_a_step_that_is_not_there_is_told_from_those_that_are(tmp_path):
    best = BestCheckpoints(tmp_path, keep=2)
    best.save(3, variables(1.0), {})
    best.save(1, variables(1.0), {})
    with pytest.raises(CheckpointError, match=r"only those of steps 3, 1; .* of step 2"):
        best.restore(step=2)


@pytest.mark.parametrize("step", [-1, 1.5, "3", True, None, "../x"])
def test_a_step_is_a_whole_number(tmp_path, step):
    with pytest.raises(CheckpointError, match="expected a whole number from 0"):
        BestCheckpoints(tmp_path).save(step, variables(1.0), {})


def test_what_cannot_be_saved_leaves_the_older_ones(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(1, variables(1.0), {})
    for wrong, message in [({"params": {"w": "text"}}, "a str at params/w"), (jnp.ones(3), "type")]:
        for step in (1, 2):
            with pytest.raises(CheckpointError, match=message):
                best.save(step, wrong, {})
    assert os.listdir(tmp_path) == ["1"]
    assert value_of(best.restore()) == 1.0


@pytest.mark.parametrize("step", [1, 2])
def test_a_full_disk_leaves_the_older_ones(tmp_path, step):
    best = BestCheckpoints(tmp_path)
    best.save(1, variables(1.0), {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(RunDirectoryError, match="Free some space"):
            best.save(step, {"params": {"w": jnp.ones((400, 400))}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["1"]
    assert value_of(best.restore()) == 1.0
    best.save(step, variables(2.0), {})
    assert value_of(best.restore()) == 2.0


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirectoryError, match="file/best/3"):
        BestCheckpoints(tmp_path / "file" / "best").save(3, variables(1.0), {})


class KilledError(BaseException):
    """Stands for the end of the process: nobody cleans up."""


@pytest.mark.parametrize(
    "moment",
    [
        "_step_folders.write_arrays",
        "_step_folders.write_json",
        "_step_folders.commit_folder",
        "_step_folders.remove_folder",
    ],
)
@pytest.mark.parametrize("step", [1, 2])
def test_a_kill_in_the_middle_leaves_the_old_model_or_the_new_one(
    tmp_path, monkeypatch, moment, step
):
    def kill(*_):
        raise KilledError("killed")

    best = BestCheckpoints(tmp_path, keep=1)
    best.save(0, variables(0.0), {})
    best.save(1, variables(1.0), {})
    with monkeypatch.context() as patch:
        patch.setattr(f"boltax.checkpoint.{moment}", kill)
        patch.setattr("boltax.checkpoint._step_folders.clean_leftovers", lambda directory: None)
        if (moment, step) == ("_step_folders.remove_folder", 1):
            best.save(1, variables(2.0), {})  # there is nothing to remove
        else:
            with pytest.raises(KilledError, match="killed"):
                best.save(step, variables(2.0), {})

    assert value_of(best.restore()) == (2.0 if moment.endswith("remove_folder") else 1.0)
    best.save(7, variables(7.0), {})
    assert os.listdir(tmp_path) == ["7"]


def test_a_model_that_was_being_replaced_is_still_found(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(3, variables(1.0), {})
    (tmp_path / "3").rename(tmp_path / ".replaced-3")
    assert best.steps() == [3]
    assert value_of(best.restore()) == value_of(best.restore(step=3)) == 1.0


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "12").write_text("a file")
    best = BestCheckpoints(tmp_path)
    best.save(3, variables(1.0), {})
    best.save(4, variables(1.0), {})
    assert sorted(os.listdir(tmp_path)) == ["12", "4", "notes"]


@pytest.mark.parametrize("name", ["metrics.json", "structure.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '{"step": 1}', '{"params": 3}'])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, content):
    best = BestCheckpoints(tmp_path)
    best.save(3, variables(1.0), {})
    if content is None:
        (tmp_path / "3" / name).unlink()
    else:
        (tmp_path / "3" / name).write_text(content)
    for template, step in [(None, None), (variables(0.0), None), (None, 3)]:
        with pytest.raises(CheckpointError, match=rf"3, which is damaged: {name} (is|has)"):
            best.restore(template, step)


def damage(folder):
    """Flips one bit in the array data."""
    files = [path for path in (folder / "variables").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def test_a_damaged_model_is_reported_and_the_one_before_it_is_loaded(tmp_path, caplog):
    best = BestCheckpoints(tmp_path, keep=3)
    for step in (5, 1, 3):
        best.save(step, variables(float(step)), {})
    names = [damage(tmp_path / "3"), damage(tmp_path / "1")]
    assert best.restore().step == 5
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    for name, record in zip(names, caplog.records, strict=True):
        text = record.getMessage()
        assert f"which is damaged: {name} has another checksum. Expected it as saved." in text
        assert "Loading the one of step 5 instead" in text


def test_a_damaged_model_that_was_asked_for_is_an_error(tmp_path, caplog):
    best = BestCheckpoints(tmp_path, keep=3)
    for step in (5, 1, 3):
        best.save(step, variables(float(step)), {})
    damage(tmp_path / "1")
    with pytest.raises(CheckpointError, match=r"1, which is damaged: .* has another checksum"):
        best.restore(step=1)
    for step in (5, 3):
        damage(tmp_path / str(step))
    with pytest.raises(CheckpointError, match=r"/3, which(.|\n)*/1, which(.|\n)*/5, which"):
        best.restore()
    assert not caplog.records


def test_another_model_is_an_error_and_nothing_else_is_tried(tmp_path, caplog):
    best = BestCheckpoints(tmp_path, keep=2)
    best.save(1, variables(1.0), {})
    best.save(2, {"params": jnp.ones(3)}, {})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        best.restore(variables(0.0))
    assert not caplog.records


@pytest.mark.parametrize("number", ["-1", "1.5", "true", '"1"', "null", "[1]"])
@pytest.mark.parametrize("name", ["step", "saved"])
def test_a_record_with_wrong_numbers_is_damaged_and_reported(tmp_path, caplog, name, number):
    best = BestCheckpoints(tmp_path, keep=2)
    best.save(4, variables(4.0), {})
    best.save(3, variables(3.0), {})
    (tmp_path / "3" / "metrics.json").write_text(
        f'{{"step": 3, "saved": 2, "time": "", "metrics": {{}}, "{name}": {number}}}'
    )
    assert best.steps() == [3, 4]
    assert best.restore().step == 4
    assert "metrics.json has" in caplog.text


def test_a_damaged_model_does_not_keep_the_next_from_being_saved(tmp_path):
    best = BestCheckpoints(tmp_path, keep=2)
    for step in (1, 2):
        best.save(step, variables(float(step)), {})
    (tmp_path / "2" / "metrics.json").write_text("")
    best.save(3, variables(3.0), {})
    assert best.steps() == [1, 3]
    assert value_of(best.restore()) == 3.0


def test_lost_arrays_are_an_error(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(3, variables(1.0), {})
    shutil.rmtree(tmp_path / "3" / "variables")
    with pytest.raises(CheckpointError, match=r"variables/.* is missing; variables/.* is missing"):
        best.restore()


def test_a_folder_is_readable_by_people(tmp_path):
    best = BestCheckpoints(tmp_path)
    best.save(3, variables(1.0), {"val/acc": 0.5})
    names = ["manifest.json", "metrics.json", "structure.json", "variables"]
    assert sorted(os.listdir(tmp_path / "3")) == names
    assert '"val/acc": 0.5' in (tmp_path / "3" / "metrics.json").read_text()
    assert '"kernel": "float32[3, 4]"' in (tmp_path / "3" / "structure.json").read_text()
    assert b"pickle" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
