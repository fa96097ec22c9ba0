import math
import os
import random

import numpy as np
import pytest

from boltax.checkpoint import _step_folders
from boltax.checkpoint._step_folders import StepFolders, folders_in
from boltax.errors import CheckpointError, RunDirectoryError


@pytest.fixture
def folders(tmp_path):
    return StepFolders(tmp_path / "best", "metrics", "variables")


def save(folders, step, keep=3, **content):
    folders.save(step, {"none": None}, content, keep=keep)


def test_the_folder_of_a_run_tells_what_is_in_it(tmp_path):
    kinds = [folders_in(tmp_path / name) for name in ("best", "saved", "resume")]
    assert [(each.content, each.arrays) for each in kinds] == [
        ("metrics", "variables"),
        ("metrics", "variables"),
        ("progress", "arrays"),
    ]


def test_every_save_has_a_number_and_a_time(folders):
    for step in (7, np.int64(3), 7):
        save(folders, step)
    assert [(each.step, each.number) for each in folders.saved()] == [(3, 2), (7, 3)]
    assert all(each.time.startswith("20") for each in folders.saved())


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_and_the_best_are_never_deleted(folders, seed):
    """Metrics with NaN and ties, steps that go back: only what is better than all is saved."""
    draw, best, step = random.Random(seed), math.inf, 0
    for _ in range(40):
        step = draw.randrange(step + 1) if draw.random() < 0.2 else step + 1
        loss = draw.choice([math.nan, math.inf, *(round(draw.random(), 1) for _ in range(6))])
        if loss < best:
            best = loss
            folders.save(step, {"none": None}, {"loss": best}, keep=1)
        if best < math.inf:
            assert folders.find().content == {"loss": best}


def test_one_whose_record_cannot_be_read_is_reported_and_deleted_first(folders, caplog):
    for step in (1, 2, 3):
        save(folders, step)
    (folders.directory / "3" / "metrics.json").write_text("")
    assert [each.step for each in folders.saved()] == [3, 1, 2]
    assert folders.find().step == 2
    assert "metrics.json has 0 bytes" in caplog.text
    save(folders, 4)
    assert [each.step for each in folders.saved()] == [1, 2, 4]


def test_a_record_of_another_folder_is_damage(folders):
    save(folders, 1)
    (folders.directory / "1").rename(folders.directory / "2")
    with pytest.raises(CheckpointError, match=r"2, which is damaged: metrics\.json is not as"):
        folders.find()


def test_many_faults_are_cut(folders):
    save(folders, 1)
    for number in range(30):
        (folders.directory / "1" / f"extra_{number:02}").touch()
    with pytest.raises(CheckpointError, match=r"extra_09 is not part .*; and 20 more\. Expected"):
        folders.find()


def test_an_old_one_that_cannot_be_deleted_is_an_error_and_all_are_there(folders, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "refused")

    save(folders, 1)
    monkeypatch.setattr(_step_folders, "remove_folder", refuse)
    with pytest.raises(RunDirectoryError, match="PermissionError while writing"):
        save(folders, 2, keep=1)
    assert sorted(os.listdir(folders.directory)) == ["1", "2"]
    with pytest.raises(RunDirectoryError, match="PermissionError while writing"):
        folders.remove(folders.saved()[0])
