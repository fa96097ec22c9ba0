"""Where the time of a run went: booked once, summed up, and the largest waste named."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest

import boltax as bx
from boltax._base._chunks import Chunk, Plan
from boltax._loop._nonfinite import NonFiniteWatch
from boltax._process._ledger import ADVICE, Ledger, report
from boltax.callbacks import Callback
from boltax.checkpoint._best import BestCheckpoints
from dummies import Classifier, classes, classifier, loader


def test_nested_parts_count_for_the_innermost_only():
    ledger = Ledger()
    with ledger.spent("evaluation"):
        time.sleep(0.02)
        with ledger.spent("compile"):
            time.sleep(0.05)
    seconds = ledger.seconds()
    assert seconds["compile"] >= 0.05
    assert 0.02 <= seconds["evaluation"] < seconds["compile"]
    assert sum(seconds.values()) == pytest.approx(ledger.total, abs=0.01)


def test_an_exception_ends_its_part():
    ledger = Ledger()
    with pytest.raises(KeyError, match="gone"), ledger.spent("hooks"):
        raise KeyError("gone")
    time.sleep(0.02)
    assert ledger.seconds()["other"] >= 0.02


@pytest.mark.parametrize("waste", ADVICE)
def test_the_largest_waste_comes_with_its_remedy(waste):
    text = report({"device": 60.0, waste: 30.0, "other": 10.0})
    assert text.startswith(f"Time: 100 s; 60 % device, 30 % {waste}")
    assert ADVICE[waste] in text


def test_a_run_without_waste_is_one_line():
    assert "\n" not in report({"device": 97.0, "data": 2.0, "other": 1.0})


class SlowLoader:
    def __iter__(self):
        for batch in loader(64, 16):
            time.sleep(0.05)
            yield batch


class SlowHook(Callback):
    def on_training_epoch_end(self, view):
        time.sleep(0.3)


def test_a_run_books_what_it_waits_for(tmp_path, capsys):
    trainer = classifier(tmp_path, callbacks=[SlowHook()], enable_progress_bar=True)
    trainer.train_model(SlowLoader(), loader(32, 16), num_epochs=2)
    seconds = trainer.run.ledger.seconds()
    assert seconds["data"] >= 0.3
    assert seconds["hooks"] >= 0.6
    assert seconds["compile"] > 0
    assert seconds["evaluation"] > 0
    assert sum(seconds.values()) == pytest.approx(trainer.run.ledger.total, rel=0.01)
    assert "Time: " in capsys.readouterr().out


class Late:
    """What the device says of a step, half a second later."""

    def is_ready(self):
        return False

    def __array__(self, dtype=None, copy=None):
        time.sleep(0.5)
        return np.zeros((), bool)


def test_waiting_for_steps_that_are_on_their_way_is_time_of_the_device(tmp_path):
    trainer = classifier(tmp_path)
    trainer.train_model(loader(8, 8), num_epochs=1)
    run, watch = trainer.run, NonFiniteWatch(trainer._single(trainer.run))
    before = run.ledger.seconds()
    watch.add(Chunk(Plan(), classes(8), [None], 8), Late(), None)
    watch.look(up_to=run.step)
    after = run.ledger.seconds()
    assert after["device"] - before["device"] >= 0.5
    assert after["other"] - before["other"] < 0.5


class EachIsBest(Classifier):
    def is_new_model_better(self, new, old):
        return True


def test_waiting_for_best_models_that_are_written_is_time_of_checkpoints(tmp_path, monkeypatch):
    save = BestCheckpoints.save

    def slowly(*arguments, **options):
        time.sleep(0.3)
        save(*arguments, **options)

    monkeypatch.setattr(BestCheckpoints, "save", slowly)
    options = bx.CheckpointOptions(keep_last=0)
    trainer = classifier(tmp_path, EachIsBest, checkpoint=options)
    trainer.train_model(loader(8, 8), loader(8, 8), num_epochs=6)
    seconds = trainer.run.ledger.seconds()
    assert seconds["checkpoints"] >= 4 * 0.3  # of six; two may be on their way at the end


class Plain(Classifier):
    pass


def test_speed_is_in_the_log(tmp_path):
    trainer = classifier(tmp_path, Plain, loop=bx.LoopOptions(log_every=2))
    trainer.train_model(loader(64, 8), num_epochs=1)
    text = (Path(trainer.log_dir) / "metrics.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    rates = [row for row in rows if row["speed/steps_per_second"]]
    assert [int(row["step"]) for row in rates] == [4, 6, 8]
    for row in rates:
        per_example = float(row["speed/examples_per_second"])
        assert per_example == pytest.approx(8 * float(row["speed/steps_per_second"]))
