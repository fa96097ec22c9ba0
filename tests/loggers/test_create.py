import subprocess
import sys

import pytest

from boltax.errors import ConfigurationError, MissingExtraError, UnknownNameError
from boltax.loggers import (
    CsvLogger,
    ForeignLogger,
    LoggerGroup,
    MlflowLogger,
    NoLogger,
    TensorBoardLogger,
    WandbLogger,
    create_loggers,
)
from boltax.loggers._create import as_logger_group


class Minimal:
    def log_metrics(self, metrics, step):
        pass


def create(logger_type, folder="runs", **options):
    return create_loggers(logger_type, log_dir=folder, config={"lr": 0.1}, **options)


@pytest.mark.parametrize(
    "logger_type, expected",
    [
        ("TensorBoard", [TensorBoardLogger]),
        ("tensorboard", [TensorBoardLogger]),
        ("CSV", [CsvLogger]),
        ("none", [NoLogger]),
        (None, [NoLogger]),
        ([], []),
        (["TensorBoard", "csv"], [TensorBoardLogger, CsvLogger]),
        (("csv", NoLogger()), [CsvLogger, NoLogger]),
        (Minimal(), [ForeignLogger]),
        ([Minimal(), "csv"], [ForeignLogger, CsvLogger]),
    ],
)
def test_loggers_by_name_or_as_objects(logger_type, expected):
    group = create(logger_type)
    assert isinstance(group, LoggerGroup)
    assert [type(member) for member in group.loggers] == expected


@pytest.mark.parametrize("name, expected", [("wandb", WandbLogger), ("MLflow", MlflowLogger)])
def test_optional_loggers_by_name(name, expected, tmp_path):
    pytest.importorskip(name.lower())
    group = create(name, tmp_path, project_name="project", run_name="run")
    assert type(group.loggers[0]) is expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_an_error_before_the_run(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "boltax\[{name}\]"'):
        create(name)


@pytest.mark.parametrize(
    "name, meant", [("tensorbord", "TensorBoard"), ("wandbb", "wandb"), ("cvs", "csv")]
)
def test_a_misspelt_name_gets_a_suggestion(name, meant):
    with pytest.raises(UnknownNameError, match=f"logger '{name}'.*Did you mean '{meant}'"):
        create([name])


@pytest.mark.parametrize("wrong, kind", [(3, "int"), (CsvLogger, "the class CsvLogger")])
def test_what_is_no_logger_is_refused_in_three_parts(wrong, kind):
    with pytest.raises(ConfigurationError, match=f"Received {kind} as a logger; expected.*Write"):
        create(wrong)


def test_the_config_is_logged_before_the_first_record(tmp_path):
    group = create("csv", tmp_path)
    assert list(tmp_path.iterdir()) == []
    group.log_metrics({"a": 1.0}, 1)
    assert (tmp_path / "hyperparameters.csv").read_text() == "name,value\nlr,0.1\n"


def test_loggers_that_a_user_made_become_a_group():
    group = LoggerGroup([])
    assert as_logger_group(group) is group
    assert [type(member) for member in as_logger_group(None).loggers] == [NoLogger]
    assert [type(m) for m in as_logger_group([Minimal(), NoLogger()]).loggers] == [
        ForeignLogger,
        NoLogger,
    ]
    with pytest.raises(ConfigurationError, match="Received str as a logger"):
        as_logger_group("csv")


def test_making_loggers_imports_none_of_their_packages(tmp_path):
    code = """
import sys
from boltax.loggers import create_loggers
create_loggers(["TensorBoard", "csv", "none"], log_dir="runs", config={}).finalize()
heavy = {"tensorboardX", "wandb", "mlflow", "matplotlib", "torch", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
