"""The grid of optimizers: what is compared, that stored trainings are kept, and what is told."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import numpy as np
import optimizers
import pytest
from grid import cells, figure, tables, times
from grid.arms import SETUPS, Arm, arms
from grid.cells import Cell
from grid.times import StepTime

from boltax.demo import DemoData
from boltax.errors import NonFiniteError
from boltax.optim import build

ADAM = Arm("Adam", "", {"optimizer": "adam", "lr": 1e-3})
ADAM_L2 = Arm("Adam", "L2 1e-4", {**ADAM.hparams, "l2_regularization": 1e-4})
SGD = Arm("SGD + momentum", "", {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9})
TINY = dataclasses.replace(
    SETUPS["digits"],
    model_hparams={"block_sizes": (1,), "widths": (4,)},
    batch_size=8,
    eval_batch=8,
    epochs=2,
    augmentation="photographs",
)
TIMES = {"Adam": StepTime(0.010, 0.025), "SGD + momentum": StepTime(0.008, 0.020)}


def images() -> DemoData:
    random = np.random.default_rng(0)
    part = random.normal(size=(32, 8, 8, 1)).astype(np.float32), np.arange(32, dtype=np.int32) % 10
    return DemoData("tiny", part, part, part, tuple("0123456789"))


def cell(arm: Arm, seed: int, loss: float, accuracy: float, failure: str = "") -> Cell:
    curve = [2.0, loss]
    test = {"loss": loss, "acc": accuracy}
    return Cell(arm.name, seed, {}, [10, 20], curve, curve, [0.1, accuracy], test, failure)


def results() -> dict[str, list[Cell]]:
    """Three seeds; L2 costs every seed of Adam the same, SGD is better in some and worse in one."""
    return {
        ADAM.name: [cell(ADAM, seed, 1.0 + seed, 0.5 - seed / 10) for seed in range(3)],
        ADAM_L2.name: [cell(ADAM_L2, seed, 1.25 + seed, 0.49 - seed / 10) for seed in range(3)],
        SGD.name: [cell(SGD, seed, loss, 0.4) for seed, loss in enumerate((0.5, 1.9, 3.5))],
    }


def row(table: str, *starts: str) -> list[str]:
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [line for line in lines if line[: len(starts)] == list(starts)]
    return found


def test_every_optimizer_is_there_without_and_with_regularisation():
    weights = Path(__file__).parents[2] / "shared" / "data" / "lopt"
    if not (weights / "celo.theta.state").exists():
        pytest.skip("the weights of Celo and Celo-Adam are not here")
    chosen, missing = arms(weights)
    assert {arm.optimizer for arm in chosen} == {
        *("SGD + momentum", "Adam", "AdamW", "Celo", "Celo-Adam")
    }
    for plain, regularised in zip(chosen[::2], chosen[1::2], strict=True):
        assert (plain.optimizer, plain.regularizer) == (regularised.optimizer, "")
        assert "l2" not in build(plain.hparams, 100).describe
        assert "decay" not in build(plain.hparams, 100).describe
        kind = "decay 0.01" if plain.optimizer == "AdamW" else "l2 0.0001"
        assert kind in build(regularised.hparams, 100).describe
    assert list(missing) == ["VeLO"]
    assert "expected its trained weights" in missing["VeLO"]


def test_without_weights_the_others_run_and_the_page_says_who_is_missing():
    chosen, missing = arms(None)
    assert {arm.optimizer for arm in chosen} == {"SGD + momentum", "Adam", "AdamW"}
    page = optimizers.sections(TINY, [ADAM], results(), TIMES, list(missing))
    for name in ("Celo", "Celo-Adam", "VeLO"):
        assert f"\n\n{name} is left out: its weights are not here.\n\n" in page


def test_a_cell_is_trained_once(tmp_path, monkeypatch):
    file = tmp_path / "cell.json"
    first = cells.train(TINY, ADAM, 0, images(), file)
    assert first.steps == [4, 8]
    assert np.isfinite([*first.train_loss, *first.val_loss, *first.test.values()]).all()
    assert first.failure == ""
    monkeypatch.setattr(cells, "_train", None)
    assert cells.train(TINY, ADAM, 0, images(), file) == first
    with pytest.raises(TypeError, match="not callable"):
        cells.train(TINY, ADAM, 1, images(), file)  # another seed: what is stored will not do


@pytest.mark.parametrize("content", ["", "{", "[]", '{"arm": "adam-none"}', '{"unknown": 1}'])
def test_a_damaged_cell_is_not_used(tmp_path, content):
    file = tmp_path / "cell.json"
    file.write_text(content)
    assert Cell.stored(file, cells.recipe_of(TINY, ADAM, 0)) is None


def test_other_weights_make_another_recipe(tmp_path):
    recipes = []
    for content in (b"some", b"other"):
        file = tmp_path / content.decode()
        file.write_bytes(content)
        arm = Arm("Celo", "", {"optimizer": "celo", "weights": str(file)})
        recipes.append(cells.recipe_of(TINY, arm, 0))
        assert str(tmp_path) not in json.dumps(recipes[-1])
    assert recipes[0] != recipes[1]


def test_a_training_that_diverges_is_stored_with_the_reason(tmp_path, monkeypatch):
    def diverge(*_):
        raise NonFiniteError("the loss is nan at step 3")

    monkeypatch.setattr(cells, "_train", diverge)
    found = cells.train(TINY, SGD, 0, images(), tmp_path / "cell.json")
    assert found.failure == "the loss is nan at step 3"


def test_images_have_mean_0_and_deviation_1():
    pytest.importorskip("sklearn")
    found = cells.load_images(SETUPS["digits"], None)
    assert found.train[0].mean() == pytest.approx(0, abs=1e-4)
    assert found.train[0].std() == pytest.approx(1, abs=1e-4)
    assert found.test[0].mean() != 0  # by the training images' own numbers


def test_evaluation_batches_divide_the_digits():
    pytest.importorskip("sklearn")
    setup = SETUPS["digits"]
    found = cells.load_images(setup, None)
    assert [len(part[1]) % setup.eval_batch for part in (found.val, found.test)] == [0, 0]


def test_the_table_has_mean_deviation_and_time():
    table = tables.results([ADAM, ADAM_L2, SGD], results(), TIMES)
    assert row(table, "Adam", "none") == [
        *("Adam", "none", "3 of 3", "2.000 ± 1.000", "2.000 ± 1.000", "40.0 ± 10.0"),
        *("10.0", "25.0"),
    ]


def test_the_table_counts_only_seeds_that_ended():
    found = results()
    found[SGD.name] = [cell(SGD, 0, 1.0, 0.5), cell(SGD, 1, 0.0, 0.0, "the loss is nan")]
    found[ADAM.name] = [cell(ADAM, 0, 0.0, 0.0, "the loss is nan")]
    table = tables.results([ADAM, SGD], found, TIMES)
    assert row(table, "SGD + momentum")[2:6] == ["1 of 2", "1.000", "1.000", "50.0"]
    assert row(table, "Adam")[2:] == ["0 of 1", *["-"] * 5]


def test_differences_are_those_of_pairs_with_the_same_seed():
    table = tables.differences([ADAM, ADAM_L2, SGD], results())
    assert row(table, "Adam, L2 1e-4 against Adam")[1:] == [
        *("**+0.250 ± 0.000**", "**+0.250 ± 0.000**", "**-1.000 ± 0.000**")
    ]
    assert not row(table, "SGD + momentum against Adam")[1].startswith("**")
    assert len(table.splitlines()) == 4  # each pair once


def test_an_interval_is_that_of_students_t():
    # mean 2, deviation 1, three seeds: 4.303 * 1 / sqrt(3)
    assert tables.difference([1.0, 2.0, 3.0]) == "+2.000 ± 2.484"
    assert tables.difference([1.9, 2.0, 2.1]) == "**+2.000 ± 0.248**"
    assert tables.difference([1.0]) == "-"


def test_step_times_are_measured_once(tmp_path, monkeypatch):
    file = tmp_path / "times.json"
    found = times.step_times(TINY, [ADAM, ADAM_L2], images(), file, rounds=2)
    assert set(found) == {"Adam"}
    assert found["Adam"].wall > 0
    monkeypatch.setattr(times, "_measure", None)
    assert times.step_times(TINY, [ADAM], images(), file, rounds=2) == found
    with pytest.raises(TypeError, match="not callable"):
        times.step_times(TINY, [ADAM, SGD], images(), file, rounds=2)


def test_the_figure_has_a_line_for_each_arm_in_each_panel(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: seen.append(self))
    found = results() | {SGD.name: [cell(SGD, 0, 0.0, 0.0, "the loss is nan")]}
    figure.draw([ADAM, ADAM_L2, SGD], found, TIMES, "title", tmp_path / "figure.png")
    panels = seen[0].axes
    assert [[line.get_label() for line in axes.lines] for axes in panels] == [
        ["Adam", "Adam, L2 1e-4"]
    ] * 4
    assert panels[0].lines[0].get_ydata().tolist() == [2.0, 2.0]  # the mean of 1, 2 and 3 at last
    assert panels[1].lines[0].get_xdata().tolist() == [0.1, 0.2]  # 10 and 20 steps of 10 ms


def test_written_pages_have_the_machine_and_a_command_without_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizers, "RESULTS", tmp_path)
    monkeypatch.setattr(optimizers, "IMAGES", tmp_path)
    monkeypatch.setattr("sys.argv", ["optimizers.py", "--data", str(tmp_path), "--write"])
    drawn = tmp_path / "drawn.png"
    figure.draw([ADAM, ADAM_L2], results(), TIMES, "title", drawn)
    optimizers.write(SETUPS["cifar-cpu"], "| a table |", drawn)
    (page,) = tmp_path.glob("*-optimizers-cpu*.md")
    assert "`python benchmarks/optimizers.py --data DIR --write`" in page.read_text()
    assert page.read_text().endswith("| a table |\n")
    assert (tmp_path / "optimizers.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--full"], "Received --full without --data"),
        (["--optimizers", "sdg"], "invalid choice: 'sdg' .choose from"),
        (["--seeds", "0"], "Received --seeds 0; expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        optimizers.main(arguments)
    assert re.search(message, capsys.readouterr().err)


def test_a_report_is_of_what_is_stored(tmp_path, monkeypatch):
    recipe = cells.recipe_of(TINY, ADAM, 1)
    found = dataclasses.replace(cell(ADAM, 1, 1.0, 0.5), recipe=recipe)
    (tmp_path / "adam-none-1.json").write_text(json.dumps(dataclasses.asdict(found)))
    assert optimizers.stored(TINY, [ADAM, SGD], 3, tmp_path) == {ADAM.name: [found], SGD.name: []}


@pytest.mark.slow
def test_the_grid_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(optimizers.SETUPS, "digits", TINY)
    monkeypatch.setattr(optimizers, "load_images", lambda *_: images())
    monkeypatch.setattr(optimizers, "step_times", functools.partial(times.step_times, rounds=1))
    assert optimizers.main(["--seeds", "2", "--optimizers", "adam", "--cells", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert row(page, "Adam", "none")[2] == "2 of 2"
    assert row(page, "Adam", "L2 1e-4")[2] == "2 of 2"
    assert (tmp_path / "digits" / "optimizers.png").stat().st_size > 10_000
