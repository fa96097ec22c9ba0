"""SIGTERM, SIGUSR1 and Ctrl-C: the run is saved, everything is closed, the process leaves."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from boltax._process._signals import Interrupted, Signals
from boltax.callbacks import Callback
from boltax.loggers import Logger
from dummies import Classifier, classifier, loader

SIGNALS = pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGUSR1, 138),
        (signal.SIGHUP, 129),
        (signal.SIGINT, 130),
    ],
    ids=["SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT"],
)


@pytest.fixture(autouse=True)
def handlers_of_a_shell():
    """Python's own handlers, whoever started the tests: a job in the background ignores Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


class SignalAt(Callback):
    """Sends a signal to this process at a moment of a run."""

    def __init__(self, number, hook="on_step_end", step=5):
        self.number, self.hook, self.step = number, hook, step

    def on_training_start(self, view):
        self._maybe("on_training_start", view)

    def on_step_end(self, view):
        self._maybe("on_step_end", view)

    def on_training_epoch_end(self, view):
        self._maybe("on_training_epoch_end", view)

    def _maybe(self, hook, view):
        if hook == self.hook and view.step == self.step:
            os.kill(os.getpid(), self.number)


class Recorder(Logger):
    def __init__(self):
        self.ends = []

    def log_metrics(self, metrics, step=None):
        pass

    def finalize(self, status="success"):
        self.ends.append(status)


def trainer_of(folder, *callbacks, logger="none", trainer_class=Classifier):
    params = {"log_dir": str(folder), "logger_type": logger}
    return classifier("unused", trainer_class, logger_params=params, callbacks=callbacks)


@SIGNALS
def test_a_signal_saves_and_leaves_with_its_status(tmp_path, number, status):
    handlers = signal.getsignal(number)
    logger = Recorder()
    trainer = trainer_of(tmp_path, SignalAt(number), logger=logger)
    with pytest.raises(SystemExit) as left:
        trainer.train_model(loader(70), loader(), num_epochs=3)
    assert left.value.code == status
    assert trainer.run.step == 5
    assert (tmp_path / "checkpoints" / "resume" / "5").is_dir()
    assert logger.ends == ["interrupted"]
    assert signal.getsignal(number) is handlers


@pytest.mark.parametrize(("hook", "step"), [("on_training_start", 0), ("on_training_epoch_end", 5)])
def test_a_signal_outside_of_steps_is_seen_too(tmp_path, hook, step):
    evaluated = []

    class Evaluating(Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            evaluated.append(epoch_idx)

    trainer = trainer_of(tmp_path, SignalAt(signal.SIGTERM, hook, step), trainer_class=Evaluating)
    with pytest.raises(SystemExit):
        trainer.train_model(loader(70), loader(60), num_epochs=3)
    assert trainer.run.step == step
    assert evaluated == []  # left within the validation
    resumed = trainer_of(tmp_path, trainer_class=Evaluating)
    resumed.train_model(loader(70), loader(60), num_epochs=3, resume=True)
    assert resumed.run.step == 15
    assert evaluated == [1, 2, 3]


def test_a_notebook_gets_a_usable_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    trainer = trainer_of(tmp_path, SignalAt(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.train_model(loader(70), num_epochs=2)
    assert set(trainer.eval_model(loader())) == {"loss", "acc"}
    trainer.callbacks = ()
    trainer.train_model(loader(70), num_epochs=2, resume=True)
    assert trainer.run.step == 10


def test_a_run_in_another_thread_trains_without_handlers(tmp_path):
    trainer = trainer_of(tmp_path)
    thread = threading.Thread(
        target=trainer.train_model, args=(loader(),), kwargs={"num_epochs": 1}
    )
    thread.start()
    thread.join()
    assert trainer.run.step == 4


def test_an_ignored_signal_stays_ignored():
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            signals.poll()
        assert signals.received is None
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_whoever_waited_for_the_signal_before_gets_it_when_all_is_saved():
    calls = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: calls.append("plugin"))
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(Interrupted):
                signals.poll()
            assert calls == []
        with pytest.raises(SystemExit):
            signals.leave()
        assert calls == ["plugin"]
    finally:
        signal.signal(signal.SIGUSR1, previous)


PROGRAM = """
import time
from boltax._process._signals import Signals
with Signals() as signals:
    print("ready", flush=True)
    while True:  # never polls
        time.sleep(0.01)
"""


def test_a_second_signal_leaves_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM
        assert "SIGTERM: saving after this step; again leaves at once" in errors
    finally:
        process.kill()
        process.communicate()
