"""`boltax tune`: a study on the command line, and its best configuration trained again."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import tune_project
from boltax import cli
from boltax.tune import open_storage
from boltax.tune._worker import RETRY_OF, counting
from tune_dummies import DATABASES

FUNCTION = f"{tune_project.__file__}:make_trainer"
QUICK = ["--epochs", "2", "--population", "2", "--no-progress"]


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def tune(*arguments):
    return cli.main(["tune", FUNCTION, *arguments])


def read(path):
    return json.loads(Path(path).read_text())


def test_a_study_leaves_its_best_configuration_which_trains_again(capsys):
    space = '{"lr": ("log", 1e-3, 1e-1), "width": [4]}'
    assert tune("--space", space, "--trials", "2", *QUICK, "--seed", "1") == 0
    said = capsys.readouterr().out
    best = read("best.json")
    assert best["hyperparameters"].keys() == {"lr", "width"}
    assert f"boltax tune {FUNCTION} --train best.json" in said
    assert tune("--train", "best.json") == 0
    said = capsys.readouterr().out
    assert f"val/acc {best['value']:.4g}" in said
    assert "test/acc" in said


def test_what_trains_is_told_line_by_line_without_a_terminal(capsys):
    space = "{'lr': [0.1]}"
    assert tune("--space", space, "--trials", "1", "--epochs", "1", "--storage", "s.journal") == 0
    said = capsys.readouterr().out
    assert "trial 0 complete after epoch 1, best val/acc" in said
    assert "1 of 1 trials ended here (1 complete)" in said
    study = optuna.load_study(study_name="study", storage=open_storage("s.journal"))
    assert study.best_params == {"lr": 0.1}


BAD = {
    "no space": ([], "Received a study without --space or --epochs"),
    "a malformed space": (["--space", "{'lr': (0, 1}", *QUICK], "which is no Python dict"),
    "an unknown name": (["--space", "two_width", *QUICK], "Did you mean 'two_widths'"),
    "an unknown hyperparameter": (["--space", "{'lrr': (0, 1)}", *QUICK], "Did you mean 'lr'"),
    "no such function": (
        ["--space", "space", *QUICK, "--loaders", "make_loader"],
        "Did you mean 'make_loaders'",
    ),
    "something else than loaders": (
        ["--space", "space", *QUICK, "--loaders", "Mlp"],
        "Received Mlp from Mlp(); expected loaders",
    ),
    "an unreachable storage": (
        ["--space", "space", *QUICK, "--storage", "sqlite:////no/such/folder/s.db"],
        "cannot be opened",
    ),
    "a missing metric": (
        ["--space", "space", *QUICK, "--monitor", "val/accuracy", "max"],
        "Write monitor=('val/acc', 'max')",
    ),
    "no configuration": (["--train", "none.json"], "none.json"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_arguments_are_one_clean_message(arguments, message, capsys):
    assert tune(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("boltax: ")
    assert message in said
    assert "Traceback" not in said


def start(number, *arguments):
    command = [sys.executable, "-m", "boltax.cli", "tune", FUNCTION, *arguments]
    return subprocess.Popen(
        [*command, "--best", f"best_{number}.json"], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["study.journal", *DATABASES])
def test_four_workers_share_a_study_and_one_that_is_killed_loses_nothing(storage):
    number, name = 16, f"study-{secrets.token_hex(6)}"  # a database outlives the test
    arguments = ["--space", "space", "--epochs", "60", "--trials", str(number), "--population", "2"]
    arguments += ["--storage", storage, "--heartbeat", "2", "--pruner", "none"]
    arguments += ["--study-name", name]
    opened = open_storage(storage)
    study = optuna.create_study(study_name=name, storage=opened, direction="maximize")
    workers = [start(n, *arguments) for n in range(4)]
    victim = workers[0]

    def of_victim(trial):
        return f"-{victim.pid}-" in trial.user_attrs.get("boltax:worker", "")

    while not any(of_victim(t) and t.intermediate_values for t in study.get_trials()):
        assert victim.poll() is None
        time.sleep(0.1)
    os.kill(victim.pid, signal.SIGKILL)
    said = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0, 0], said
    trials = study.get_trials()
    lost = [trial for trial in trials if trial.state.name == "FAIL" and of_victim(trial)]
    repeated = {
        trial.user_attrs[RETRY_OF]: trial for trial in trials if RETRY_OF in trial.user_attrs
    }
    assert lost
    assert repeated.keys() == {trial.number for trial in lost}
    assert all(repeated[trial.number].params == trial.params for trial in lost)
    counted = counting(trials)
    assert len(counted) == number
    assert all(trial.state.name == "COMPLETE" for trial in counted)
    assert all(sorted(trial.intermediate_values) == list(range(1, 61)) for trial in counted)
    assert len({json.dumps(trial.params) for trial in counted}) == number  # none twice
    bests = [read(f"best_{n}.json")["trial"] for n in (1, 2, 3)]
    assert len(set(bests)) == 1
    if storage in DATABASES:
        optuna.delete_study(study_name=name, storage=opened)
        opened.engine.dispose()
