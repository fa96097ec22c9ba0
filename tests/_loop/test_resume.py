"""A run that was interrupted and goes on equals the one that was not."""

import shutil

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.callbacks import Callback, EarlyStopping, Log, Stop
from boltax.checkpoint import RunDirectory
from boltax.errors import CheckpointError, DataError, RunDirectoryError
from boltax.optim import learning_rate
from boltax.testing import assert_resumes_exactly
from dummies import (
    Classifier,
    GuideRegressor,
    Linear,
    NnxMlp,
    classes,
    classifier,
    line,
    loader,
    to_host,
)


def loaders():
    """Five steps an epoch, the last one ragged."""
    return loader(70, shuffle=True, seed=4), loader(20), loader(20)


def settings(log_dir, **options):
    return {"logger_params": {"log_dir": str(log_dir), "logger_type": "csv"}, **options}


def make(log_dir, trainer_class=Classifier, **options):
    optimizer = {"lr": 1e-2, "warmup": 3}  # a cosine schedule over all steps
    return classifier(
        "unused", trainer_class, **settings(log_dir, optimizer_hparams=optimizer) | options
    )


CONSTANT = {"lr": 1e-2, "schedule": "constant"}


class Failure(Exception):
    """Stands for a fault in the user's code."""


class FailAt(Callback):
    def __init__(self, hook, step):
        self.hook, self.step = hook, step

    def on_training_start(self, view):
        self._maybe_fail("on_training_start", view)

    def on_step_end(self, view):
        self._maybe_fail("on_step_end", view)

    def on_training_epoch_end(self, view):
        self._maybe_fail("on_training_epoch_end", view)

    def on_validation_epoch_end(self, view):
        self._maybe_fail("on_validation_epoch_end", view)

    def on_training_end(self, view):
        self._maybe_fail("on_training_end", view)

    def on_test_end(self, view):
        self._maybe_fail("on_test_end", view)

    def _maybe_fail(self, hook, view):
        if hook == self.hook and view.step == self.step:
            raise Failure


def contents(folder):
    """What a finished run left: histories, metrics, and the best model."""
    files = [folder / "history.csv", folder / "metrics.csv", *(folder / "metrics").glob("*.json")]
    return {path.name: path.read_bytes() for path in files} | {
        "best": str(bx.checkpoint.BestCheckpoints(RunDirectory(folder).best).restore())
    }


def interrupted(folder, step=8, **options):
    trainer = make(folder, callbacks=[FailAt("on_step_end", step)], **options)
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run of three epochs leaves that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    make(folder).train_model(*loaders(), num_epochs=3)
    return contents(folder)


@pytest.fixture(scope="module")
def run_to_copy(tmp_path_factory):
    return interrupted(tmp_path_factory.mktemp("interrupted"))


@pytest.fixture
def run(run_to_copy, tmp_path):
    """The folder of a run that was interrupted at step 8."""
    return shutil.copytree(run_to_copy, tmp_path / "run")


@pytest.mark.parametrize("model_class", [None, NnxMlp], ids=["linen", "nnx"])
def test_resume_mid_epoch_is_bit_exact(model_class):
    options = {} if model_class is None else {"model_class": model_class}
    assert_resumes_exactly(
        lambda folder: make(folder, loop=bx.LoopOptions(log_every=2), **options),
        loaders,
        num_epochs=3,
        interrupt_at=(3, 5, 11),
    )


def test_steps_of_create_functions_resume_exactly():
    data = line(40)
    assert_resumes_exactly(
        lambda folder: make(folder, GuideRegressor, model_class=Linear, exmp_input=data[0][:2]),
        lambda: [bx.data.ArrayLoader(data, 8, shuffle=True), bx.data.ArrayLoader(data, 16)],
    )


def test_debug_mode_resumes_exactly():
    assert_resumes_exactly(lambda folder: make(folder, debug=True), loaders, interrupt_at=7)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_step_end", 5),
        ("on_training_epoch_end", 10),
        ("on_validation_epoch_end", 10),
        ("on_training_end", 15),
        ("on_test_end", 15),
    ],
)
def test_a_fault_anywhere_leaves_a_run_that_goes_on_exactly(tmp_path, hook, step, whole):
    with pytest.raises(Failure):
        make(tmp_path / "run", callbacks=[FailAt(hook, step)]).train_model(*loaders(), num_epochs=3)
    make(tmp_path / "run").train_model(*loaders(), num_epochs=3, resume=True)
    assert contents(tmp_path / "run") == whole


def test_a_fault_of_the_loader_saves_first(tmp_path):
    def failing():
        for index, batch in enumerate(loader(70)):
            if index == 3:
                raise OSError("the network drive is gone")
            yield batch

    trainer = make(tmp_path, optimizer_hparams={"lr": 1e-2, "schedule": "constant"})
    with pytest.raises(OSError, match="network drive"):
        trainer.train_model(failing, num_epochs=1)
    assert (tmp_path / "checkpoints" / "resume" / str(trainer.run.step)).exists()
    assert trainer.run.step >= 1


def test_the_same_trainer_goes_on_in_the_same_process(tmp_path, whole):
    trainer = make(tmp_path / "run", callbacks=[FailAt("on_step_end", 8)])
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3)
    trainer.callbacks = ()
    trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert contents(tmp_path / "run") == whole


def test_a_loaded_trainer_goes_on_from_the_folder_alone(run, whole):
    trainer = Classifier.load_from_checkpoint(run, callbacks=())
    trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert contents(run) == whole


def test_without_anything_to_resume_the_run_starts(tmp_path):
    trainer = make(tmp_path / "run")
    trainer.train_model(*loaders(), num_epochs=1, resume=True)
    assert trainer.run.step == 5


def test_a_new_version_says_where_a_run_to_resume_is(tmp_path, caplog):
    options = {"logger_params": {"base_log_dir": str(tmp_path), "logger_type": "none"}}
    make("", **options).train_model(loader(), num_epochs=1)
    make("", **options).train_model(loader(), num_epochs=1, resume=True)
    assert "nothing to resume" in caplog.text
    assert "Mlp/version_0 holds a run that can be resumed" in caplog.text


def test_a_finished_run_is_not_trained_again(tmp_path):
    trainer = make(tmp_path)
    metrics = trainer.train_model(*loaders(), num_epochs=2)
    before = contents(tmp_path)
    again = make(tmp_path)
    assert again.train_model(*loaders(), num_epochs=2, resume=True) == metrics
    assert again.run.step == 10
    assert contents(tmp_path) == before


def test_a_finished_run_goes_on_for_more_epochs_and_says_what_changed(tmp_path, caplog):
    make(tmp_path).train_model(*loaders(), num_epochs=2)
    trainer = make(tmp_path)
    trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert [row["epoch"] for row in trainer.run.history] == [1, 2, 3]
    assert "steps in all: 10 -> 15" in caplog.text


class Begun(Classifier):
    """Keeps what it begins, or goes on, with."""

    def on_training_start(self):
        self.begun = to_host(self.state.opt_state), int(self.state.step)


def test_a_setting_that_is_told_to_change_changes_and_the_rest_stays(tmp_path, caplog):
    momentum = {"optimizer": "sgd", "momentum": 0.9, "gradient_clip": None}
    saved = {**momentum, "lr": 0.01, "warmup": 3, "l2_regularization": 0.2}
    first = make(tmp_path, optimizer_hparams=saved)
    first.train_model(loader(), num_epochs=2)
    changed = {**momentum, "lr": 0.5, "warmup": 3, "l2_regularization": 0.1}
    other = make(tmp_path, Begun, optimizer_hparams=changed)
    other.train_model(loader(), num_epochs=3, resume=True)
    before, (after, step) = to_host(first.state.opt_state), other.begun
    assert step == 8
    rates = [float(learning_rate(state)) for state in (before, after)]
    text = "optimizer_hparams['lr']: 0.01 -> 0.5; optimizer_hparams['l2_regularization']: 0.2 -> "
    assert text + "0.1" in caplog.text
    bases = [
        float(part.base)
        for state in (before, after)
        for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "updates"))
        if hasattr(part, "updates")
    ]
    assert bases == pytest.approx([0.01, 0.5])
    assert rates[0] == rates[1]  # that of the last update, which was made
    saved = jax.tree.leaves(before)
    same = [np.array_equal(*pair) for pair in zip(saved, jax.tree.leaves(after), strict=True)]
    assert same.count(False) == 1
    assert other.run.step == 12
    assert float(other.state.hparams["l2_regularization"]) == pytest.approx(0.1)


def test_other_data_are_taken_where_that_is_said(tmp_path, caplog):
    make(tmp_path).train_model(*loaders(), max_steps=7)
    with pytest.raises(DataError, match="batch_size") as raised:
        make(tmp_path).train_model(loader(64, 8), loader(20), num_epochs=3, resume=True)
    assert "new_data=True" in "".join(raised.value.__notes__)
    last = make(tmp_path)
    last.train_model(loader(64, 8), loader(20), num_epochs=3, resume=True, new_data=True)
    assert [(row["epoch"], row["step"]) for row in last.run.history] == [(1, 5), (3, 15)]
    assert "the training data: the run goes on with their next epoch" in caplog.text


class StopAt(Callback):
    def on_validation_epoch_end(self, view):
        return Stop("enough") if view.epoch == 2 else None


def test_a_run_that_a_callback_ended_stays_ended(tmp_path):
    callbacks = [StopAt(), FailAt("on_training_end", 10)]
    with pytest.raises(Failure):
        make(tmp_path, callbacks=callbacks).train_model(*loaders(), num_epochs=9)
    trainer = make(tmp_path, callbacks=[StopAt()])
    trainer.train_model(*loaders(), num_epochs=9, resume=True)
    assert trainer.run.step == 10


def test_max_steps_is_about_the_whole_run(tmp_path):
    make(tmp_path).train_model(loader(70), num_epochs=9, max_steps=7)
    trainer = make(tmp_path)
    trainer.train_model(loader(70), num_epochs=9, max_steps=7, resume=True)
    assert trainer.run.step == 7


def test_early_stopping_counts_through_an_interruption(tmp_path):
    def stopping(folder, *others):
        callbacks = [EarlyStopping("val/loss", patience=2, min_delta=10.0), *others]
        return make(tmp_path / folder, callbacks=callbacks)

    whole = stopping("whole")
    whole.train_model(*loaders(), num_epochs=9)
    with pytest.raises(Failure):
        stopping("run", FailAt("on_step_end", 7)).train_model(*loaders(), num_epochs=9)
    resumed = stopping("run")
    resumed.train_model(*loaders(), num_epochs=9, resume=True)
    assert resumed.run.step == whole.run.step == 15


class Counting(Callback):
    """Logs a number that it counts itself."""

    def __init__(self):
        self.count = 0

    def on_training_epoch_end(self, view):
        self.count += 1
        return Log({"count": self.count})

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callbacks_keep_their_state(tmp_path):
    with pytest.raises(Failure):
        make(tmp_path, callbacks=[Counting(), FailAt("on_step_end", 7)]).train_model(
            *loaders(), num_epochs=3
        )
    trainer = make(tmp_path, callbacks=[Counting()])
    trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert [row["count"] for row in trainer.run.history] == [1, 2, 3]


def test_another_run_is_continued_in_a_folder_of_its_own(tmp_path, run, whole):
    before = sorted(path.name for path in run.rglob("*"))
    make(tmp_path / "new").train_model(*loaders(), num_epochs=3, resume=run)
    left = contents(tmp_path / "new")
    assert left["history.csv"] == whole["history.csv"]
    assert left["best"] == whole["best"]
    assert sorted(path.name for path in run.rglob("*")) == before


def test_one_resume_checkpoint_may_be_named(tmp_path):
    options = {"checkpoint": bx.CheckpointOptions(every_steps=2, keep_last=9)}
    old = interrupted(tmp_path / "old", **options)
    trainer = make(tmp_path / "new", **options)
    steps = sorted(int(path.name) for path in (old / "checkpoints" / "resume").iterdir())
    trainer.train_model(*loaders(), num_epochs=3, resume=RunDirectory(old).resume / str(steps[0]))
    assert trainer.run.step == 15
    assert steps[0] < 8


def test_going_back_in_a_run_keeps_what_is_newest(tmp_path):
    interrupted(tmp_path, 12, checkpoint=bx.CheckpointOptions(every_steps=4, keep_last=9))
    back = make(tmp_path, callbacks=[FailAt("on_step_end", 7)])
    with pytest.raises(Failure):
        back.train_model(*loaders(), num_epochs=3, resume=RunDirectory(tmp_path).resume / "4")
    trainer = make(tmp_path, callbacks=[FailAt("on_step_end", 8)])
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert trainer.run.step == 8  # from 7, though 12 was saved before


def test_a_damaged_checkpoint_is_named_and_the_older_one_used(tmp_path, caplog, whole):
    options = {"checkpoint": bx.CheckpointOptions(every_steps=5, keep_last=2)}
    run = interrupted(tmp_path / "run", **options)
    victim = next(path for path in (run / "checkpoints/resume/8/arrays").rglob("d/*"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    make(run, **options).train_model(*loaders(), num_epochs=3, resume=True)
    assert "resume/8" in caplog.text
    assert "has another checksum" in caplog.text
    assert contents(run) == whole


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: loader(70, shuffle=True, seed=5), "seed was 4 and is 5"),
        (lambda: loader(70, batch_size=8, shuffle=True, seed=4), "batch_size was 16 and is 8"),
        (lambda: bx.data.ArrayLoader(classes(70, seed=1), 16, True, seed=4), "checksum was"),
    ],
)
def test_other_data_are_refused_and_nothing_is_changed(run, other, difference):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(DataError, match=difference):
        make(run).train_model(other(), *loaders()[1:], num_epochs=3, resume=True)
    changed = {p for p, data in before.items() if not p.exists() or p.read_bytes() != data}
    assert {path.name for path in changed} <= {"hparams.json", "hyperparameters.csv"}


def test_another_model_is_refused_with_a_table(run):
    with pytest.raises(CheckpointError, match=r"shape +state/params/Dense_0/kernel"):
        make(run, model_hparams={"features": 9}).train_model(*loaders(), num_epochs=3, resume=True)


def test_a_run_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        make(tmp_path).train_model(loader(), num_epochs=1, resume=str(tmp_path / "nowhere"))


def test_a_fresh_start_in_an_old_folder_is_what_resume_finds(tmp_path):
    make(tmp_path).train_model(*loaders(), num_epochs=3)
    with pytest.raises(Failure):
        make(tmp_path, callbacks=[FailAt("on_step_end", 2)]).train_model(*loaders(), num_epochs=3)
    trainer = make(tmp_path, callbacks=[FailAt("on_step_end", 3)])
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert trainer.run.step == 3


def test_two_trainers_do_not_train_in_one_folder(tmp_path):
    class Second(Callback):
        def on_training_start(self, view):
            make(tmp_path).train_model(loader(), num_epochs=1)

    with pytest.raises(RunDirectoryError, match="expected one writer"):
        make(tmp_path, callbacks=[Second()]).train_model(loader(), num_epochs=1)


def test_the_folder_may_be_moved(tmp_path, run, whole):
    shutil.move(run, tmp_path / "moved")
    make(tmp_path / "moved").train_model(*loaders(), num_epochs=3, resume=True)
    assert contents(tmp_path / "moved") == whole


def test_keep_last_zero_writes_no_resume_checkpoint(tmp_path):
    options = {"checkpoint": bx.CheckpointOptions(every_steps=1, keep_last=0)}
    make(tmp_path, **options).train_model(loader(), num_epochs=1)
    assert not (tmp_path / "checkpoints" / "resume").exists()


def test_nothing_moves_implicitly_while_a_run_is_saved(tmp_path):
    options = {"checkpoint": bx.CheckpointOptions(every_steps=2)}
    trainer = make(tmp_path, **options)
    with jax.transfer_guard("disallow"):
        trainer.train_model(*loaders(), num_epochs=2)
    assert np.isfinite(trainer.run.history[-1]["val/loss"])


def test_resuming_traces_each_step_once(run):
    traces = []

    class Traced(Classifier):
        def loss_function(self, model, batch, train):
            traces.append(train)
            return super().loss_function(model, batch, train)

    trainer = make(run, Traced)
    del traces[:]
    trainer.train_model(
        loader(70, shuffle=True, seed=4, drop_last=False), num_epochs=3, resume=True
    )
    assert traces.count(True) == 2  # for the two sizes of batch


def test_going_back_leaves_the_later_checkpoints_behind_at_once(tmp_path):
    interrupted(tmp_path, 12, checkpoint=bx.CheckpointOptions(every_steps=4, keep_last=9))
    back = make(tmp_path, callbacks=[FailAt("on_training_start", 4)])
    with pytest.raises(Failure):
        back.train_model(*loaders(), num_epochs=3, resume=RunDirectory(tmp_path).resume / "4")
    back.callbacks = [FailAt("on_step_end", 5)]
    with pytest.raises(Failure):
        back.train_model(*loaders(), num_epochs=3, resume=RunDirectory(tmp_path).resume / "4")
    trainer = make(tmp_path, callbacks=[FailAt("on_step_end", 6)])
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert trainer.run.step == 6


def test_the_best_model_of_an_older_training_does_not_pass_for_that_of_this_run(tmp_path):
    options = {"checkpoint": bx.CheckpointOptions(keep_best=3)}
    make(tmp_path, **options).train_model(*loaders(), num_epochs=2)
    with pytest.raises(Failure):
        make(tmp_path, callbacks=[FailAt("on_step_end", 7)], **options).train_model(
            *loaders(), num_epochs=3
        )
    trainer = make(tmp_path, callbacks=[FailAt("on_step_end", 8)], **options)
    with pytest.raises(Failure):
        trainer.train_model(*loaders(), num_epochs=3, resume=True)
    assert trainer.run.best_steps == [5]
    assert bx.checkpoint.BestCheckpoints(RunDirectory(tmp_path).best).steps() == [5]


def test_the_validation_after_the_last_step_is_made_up_for(tmp_path):
    limits = {"num_epochs": 9, "max_steps": 7}
    options = {"check_val_every_n_epoch": 5}
    with pytest.raises(Failure):
        make(tmp_path, callbacks=[FailAt("on_validation_epoch_end", 7)], **options).train_model(
            *loaders(), **limits
        )
    trainer = make(tmp_path, **options)
    trainer.train_model(*loaders(), **limits, resume=True)
    assert "val/loss" in trainer.run.history[-1]
    assert trainer.run.step == 7


def test_a_limit_in_the_middle_of_an_epoch_is_gone_on_from_exactly(tmp_path):
    make(tmp_path / "whole", optimizer_hparams=CONSTANT).train_model(*loaders(), num_epochs=3)
    for limits in ({"max_steps": 3}, {"max_steps": 8}, {"max_time": 1e-6}, {}):
        trainer = make(tmp_path / "run", optimizer_hparams=CONSTANT)
        trainer.train_model(*loaders(), num_epochs=3, resume=True, **limits)
    left, whole = contents(tmp_path / "run"), contents(tmp_path / "whole")
    del left["metrics.csv"], whole["metrics.csv"]  # the logger keeps the records of the limits
    assert left == whole


def test_a_limit_that_is_used_up_gives_the_same_result_again(tmp_path):
    metrics = make(tmp_path).train_model(*loaders(), num_epochs=3, max_steps=8)
    again = make(tmp_path)
    assert again.train_model(*loaders(), num_epochs=3, max_steps=8, resume=True) == metrics
    assert again.run.step == 8


def test_a_train_epoch_of_the_users_is_not_saved_halfway(tmp_path):
    class OwnLoop(Classifier):
        fails = True

        def train_epoch(self, train_loader):
            for batch in train_loader:
                self.state, _ = self.train_step(self.state, batch)
                if self.fails and int(self.state.step) > 7:
                    raise Failure
            return {"train/loss": 0.0}

    options = {"checkpoint": bx.CheckpointOptions(every_epochs=1)}
    with pytest.raises(Failure) as raised:
        make(tmp_path, OwnLoop, **options).train_model(loader(70), num_epochs=3)
    assert "has its own loop" in str(raised.value.__notes__)
    trainer = make(tmp_path, OwnLoop, **options)
    trainer.fails = False
    trainer.train_model(loader(70), num_epochs=3, resume=True)
    assert int(trainer.state.step) == 15
