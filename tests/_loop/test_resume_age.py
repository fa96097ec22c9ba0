"""How old the newest resume checkpoint may be, while every validation improves.

With a checkpoint due after every epoch, the newest one on the disk is at any instant no older than
the time of six writes: of the one before it, which is still being written when it becomes due; of
three best models at most, which are before it in the line; its own; and one to spare for what a
busy machine adds.
"""

import itertools
import time

import pytest

import boltax as bx
from boltax.checkpoint import RunDirectory, _step_folders
from dummies import Classifier, classifier, loader

EPOCHS = 20


class Better(Classifier):
    """Each of its validations is better than all before; notes when each epoch ended."""

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        eval_metrics["val/acc"] = float(epoch_idx)
        self.ended = {**getattr(self, "ended", {}), epoch_idx: time.monotonic()}


class Disk:
    """Takes its time; notes how long each write takes, and when which checkpoint is complete."""

    def __init__(self, monkeypatch, seconds):
        self.longest, self.resumes, save = 0.0, [], _step_folders.StepFolders.save

        def slow(folders, step, *args, **kwargs):
            started = time.monotonic()
            time.sleep(seconds)
            save(folders, step, *args, **kwargs)
            self.longest = max(self.longest, time.monotonic() - started)
            if folders.content == "progress":
                self.resumes.append((time.monotonic(), step))

        monkeypatch.setattr(_step_folders.StepFolders, "save", slow)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_the_newest_resume_checkpoint_is_never_old_though_each_validation_improves(
    tmp_path, monkeypatch, seconds
):
    disk = Disk(monkeypatch, seconds)
    trainer = classifier(
        "unused",
        Better,
        logger_params={"log_dir": str(tmp_path), "logger_type": "none"},
        checkpoint=bx.CheckpointOptions(every_epochs=1),
    )
    trainer.train_model(loader(14), loader(14), num_epochs=EPOCHS)
    ended, moments = trainer.ended, list(trainer.ended.values())
    slowest = max(b - a for a, b in itertools.pairwise(moments))
    bound = 6 * disk.longest + slowest
    assert len(disk.resumes) > 1
    for epoch, when in ended.items():
        on_disk = [step for moment, step in disk.resumes if moment <= when + bound]
        assert max(on_disk, default=0) >= epoch, (epoch, on_disk)
    resume = RunDirectory(tmp_path).resume
    assert max(int(path.name) for path in resume.iterdir()) == EPOCHS
