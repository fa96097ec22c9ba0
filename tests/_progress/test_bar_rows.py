"""BarRows fit any width."""

import io
import textwrap

import pytest
from rich.console import Console

from boltax._progress._bar_rows import BarRows, note_text
from boltax._progress._tracked import NoDisplay, Tracked


def bar(desc="Training", total=1380, count=138, examples=17664):
    made = Tracked([], NoDisplay, desc=desc, total=total)
    made.pace.sample(0.0, 0, 0)
    made.count, made.examples = count, examples
    made.sample(10.0)
    made.metrics = {"train/loss": 0.31234, "train/acc": 0.9123, "val/loss": 0.4, "val/acc": 0.9}
    return made


def lines(bars, width, **kwargs):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(BarRows(bars, 10.0, **kwargs))
    return console.file.getvalue().splitlines()


def test_a_row_of_a_usual_terminal():
    made = bar()
    made.metrics = {"train/loss": 0.31234, "train/acc": 0.9123}
    (line,) = lines([made], 80)
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    assert cells[0] == "Training"
    assert cells[2:] == ["138/1380", "1,766 ex/s", "01:30 left", "loss 0.312", "acc 0.912"]


def test_a_wide_terminal_has_longer_words_and_all_metrics():
    (line,) = lines([bar()], 140)
    assert "1,766 examples/s" in line
    assert "train/loss 0.312  train/acc 0.912  val/loss 0.400  val/acc 0.900" in line


@pytest.mark.parametrize("width", range(8, 200, 3))
def test_no_row_wraps_or_exceeds_the_terminal(width):
    shown = lines([bar("Epochs", 30, 3, 0), bar(), bar("A very long description of things")], width)
    assert len(shown) == 3
    assert max(map(len, shown)) <= width


def test_the_count_is_the_last_to_go():
    (line,) = lines([bar()], 12)
    assert line.strip() == "138/1380"


def test_columns_stand_below_each_other():
    epochs, training = lines([bar("Epochs", 30, 15, 0), bar(count=690)], 80)
    assert epochs.index("━") == training.index("━")
    assert epochs.index("/30") == training.index("/1380") + 2


def test_an_unknown_total_has_a_count_and_a_rate_but_no_end():
    (line,) = lines([bar(total=None)], 80)
    assert " 138  1,766 ex/s" in line
    assert "left" not in line


def test_a_finished_row_says_how_long_it_took():
    (line,) = lines([bar()], 80, is_finished=True)
    assert "in 00:10" in line


METRICS = {
    "val/acc": 0.9123,
    "val/loss": 0.4,
    "train/acc": 0.9,
    "train/grad_norm": 2.5,
    "train/loss": 0.31234,
}


def running(width, metrics=METRICS):
    """The rows of a run: epochs and their metrics above the training of one of them."""
    epochs, training = bar("Epochs", 30, 3, 0), bar()
    epochs.metrics, training.metrics = metrics, {"acc": 0.9, "grad_norm": 2.5, "loss": 0.25}
    return lines([epochs, training], width)


@pytest.mark.parametrize("width", [78, 80, 100, 120])
def test_the_training_loss_and_the_monitor_have_room(width):
    epochs, training = running(width)
    assert "train/loss 0.312  val/acc 0.912" in epochs
    assert "loss 0.250  acc 0.900" in training
    assert "138/1380" in training


@pytest.mark.parametrize("width", [56, 60, 72])
def test_in_a_narrow_terminal_the_training_loss_has_room(width):
    epochs, training = running(width)
    assert "train/loss 0.312" in epochs
    assert "loss 0.250" in training


def test_the_rate_gives_way_to_the_metrics_and_only_to_them():
    assert not any("ex/s" in line for line in running(80))
    assert any("examples/s" in line for line in running(120))


def test_a_metric_that_fits_nowhere_takes_nothing_away():
    made = bar()
    made.metrics = {"a_name_of_a_metric" * 5: 1.0}
    (line,) = lines([made], 80)
    assert "ex/s" in line
    assert "01:30 left" in line


def test_a_note_breaks_between_words_and_a_table_does_not():
    def shown(text, width=40):
        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(note_text(text), crop=False)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    words = "a report whose words are many and which has to break somewhere"
    table = "\u2503 " + "a cell of a table " * 4 + "\u2503"
    assert shown(f"{words}\n{table}") == [*textwrap.wrap(words, 40), table]
    assert shown("short [and] plain\n  indented") == ["short [and] plain", "  indented"]
