"""Where the time of a run went: booked once, summed up, and the largest waste named."""

import csv
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import boltax as bx
from boltax._base._chunks import Chunk, Plan
from boltax._loop._advice import followed
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
def test_the_largest_waste_comes_with_its_remedies(waste):
    text = report({"device": 60.0, waste: 30.0, "other": 10.0})
    assert text.startswith(f"Time: 100 s; 60 % device, 30 % {waste}")
    assert f"\nLess time for {waste}: " in text
    assert all(remedy in text for _, remedy in ADVICE[waste])


def test_the_largest_of_several_wastes_is_named():
    seconds = {"device": 40.0, "hooks": 20.0, "data": 30.0, "logging": 10.0}
    assert "\nLess time for data: " in report(seconds)


def test_what_the_run_does_already_is_no_advice():
    seconds = {"device": 60.0, "recompile": 40.0}
    both, one = report(seconds), report(seconds, {"drop_last"})
    assert "drop_last=True" in both
    assert one.splitlines()[1] == "Less time for recompile: pad batches to a few sizes."
    assert "\n" not in report(seconds, {"drop_last", "few shapes"})


def test_the_next_waste_is_named_where_the_largest_needs_no_advice():
    seconds = {"compile": 50.0, "device": 30.0, "logging": 20.0}
    assert "Less time for compile: " in report(seconds)
    assert "Less time for logging: record less often" in report(seconds, {"cache"})


@pytest.mark.parametrize(
    "seconds",
    [
        {"device": 97.0, "data": 2.0, "other": 1.0},
        {"device": 1.0, "compile": 1.5, "data": 0.5},  # a run of three seconds
        {"device": 95.0, "data": 9.9},
        {"device": 910.0, "data": 90.0},
    ],
    ids=["little waste", "a short run", "few seconds", "a small share"],
)
def test_a_waste_that_is_not_worth_it_is_one_line(seconds):
    assert "\n" not in report(seconds)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_report_breaks_between_words(width):
    seconds = {"device": 60.0, "data": 30.0, "evaluation": 5.0, "checkpoints": 3.0, "other": 2.0}
    folded, whole = report(seconds, width=width), report(seconds)
    assert folded.split() == whole.split()
    assert len(whole.splitlines()) == 2
    longest = max(map(len, whole.split()))
    assert max(map(len, folded.splitlines())) <= max(width, longest)


def test_the_report_of_a_run_has_the_width_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    ledger = Ledger()
    for part in ("evaluation", "checkpoints"):
        with ledger.spent(part):
            time.sleep(0.01)
    assert len(ledger.report().splitlines()) > 1
    assert len(ledger.report(width=200).splitlines()) == 1


class Plain(Classifier):
    pass


def settings_of(tmp_path, train_loader, **options):
    return followed(classifier(tmp_path, Plain, **options)._parts, train_loader)


class WithWorkers(list):
    num_workers = 2


@pytest.mark.parametrize(
    "train_loader, options, has, lacks",
    [
        (loader(64, 16), {}, {"ArrayLoader", "workers"}, {"drop_last", "device_resident"}),
        (
            bx.data.ArrayLoader(classes(64), 16, drop_last=True, device_resident=True),
            {},
            {"drop_last", "device_resident"},
            {"prefetch"},
        ),
        ([classes(16)], {}, {"workers", "device_resident", "callbacks"}, {"ArrayLoader"}),
        (WithWorkers([classes(16)]), {}, {"device_resident"}, {"workers", "ArrayLoader"}),
        ([], {"check_val_every_n_epoch": 2}, {"check_val_every_n_epoch"}, {"limit_val_batches"}),
        (
            [],
            {"loop": bx.LoopOptions(limit_val_batches=2), "callbacks": [Callback()]},
            {"limit_val_batches"},
            {"check_val_every_n_epoch", "callbacks"},
        ),
        ([], {"checkpoint": bx.CheckpointOptions(every_steps=5)}, set(), {"save_every"}),
    ],
    ids=["arrays", "resident", "a list", "workers", "rare", "limited", "saving"],
)
def test_what_a_run_does_already_is_seen(tmp_path, train_loader, options, has, lacks):
    known = settings_of(tmp_path, train_loader, **options)
    assert has <= known
    assert not lacks & known


@pytest.mark.parametrize("name", ["enable_compilation_cache", "compilation_cache_dir"])
def test_programs_that_are_kept_need_no_advice(tmp_path, name):
    off = {"enable_compilation_cache": False, "compilation_cache_dir": None}[name]
    trainer = classifier(tmp_path, Plain)
    assert "cache" in followed(trainer._parts, [])
    before = jax.config.values[f"jax_{name}"]
    jax.config.update(f"jax_{name}", off)
    try:
        assert "cache" not in followed(trainer._parts, [])
    finally:
        jax.config.update(f"jax_{name}", before)


def test_every_setting_of_a_run_is_one_of_the_advice(tmp_path):
    known = {setting for advice in ADVICE.values() for setting, _ in advice}
    assert settings_of(tmp_path, [], loop=bx.LoopOptions(limit_val_batches=1)) <= known


def test_a_step_that_is_compiled_again_is_booked_on_its_own(tmp_path, capsys):
    trainer = classifier(tmp_path, Plain, enable_progress_bar=True)
    trainer.train_model([classes(16), classes(8), classes(16)], num_epochs=2)
    seconds = trainer.run.ledger.seconds()
    assert seconds["recompile"] > 0
    assert seconds["compile"] > 0
    report = next(line for line in capsys.readouterr().out.splitlines() if "Time: " in line)
    assert "recompile" in report
    once = classifier(tmp_path / "once", Plain)
    once.train_model([classes(16), classes(16)], num_epochs=2)
    assert "recompile" not in once.run.ledger.seconds()


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
