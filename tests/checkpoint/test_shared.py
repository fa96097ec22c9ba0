"""Processes that do not see the same folder are told, and leave no sign in it."""

from boltax.checkpoint import _shared
from boltax.checkpoint._shared import check_shared
from group_dummies import Store, in_each


def test_one_folder_is_accepted(tmp_path):
    assert in_each(Store(), lambda group: check_shared(group, tmp_path)) == [None] * 3
    assert list(tmp_path.iterdir()) == []


def test_folders_of_one_name_on_two_disks_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_shared, "_PATIENCE", 0.1)
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
    first, second = in_each(
        Store(), lambda group: check_shared(group, tmp_path / str(group.index)), count=2
    )
    assert "in process 1, which is not the folder of that name in process 0" in str(second)
    assert "an error in process 1 from the look for the run's folder" in str(first)
    assert list((tmp_path / "0").iterdir()) == []
