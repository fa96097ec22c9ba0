import json
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

from boltax.checkpoint._best import Best, BestCheckpoints, Kept, rank
from boltax.checkpoint._manifest import write_manifest
from boltax.checkpoint._step_folders import with_step
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


def larger(new, old):
    """As `is_new_model_better` by default: NaN is never better."""
    value = new["score"]
    if math.isnan(value):
        return False
    return old is None or math.isnan(old["score"]) or value > old["score"]


def ranked(scores, keep, is_better=larger):
    """The steps that are kept after each validation, and those said to be the best."""
    kept, best, history, bests = (), None, [], []
    for step, score in enumerate(scores, start=1):
        new = Kept(step, {"score": score})
        ranking = rank(new, best, kept, is_better, keep)
        assert ranking.is_kept == (step in [model.step for model in ranking.kept])
        kept = ranking.kept
        if ranking.is_best:
            best, _ = new.metrics, bests.append(step)
        history.append([model.step for model in kept])
    return history, bests


def test_the_three_best_are_kept_and_not_the_last_three_bests():
    history, bests = ranked([5, 9, 8, 7, 8.5, 6], keep=3)
    assert history == [[1], [1, 2], [1, 3, 2], [4, 3, 2], [3, 5, 2], [3, 5, 2]]
    assert bests == [1, 2]


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_the_kept_are_the_first_of_all_sorted_with_ties_to_the_older_and_no_nan(keep):
    draw = random.Random(keep)
    for _ in range(50):
        scores = [draw.choice([0.0, 1.0, 2.0, 3.0, math.nan, math.inf]) for _ in range(12)]
        history, _ = ranked(scores, keep)
        for number, kept in enumerate(history, start=1):
            finite = [(i, s) for i, s in enumerate(scores[:number], 1) if not math.isnan(s)]
            best_first = [i for i, _ in sorted(finite, key=lambda pair: -pair[1])]
            assert kept == best_first[:keep][::-1]


def test_the_comparison_of_a_user_decides_alone():
    def closer_to_seven(new, old):
        return old is None or abs(new["score"] - 7) < abs(old["score"] - 7)

    assert ranked([1, 6.5, 9, 7, 8], 3, closer_to_seven)[0][-1] == [5, 2, 4]


def test_with_one_to_keep_the_comparison_is_asked_once_about_the_best():
    asked = []

    def ask(new, old):
        asked.append((new["score"], old and old["score"]))
        return larger(new, old)

    ranked([1.0, 3.0, 2.0], 1, ask)
    assert asked == [(1.0, None), (3.0, 1.0), (2.0, 3.0)]


def test_nothing_is_kept_below_a_best_that_somebody_else_stores():
    ranking = rank(Kept(3, {"score": 1.0}), {"score": 2.0}, (), larger, keep=3)
    assert not ranking.is_kept
    assert ranking.kept == ()


def save_ranked(best, scores):
    kept = ()
    for step, score in enumerate(scores, start=1):
        metrics = kept[-1].metrics if kept else None
        ranking = rank(Kept(step, {"score": score}), metrics, kept, larger, best.keep)
        kept = ranking.kept
        if ranking.is_kept:
            order = [model.step for model in kept]
            best.save(step, variables(score), {"score": score}, ranking=order)


def test_the_best_is_loaded_whatever_was_saved_last(tmp_path):
    best = BestCheckpoints(tmp_path, keep=3)
    save_ranked(best, [5.0, 9.0, 8.0, 7.0, 8.5, 6.0])
    assert best.steps() == [3, 5, 2]
    assert sorted(os.listdir(tmp_path)) == ["2", "3", "5"]
    assert (best.restore().step, value_of(best.restore())) == (2, 9.0)
    assert [value_of(best.restore(step=step)) for step in (3, 5)] == [8.0, 8.5]
    assert best.kept([3, 7, 2]) == [Kept(3, {"score": 8.0}), Kept(2, {"score": 9.0})]
    best.save(7, variables(10.0), {"score": 10.0})
    assert best.steps() == [5, 2, 7]
    assert BestCheckpoints(tmp_path).restore().step == 7


def test_a_damaged_best_gives_way_to_the_next_best(tmp_path, caplog):
    best = BestCheckpoints(tmp_path, keep=3)
    save_ranked(best, [9.0, 7.0, 8.0])
    damage(tmp_path / "1")
    assert best.restore().step == 3
    assert "Loading the one of step 3 instead" in caplog.text
    (tmp_path / "3" / "metrics.json").write_text("")  # the order was in it
    assert best.steps()[0] == 3
    assert best.restore().step == 2


@pytest.mark.parametrize("order", ["3", "[1, 3.5]", "[1]", "[3, 3, 1]", '["3"]', "{}"])
def test_an_order_that_is_none_is_damage_that_names_it(tmp_path, order):
    best = BestCheckpoints(tmp_path, keep=3)
    save_ranked(best, [9.0, 8.0, 8.5])
    path = tmp_path / "3" / "metrics.json"
    record = json.loads(path.read_text())
    assert record["order"] == [2, 3, 1]
    path.write_text(json.dumps(record | {"order": json.loads(order)}))
    (tmp_path / "3" / "manifest.json").unlink()
    write_manifest(tmp_path / "3")
    with pytest.raises(CheckpointError, match=r"metrics.json is not as .* 'order' is"):
        best.restore(step=3)


def test_going_back_forgets_the_better_ones_and_the_runners_up_that_came_later(tmp_path):
    best = BestCheckpoints(tmp_path, keep=9)
    save_ranked(best, [5.0, 9.0, 8.0, 7.0, 8.5, 10.0])
    assert best.steps() == [1, 4, 3, 5, 2, 6]
    best.go_back([4, 3, 2], protected={1, 5, 6})
    assert best.steps() == [1, 4, 3, 2]
    assert best.restore().step == 2


def test_models_of_another_run_are_taken_over_in_their_order(tmp_path, caplog):
    other, best = (BestCheckpoints(tmp_path / name, keep=3) for name in ("other", "own"))
    save_ranked(other, [5.0, 9.0, 8.0, 8.5])
    damage(tmp_path / "other" / "3")
    best.take_over(other, [3, 4, 2])
    assert best.steps() == [4, 2]
    assert value_of(best.restore()) == 9.0
    assert "The model of step 3 is not copied" in caplog.text
    with pytest.raises(CheckpointError, match="of step 7"):
        best.take_over(other, [4, 7])


@pytest.mark.parametrize(
    ("order", "step", "ranking", "expected"),
    [
        ([1, 2], 3, [], [1, 2, 3]),
        ([1, 2], 1, [], [2, 1]),
        ([1, 2], 3, [1, 3, 2], [1, 3, 2]),
        ([1, 2, 9], 3, [1, 3, 2], [1, 3, 2, 9]),  # tried again after a better one came
        ([1, 9], 3, [1, 3, 2], [1, 3, 9]),  # and the one above it was never written
        ([8, 9], 3, [3, 2], [3, 8, 9]),
        ([8, 4, 2], 3, [3, 2], [8, 4, 3, 2]),
        ([], 3, [3, 2], [3]),
    ],
)
def test_a_step_finds_its_place_in_an_order_that_has_other_steps(order, step, ranking, expected):
    assert with_step(order, step, ranking) == expected
