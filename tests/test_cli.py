"""The `boltax` command: help, version, arguments, and errors without a traceback."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import boltax
from boltax import cli
from boltax.checkpoint import BestCheckpoints, RunDirectory
from boltax.demo import _demo
from boltax.demo._recipes import RECIPES


def test_help_names_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_demo_help_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["demo", "--help"])
    text = capsys.readouterr().out
    assert all(
        name in text
        for name in (*RECIPES, "--path", "--epochs", "--seed", "--log-dir", "--no-progress")
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"boltax {boltax.__version__}\n"


BAD = {
    "no command behind options": (["--"], "the following arguments are required: COMMAND"),
    "an unknown command": (["dmeo"], "expected one of: checkpoints, demo, export, fit, "),
    "a misspelt command": (["chekpoints", "runs"], "Did you mean 'checkpoints'?"),
    "an unknown data set": (["demo", "--data", "mnist"], "invalid choice: 'mnist'"),
    "an unknown option": (["demo", "--epoch-count", "3"], "Did you mean '--epochs'?"),
    "an option of another command": (["demo", "--memory=3"], "Received option '--memory'"),
    "too many arguments": (["checkpoints", "a", "b"], "unrecognized arguments: b"),
    "no epoch": (["demo", "--epochs", "0"], "received '0'; expected a whole number of at least 1"),
    "a broken number": (["demo", "--epochs", "3.5"], "received '3.5'; expected a whole number"),
    "checkpoints of nothing": (["checkpoints"], "arguments are required: RUN"),
    "a negative seed": (
        ["demo", "--seed=-1"],
        "received '-1'; expected a whole number of at least 0",
    ),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_arguments_are_explained(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(arguments)
    assert message in capsys.readouterr().err


def test_the_command_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert all(name in error for name in ("demo", "checkpoints", "replay", "tune", "preflight"))


def test_a_misspelt_option_shows_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(["checkpoints", "runs", "--no-verfy"])
    error = capsys.readouterr().err
    assert error.startswith("usage: boltax checkpoints")
    assert "Did you mean '--no-verify'?" in error


def test_the_package_is_a_program() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "boltax", "--version"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, f"boltax {boltax.__version__}\n")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the command hands to the demo, which does not run."""
    received: list[dict] = []
    monkeypatch.setattr(_demo, "run", lambda **arguments: received.append(arguments))
    return received


def test_demo_runs_on_digits_without_arguments(calls: list[dict]) -> None:
    assert cli.main(["demo"]) == 0
    expected = {
        "data": "digits",
        "path": None,
        "epochs": None,
        "seed": 42,
        "log_dir": "runs",
        "has_progress": True,
    }
    assert calls == [expected]


def test_demo_takes_every_argument(calls: list[dict]) -> None:
    options = "--data fashion-mnist --path a/b --epochs 3 --seed 7 --log-dir out --no-progress"
    assert cli.main(["demo", *options.split()]) == 0
    assert calls == [
        {
            "data": "fashion-mnist",
            "path": "a/b",
            "epochs": 3,
            "seed": 7,
            "log_dir": "out",
            "has_progress": False,
        }
    ]


def test_ctrl_c_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_demo, "run", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "boltax: interrupted\n"


def test_absent_data_is_one_clean_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--data", "fashion-mnist", "--path", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"boltax: Received the folder {str(tmp_path)!r}")
    assert "apt-get install dataset-fashion-mnist" in message
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()


def test_a_path_for_digits_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--path", "somewhere"]) == 2
    assert "Leave --path out" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one best model."""
    directory = RunDirectory(tmp_path / "run")
    weights = {"params": {"w": np.ones(3, np.float32)}}
    BestCheckpoints(directory.best).save(300, weights, {"val/loss": 0.5})
    return directory.path


def test_checkpoints_are_listed_described_and_compared(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    one = str(run / "checkpoints" / "best" / "300")
    for arguments, shown in [
        ([str(run)], "1 checkpoints"),
        ([str(run), "--no-verify"], "not verified"),
        ([one], "params/w  float32[3]"),
        ([one, "--diff", str(run)], "1 are equal and 0 differ"),
    ]:
        assert cli.main(["checkpoints", *arguments]) == 0
        assert shown in capsys.readouterr().out


def test_damaged_checkpoints_are_told_by_the_exit_status(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    one = run / "checkpoints" / "best" / "300"
    (one / "structure.json").write_text("{}")
    for path in (run, one):
        assert cli.main(["checkpoints", str(path), "--no-verify"]) == 0
        assert cli.main(["checkpoints", str(path)]) == 1
    assert "structure.json has 2 bytes" in capsys.readouterr().out
    assert cli.main(["checkpoints", str(run / "none")]) == 2
    assert cli.main(["checkpoints", str(one), "--diff", str(run)]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked, advice",
    [
        ("nope", "Runs in this folder: run."),
        ("rum", "Did you mean run?"),
        ("run/hparams.json", "which is a file"),
    ],
    ids=["another name", "nearly the name", "a file"],
)
def test_a_folder_that_is_not_there_is_answered_with_the_runs_that_are(
    capsys: pytest.CaptureFixture[str], run: Path, asked: str, advice: str
) -> None:
    (run / "hparams.json").write_text("{}")
    for arguments in (["checkpoints", asked], ["replay", asked, "--trainer", "train.py:Mine"]):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert f"Received {asked!r}" in error
        assert advice in error


def test_help_imports_nothing_that_only_the_demo_needs() -> None:
    program = (
        "import sys\nfrom boltax import cli\n"
        "try:\n    cli.main(['demo', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'matplotlib', 'sklearn', 'boltax.demo'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=120, stdout=subprocess.DEVNULL
    )


def test_replay_names_the_line_of_a_step_that_was_not_finite(tmp_path, capsys):
    import dummies
    from boltax.errors import NonFiniteError

    inputs, labels = dummies.classes(8)
    inputs[3, 1] = float("nan")
    params = {"log_dir": str(tmp_path / "run"), "logger_type": "none"}
    trainer = dummies.classifier("unused", logger_params=params)
    with pytest.raises(NonFiniteError):
        trainer.train_model([(inputs, labels)], num_epochs=1)
    trainer_class = f"{dummies.__file__}:Classifier"
    assert cli.main(["replay", str(tmp_path / "run"), "--trainer", trainer_class]) == 0
    out = capsys.readouterr().out
    assert "step 1 (epoch 1, batch 1)" in out
    assert "nn.Dense(self.features)(x)" in out


def test_replay_of_a_run_without_such_a_step_is_an_error(tmp_path, capsys):
    import dummies

    assert cli.main(["replay", str(tmp_path), "--trainer", f"{dummies.__file__}:Classifier"]) == 2
    assert "holds no step that was not finite" in capsys.readouterr().err


PREFLIGHT = """
from pathlib import Path
import numpy as np, boltax as bx, flax.linen as nn

class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(100_000)(x)[:, :1]

class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch) - 1) ** 2).mean(), {}

def make_trainer():
    return Regressor(Model, exmp_input=np.zeros((8, 50), np.float32), enable_progress_bar=False)

def make_number():
    return 3
"""


@pytest.fixture
def train_py() -> str:
    Path("train.py").write_text(PREFLIGHT)
    return "train.py"


def test_preflight_makes_no_run(capsys: pytest.CaptureFixture[str], train_py: str) -> None:
    assert cli.main(["preflight", f"{train_py}:make_trainer", "--batch-size", "20"]) == 0
    text = capsys.readouterr().out
    assert "Regressor, batches of 20" in text
    assert "5,100,000" in text
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"train.py"}


def test_preflight_says_what_does_not_fit(
    capsys: pytest.CaptureFixture[str], train_py: str
) -> None:
    arguments = ["preflight", f"{train_py}:make_trainer", "--memory", "0.05"]
    assert cli.main(arguments) == cli.DOES_NOT_FIT
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_preflight_finds_a_batch_size(capsys: pytest.CaptureFixture[str], train_py: str) -> None:
    arguments = ["preflight", f"{train_py}:make_trainer", "--find-batch-size", "--memory", "0.3"]
    assert cli.main(arguments) == 0
    assert "the largest batches that fit: " in capsys.readouterr().out


def test_preflight_asks_about_other_devices(
    capsys: pytest.CaptureFixture[str], train_py: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provided: list[int] = []
    monkeypatch.setattr("boltax._commands._preflight._provide", provided.append)
    arguments = ["preflight", f"{train_py}:make_trainer", "--batch-size", "20", "--mesh"]
    assert cli.main([*arguments, "data=2"]) == 0
    assert "batches of 20, on 2 x cpu; memory is that of each" in capsys.readouterr().out
    assert provided == [2]
    assert cli.main([*arguments, "data=3"]) == cli.FAILED  # as many as a machine does not show
    assert "data=3 is larger than that" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*arguments, "data=many"])
    assert "Write --mesh data=8,model=4" in capsys.readouterr().err


def test_preflight_of_what_is_no_trainer(capsys: pytest.CaptureFixture[str], train_py: str) -> None:
    assert cli.main(["preflight", f"{train_py}:make_number"]) == cli.FAILED
    assert "expected a function without arguments that returns a trainer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, received",
    [("Regressor", "the class Regressor"), ("make_sized", "a function with arguments")],
)
def test_preflight_of_what_cannot_be_called(
    capsys: pytest.CaptureFixture[str], train_py: str, name: str, received: str
) -> None:
    with Path(train_py).open("a") as file:
        file.write("\ndef make_sized(size):\n    return make_trainer()\n")
    assert cli.main(["preflight", f"{train_py}:{name}"]) == cli.FAILED
    assert f"Received {received} from train.py:{name}" in capsys.readouterr().err


def test_a_trainer_that_the_file_makes_is_made_of_shapes(
    capsys: pytest.CaptureFixture[str], train_py: str
) -> None:
    with Path(train_py).open("a") as file:
        file.write("\ntrainer = make_trainer()\n")
    for name in ("trainer", "make_trainer"):
        assert cli.main(["preflight", f"{train_py}:{name}"]) == 0
        assert "5,100,000" in capsys.readouterr().out
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"train.py"}


END = PREFLIGHT.count("\n") + 1
TRAINING = """
def main():
    print("this trains")
    make_trainer().train_model([np.zeros((8, 50), np.float32)], num_epochs=1)
"""
COMMANDS = {
    "preflight": ["preflight", "train.py:make_trainer"],
    "replay": ["replay", ".", "--trainer", "train.py:Regressor"],
    "tune": ["tune", "train.py:make_trainer", "--space", "{}", "--epochs", "1"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.usefixtures("train_py")
def test_a_file_that_trains_when_it_is_loaded_is_refused_before_it_is_run(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    Path("train.py").write_text(f"print('run')\n{PREFLIGHT}{TRAINING}\nmain()\n")
    assert cli.main(arguments) == cli.FAILED
    out, error = capsys.readouterr()
    assert not out
    assert f"Received train.py, which trains as it is loaded: line {END + 6}, main()" in error
    assert 'Write `if __name__ == "__main__":` above the lines that train' in error


def test_a_main_guard_is_enough(capsys: pytest.CaptureFixture[str], train_py: str) -> None:
    guard = 'if __name__ == "__main__":\n    main()\n'
    Path(train_py).write_text(f"{PREFLIGHT}{TRAINING}\n{guard}")
    assert cli.main(COMMANDS["preflight"]) == 0
    assert "this trains" not in capsys.readouterr().out


def test_a_training_that_no_reading_finds_ends_as_it_begins(
    capsys: pytest.CaptureFixture[str], train_py: str
) -> None:
    Path(train_py).write_text(f"{PREFLIGHT}{TRAINING}\nfor each in [main]:\n    each()\n")
    assert cli.main(COMMANDS["preflight"]) == cli.FAILED
    error = capsys.readouterr().err
    assert error.startswith(
        f"boltax: train.py:{END + 3}: Received a training that begins as train.py is"
    )
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"train.py"}


FAULTS = {
    "as it is loaded": ("\n1 / 0\n", 1, "ZeroDivisionError: division by zero"),
    "in the function": (
        "\ndef make_trainer():\n    return {}['lr']\n",
        2,
        "KeyError: 'lr'",
    ),
    "in its grammar": ("\ndef make(:\n", 1, "SyntaxError: "),
    "in its imports": ("\nimport no_such_module\n", 1, "ModuleNotFoundError: No module named"),
}


@pytest.mark.parametrize("text, line, message", FAULTS.values(), ids=FAULTS)
def test_an_error_of_the_file_is_its_line_and_its_message(
    capsys: pytest.CaptureFixture[str], train_py: str, text: str, line: int, message: str
) -> None:
    Path(train_py).write_text(PREFLIGHT + text)
    assert cli.main(COMMANDS["preflight"]) == cli.FAULTY_FILE
    error = capsys.readouterr().err
    assert error.startswith(f"boltax: train.py:{END + line}: {message}")
    assert "Traceback" not in error


def test_the_whole_traceback_is_there_for_those_who_ask(train_py: str) -> None:
    Path(train_py).write_text(f"{PREFLIGHT}\n1 / 0\n")
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        cli.main([*COMMANDS["preflight"], "--traceback"])


def test_an_error_of_boltax_names_the_line_of_the_file(
    capsys: pytest.CaptureFixture[str], train_py: str
) -> None:
    Path(train_py).write_text(f"{PREFLIGHT}\noptions = bx.LoopOptions(log_every=0)\n")
    assert cli.main(COMMANDS["preflight"]) == cli.FAILED
    error = capsys.readouterr().err
    assert error.startswith(f"boltax: train.py:{END + 1}: Received LoopOptions(log_every=0)")


def test_a_file_that_ends_the_process_is_told(
    capsys: pytest.CaptureFixture[str], train_py: str
) -> None:
    Path(train_py).write_text(f"{PREFLIGHT}\nimport sys\nassert len(sys.argv) == 1\nsys.exit(3)\n")
    assert cli.main(COMMANDS["preflight"]) == cli.FAILED
    assert "ends the process as it is loaded (status 3)" in capsys.readouterr().err
