"""Runs that an older version was interrupted in go on under this one, to the same end."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import older_runs
from older_runs import INTERRUPTED_AT, NUM_EPOCHS, loaders, older_population, older_run

OLDER = sorted((Path(__file__).parents[1] / "fixtures").glob("older*"), key=str)
FINISHED_EPOCHS = INTERRUPTED_AT // 8
OTHER_PROCESSOR = 1e-6
"""How much may differ what is computed after the interruption: its end was found elsewhere."""


@pytest.fixture(params=OLDER, ids=lambda folder: folder.name)
def older(request, tmp_path) -> tuple[Path, dict[str, Any]]:
    """A copy of the folders that one version left, and what they are to end with."""
    folder = shutil.copytree(request.param, tmp_path / "older")
    return folder, json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def test_there_are_folders_of_an_older_version():
    assert "older" in [folder.name for folder in OLDER]


def test_a_run_goes_on_to_the_end_that_it_would_have_had(older, caplog):
    folder, expected = older
    assert older_runs.saved_step(folder / "run") == INTERRUPTED_AT
    trainer = older_run(folder / "run")
    metrics = trainer.train_model(*loaders(), num_epochs=NUM_EPOCHS, resume=True)
    assert not caplog.records, "nothing has changed, so nothing is warned of"
    assert trainer.run.step == 32
    found = older_runs.outcome_of_run(trainer, metrics)
    assert_same_outcome(found, expected["run"], "history", "state")
    assert found["metrics"] == pytest.approx(expected["run"]["metrics"], abs=OTHER_PROCESSOR)
    assert found["state"].keys() == expected["run"]["state"].keys()
    for path, value in expected["run"]["state"].items():
        assert_close(found["state"][path], value, path)


def test_the_best_model_of_an_older_run_loads_and_scores_as_it_did(older):
    folder, _ = older
    saved = json.loads((folder / "run" / "metrics" / "best_eval.json").read_text(encoding="utf-8"))
    trainer = older_runs.OlderClassifier.load_from_checkpoint(folder / "run", callbacks=())
    found = trainer.eval_model(loaders()[1], log_prefix="val/")
    assert found["val/loss"] == pytest.approx(saved["val/loss"], abs=OTHER_PROCESSOR)
    assert found["val/acc"] == saved["val/acc"]


@pytest.mark.parametrize("members_per_step", [1, 3])
def test_a_population_goes_on_to_the_end_that_it_would_have_had(older, members_per_step):
    folder, expected = older
    name = f"population_{members_per_step}"
    assert older_runs.saved_step(folder / name) == INTERRUPTED_AT
    population = older_population(folder / name, members_per_step)
    population.train_model(*loaders()[:2], num_epochs=NUM_EPOCHS, resume=True)
    found = older_runs.outcome_of_population(population)
    assert_same_outcome(found, expected[name], "history", "members")
    for before, after in zip(expected[name]["members"], found["members"], strict=True):
        assert before.keys() == after.keys()
        for path, value in before.items():
            assert_close(after[path], value, path)


def assert_same_outcome(found: dict[str, Any], expected: dict[str, Any], *separate: str) -> None:
    """Compares counters and records: those from before the interruption exactly."""
    for row, other in zip(found["history"], expected["history"], strict=True):
        if row["epoch"] <= FINISHED_EPOCHS:
            assert row == other
        assert row == pytest.approx(other, abs=OTHER_PROCESSOR)
    for name in expected.keys() - {"metrics", "rows", *separate}:
        assert found[name] == expected[name]
    for row, other in zip(found.get("rows", []), expected.get("rows", []), strict=True):
        numbers = {n for n, value in other.items() if isinstance(value, float)}
        assert row.keys() == other.keys()
        assert {n: row[n] for n in numbers} == pytest.approx(
            {n: other[n] for n in numbers}, abs=OTHER_PROCESSOR
        )
        assert {n: row[n] for n in row.keys() - numbers} == {
            n: other[n] for n in other.keys() - numbers
        }


def assert_close(found: list[Any], expected: list[Any], path: str) -> None:
    """Keys and counts are whole numbers, and exactly the same."""
    one, other = np.asarray(found), np.asarray(expected)
    assert one.dtype == other.dtype, path
    atol = 0 if np.issubdtype(other.dtype, np.integer) else OTHER_PROCESSOR
    np.testing.assert_allclose(one, other, rtol=atol, atol=atol, err_msg=path)
