"""A run makes way for another one in its folder: every file is in one of the two places."""

import itertools
from pathlib import Path

import pytest

from boltax.checkpoint._earlier import (
    earlier_runs,
    holds_records,
    holds_run,
    keep_earlier,
    take_back,
)
from boltax.errors import RunDirectoryError

OF_RUN = (
    "hparams.json",
    "model.txt",
    "history.csv",
    "end.json",
    "metrics.csv",
    "hyperparameters.csv",
    "events.out.tfevents.1.host.2.0",
    "wandb_run_id.txt",
    "images/val_000010.png",
    "metrics/best_eval.json",
    "metrics/eval_epoch_001.json",
    "metrics/of_mine.json",
    "checkpoints/best/10/metrics.json",
    "checkpoints/resume/10/progress.json",
    "checkpoints/resume/.replaced-20/progress.json",
    "checkpoints/saved/5/metrics.json",
    "nonfinite/7/report.json",
    "members/000/hparams.json",
    "members.csv",
)
OF_OTHERS = (".lock", "train.py", "checkpoints/pretrained.msgpack", "version_0/history.csv")


def filled(folder, names=(*OF_RUN, *OF_OTHERS)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_a_run_moves_as_a_whole_and_what_is_not_its_own_stays(tmp_path):
    folder = filled(tmp_path / "lr=[0.1]")
    assert keep_earlier(folder) == folder / "earlier" / "0"
    assert files(folder / "earlier" / "0") == {name: name for name in OF_RUN}
    assert set(files(folder)) == {*OF_OTHERS, *(f"earlier/0/{name}" for name in OF_RUN)}
    assert not holds_run(folder)
    filled(folder, ["history.csv"])
    keep_earlier(folder)
    assert [place.name for place in earlier_runs(folder)] == ["0", "1"]


@pytest.mark.parametrize(
    "name", [n for n in OF_RUN if n.split("/")[0] in ("checkpoints", "nonfinite")]
)
def test_each_file_that_a_training_would_overwrite_shows_that_there_is_a_run(tmp_path, name):
    assert holds_run(filled(tmp_path, [name])) == ("saved" not in name)


def test_what_lies_there_before_a_training_is_no_run(tmp_path):
    names = ["hparams.json", "model.txt", "metrics.csv", "metrics/before.json"]
    assert not holds_run(filled(tmp_path, [*names, "checkpoints/saved/0/metrics.json"]))
    assert holds_records(tmp_path)
    (tmp_path / "hparams.json").unlink()
    assert not holds_records(tmp_path)  # a writer of the user's own


@pytest.mark.parametrize("then", [keep_earlier, take_back])
def test_killed_at_any_rename_nothing_is_lost_and_the_next_start_goes_on(
    tmp_path, monkeypatch, then
):
    rename, instants = Path.replace, 0
    for instant in itertools.count():
        folder, count = filled(tmp_path / str(instant)), itertools.count()

        def killed(path, target, count=count, instant=instant):
            if next(count) == instant:
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            try:
                keep_earlier(folder)
            except KeyboardInterrupt:
                instants += 1
            else:
                break
        assert sorted(files(folder).values()) == sorted((*OF_RUN, *OF_OTHERS))
        assert holds_run(folder)
        then(folder)
        where = folder / "earlier" / "0" if then is keep_earlier else folder
        assert files(where).items() >= {name: name for name in OF_RUN}.items()
        assert (not holds_run(folder)) == (then is keep_earlier)
        assert not list((folder / "earlier").glob(".*"))
    assert instants >= len({name.split("/")[0] for name in OF_RUN})


def test_what_cannot_be_moved_stays_where_it_was(tmp_path, monkeypatch):
    rename = Path.replace

    def refused(path, target):
        if path.name == "hparams.json" and "earlier" not in path.parts:
            raise OSError(18, "Invalid cross-device link")
        return rename(path, target)

    filled(tmp_path)
    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(RunDirectoryError, match="Invalid cross-device link"):
        keep_earlier(tmp_path)
    assert files(tmp_path) == {name: name for name in (*OF_RUN, *OF_OTHERS)}
