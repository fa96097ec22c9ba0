"""Profiles: which steps they hold, where they are, and that none of it disturbs a run."""

import contextlib
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from boltax.callbacks import Callback, Profiler
from boltax.errors import ConfigurationError
from dummies import classifier, loader


class Unready:
    """A leaf of a state that notes when somebody waits for it."""

    def __init__(self):
        self.waits = 0

    def block_until_ready(self):
        self.waits += 1
        return self


class Noting(Profiler):
    """Notes after which steps it is called."""

    def __init__(self, *args):
        super().__init__(*args)
        self.called = []

    def on_step_end(self, view):
        self.called.append(view.step)
        super().on_step_end(view)


class Watching(Callback):
    """Notes after which steps a trace is running."""

    def __init__(self):
        self.recording = []

    def on_step_end(self, view):
        if is_recording():
            self.recording.append(view.step)


class Failing(Callback):
    every = 4

    def on_step_end(self, view):
        raise ValueError("boom")


def is_recording() -> bool:
    """Whether a trace is running: there can be one only."""
    try:
        jax.profiler.start_trace("probe")
    except RuntimeError:
        return True
    with contextlib.suppress(RuntimeError):
        jax.profiler.stop_trace()
    return False


def traces(folder) -> list[Path]:
    return sorted(Path(folder).glob("plugins/profile/*/*.trace.json.gz"))


@pytest.fixture(autouse=True)
def no_trace_is_left():
    yield
    assert not is_recording()


@pytest.fixture
def at(view, tmp_path):
    """Makes views of a run in the test's folder by their step."""
    return lambda step, **changes: view(step=step, log_dir=str(tmp_path), **changes)


def record(profiler: Profiler, at, begin: int, end: int) -> None:
    """Calls its hooks as a run of some steps does, from just before its first one."""
    profiler.on_step_end(at(begin))
    jax.jit(jnp.sin)(1.0).block_until_ready()
    profiler.on_step_end(at(end))


def test_it_asks_to_be_called_just_before_and_just_after_its_steps():
    profiler = Profiler(first_step=10, num_steps=5)
    asked = [profiler.next_step(step) for step in (0, 8, 9, 13, 14, 1000)]
    assert asked == [9, 9, 14, 14, None, None]
    assert Profiler(first_step=1, num_steps=1).next_step(0) == 1


def test_the_trace_is_in_the_folder_of_the_run_and_a_line_says_how_to_look_at_it(at, capsys):
    record(Profiler(10, 5), at, 9, 14)
    (trace,) = traces("profile")
    said = capsys.readouterr().out
    assert trace.stat().st_size > 0
    assert said.startswith(f"Recorded a profile of steps 10 to 14 in {Path.cwd() / 'profile'}.")
    assert f"tensorboard --logdir {Path.cwd() / 'profile'}" in said


def test_the_trace_may_be_in_another_folder(at):
    record(Profiler(10, 5, folder=Path("deep", "profiles")), at, 9, 14)
    assert len(traces("deep/profiles")) == 1
    assert not Path("profile").exists()


def test_it_records_between_its_two_calls_and_not_after_any_other_step(at):
    profiler, recording = Profiler(3, 2), []
    profiler.on_training_start(at(0))
    for step in range(1, 7):
        profiler.on_step_end(at(step))
        recording += [step] * is_recording()
    assert recording == [2, 3]


def test_it_waits_for_the_device_before_it_starts_and_before_it_stops(at):
    profiler, leaf = Profiler(3, 2), Unready()
    profiler.on_step_end(at(2, state=leaf))
    assert leaf.waits == 1
    profiler.on_step_end(at(3, state=leaf))
    assert leaf.waits == 1
    profiler.on_step_end(at(4, state=leaf))
    assert leaf.waits == 2


def test_the_very_first_step_is_recorded_from_the_start_of_training(at):
    profiler = Profiler(1, 2)
    profiler.on_training_start(at(0))
    assert is_recording()
    profiler.on_step_end(at(2))
    assert len(traces("profile")) == 1


def test_a_run_that_ends_within_the_steps_leaves_what_there_is(at, capsys):
    profiler = Profiler(3, 100)
    profiler.on_step_end(at(2))
    profiler.on_training_end(at(7))
    assert len(traces("profile")) == 1
    assert "a profile of steps 3 to 7 in" in capsys.readouterr().out


def test_a_run_that_fails_within_the_steps_leaves_what_there_is(at, capsys):
    profiler, broken = Profiler(3, 100), at(4, state=None)
    profiler.on_step_end(at(2))
    profiler.on_exception(broken, ValueError("boom"))
    assert len(traces("profile")) == 1
    assert "steps 3 to 4" in capsys.readouterr().out


def test_a_run_that_ends_before_the_steps_says_so(at, caplog):
    profiler = Profiler(3, 2)
    profiler.on_training_start(at(0))
    profiler.on_training_end(at(1))
    (said,) = [r.getMessage() for r in caplog.records]
    assert said == f"The run ended after step 1: {profiler!r} recorded nothing."


@pytest.mark.parametrize("step", [3, 4, 50])
def test_a_run_that_is_resumed_behind_the_beginning_records_nothing_and_says_so(at, caplog, step):
    profiler = Profiler(3, 2)
    profiler.on_training_start(at(step))
    for later in range(step + 1, step + 4):
        profiler.on_step_end(at(later))
    profiler.on_training_end(at(step + 3))
    (said,) = [r.getMessage() for r in caplog.records]
    assert said == f"The run goes on after step {step}: {profiler!r} records nothing."
    assert not Path("profile").exists()


def test_a_run_that_is_resumed_just_before_the_steps_records_them(at, caplog):
    profiler = Profiler(3, 2)
    profiler.on_training_start(at(2))
    profiler.on_step_end(at(4))
    assert len(traces("profile")) == 1
    assert not caplog.records


def test_a_trace_of_somebody_else_goes_on_and_a_warning_says_so(at, caplog):
    profiler = Profiler(3, 2)
    jax.profiler.start_trace("theirs")
    for step in (2, 4):
        profiler.on_step_end(at(step))
    profiler.on_training_end(at(5))
    assert is_recording()
    jax.profiler.stop_trace()
    assert len(traces("theirs")) == 1
    assert traces("profile") == []
    (said,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "records nothing: Profile has already been started" in said.getMessage()


def test_a_trace_that_somebody_else_stopped_is_no_error(at, caplog, capsys):
    profiler = Profiler(3, 2)
    profiler.on_step_end(at(2))
    jax.profiler.stop_trace()
    profiler.on_step_end(at(4))
    assert "could not be written: No profile started" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_made_is_a_warning(at, caplog):
    Path("taken").write_text("")
    profiler = Profiler(3, 2, folder="taken")
    profiler.on_step_end(at(2))
    assert "records nothing: " in caplog.text
    assert not is_recording()
    profiler.on_step_end(at(4))


def test_the_next_run_records_although_a_signal_ended_the_last_one(at):
    profiler = Profiler(3, 2)
    profiler.on_step_end(at(2))  # no hook is called on a signal
    profiler.on_training_start(at(0))
    assert not is_recording()
    record(profiler, at, 2, 4)
    assert traces("profile")


@pytest.mark.parametrize("name", ["first_step", "num_steps"])
@pytest.mark.parametrize("value", [0, -3, 1.5, "10", True, None])
def test_what_is_no_number_of_steps_is_an_error(name, value):
    with pytest.raises(ConfigurationError, match=rf"Profiler\({name}=.*at least 1.*Write Profiler"):
        Profiler(**{name: value})


def test_what_is_no_folder_is_an_error():
    with pytest.raises(ConfigurationError, match=r"folder=3\) of type int; expected a path"):
        Profiler(folder=3)


def test_a_run_calls_it_twice_and_trains_as_without_it():
    profiler = Noting(3, 4)
    profiled = classifier("profiled", callbacks=profiler)
    metrics = [t.train_model(loader(64), num_epochs=2) for t in (profiled, classifier("plain"))]
    assert len(traces(Path(profiled.log_dir, "profile"))) == 1
    assert profiler.called == [2, 6]
    assert metrics[0]["train/loss"] == metrics[1]["train/loss"]


def test_a_run_records_exactly_its_steps():
    watching = Watching()
    classifier("runs", callbacks=[Profiler(3, 4), watching]).train_model(loader(64), num_epochs=2)
    assert watching.recording == [2, 3, 4, 5]


def test_a_run_that_fails_leaves_its_trace_and_its_error():
    trainer = classifier("runs", callbacks=[Profiler(2, 50), Failing()])
    with pytest.raises(ValueError, match="boom"):
        trainer.train_model(loader(64), num_epochs=2)
    assert len(traces(Path(trainer.log_dir, "profile"))) == 1
