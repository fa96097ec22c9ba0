"""The progress of a run: what is chosen where, tqdm's arguments, helpers for foreign bars."""

import gc
import io
import threading
import time
import weakref

import pytest

from boltax._progress import _progress
from boltax._progress._live import LiveDisplay, is_taken
from boltax._progress._notebook import NotebookDisplay
from boltax._progress._plain import PlainDisplay
from boltax._progress._progress import Progress, advance_examples, set_metrics
from boltax._progress._tracked import NoDisplay, Tracked
from boltax.errors import UnknownNameError
from dummies import Classifier, classifier, loader

DISPLAYS = {
    "terminal": LiveDisplay,
    "notebook": lambda _: NotebookDisplay(lambda bundle: lambda changed: None),
    "plain": PlainDisplay,
    "none": lambda _: NoDisplay(),
}


@pytest.fixture(params=DISPLAYS)
def display(request, terminal):
    made = DISPLAYS[request.param](terminal.file)
    yield made
    made.close()


def track(display, items, **kwargs):
    return Tracked(items, lambda: display, **kwargs)


# Every display


def test_every_display_shows_nested_loops(display):
    done = []
    for epoch in (outer := track(display, range(2), desc="Epochs", total=2)):
        for step in (inner := track(display, iter(range(3)), desc="Training", leave=False)):
            display.note("a note")
            inner.set_metrics({"loss": 0.1, "matrix": [[1.0]]})
            inner.advance_examples(8)
            done.append((epoch, step))
        outer.set_metrics({"train/loss": float("nan")})
    assert done == [(epoch, step) for epoch in range(2) for step in range(3)]
    assert display.is_idle


def test_every_display_takes_statuses_in_any_order(display):
    display.show_status("compiling the train step")
    for _ in track(display, range(1)):
        display.show_status("saving")
        display.hide_status("compiling the train step")
        display.hide_status("saving")
    display.hide_status("never shown")
    assert display.is_idle


def test_every_display_closes_in_the_midst_and_again(display):
    outer = iter(track(display, range(3)))
    next(outer)
    inner = iter(track(display, range(3), leave=False))
    next(inner)
    display.show_status("saving")
    display.close()
    display.close()
    assert display.is_idle
    assert list(inner) == [1, 2]
    assert list(outer) == [1, 2]


def test_every_display_lets_exceptions_pass_and_is_used_again(display):
    with pytest.raises(ZeroDivisionError, match="zero"):
        sum(1 / (2 - item) for item in track(display, range(3)))
    assert display.is_idle
    assert list(track(display, range(3))) == [0, 1, 2]


def test_every_display_takes_bars_that_end_out_of_order(display):
    outer, inner = iter(track(display, range(3))), iter(track(display, range(3)))
    next(outer), next(inner)
    assert list(outer) == [1, 2]
    assert list(inner) == [1, 2]
    assert display.is_idle


def test_every_display_takes_nothing_and_everything(display):
    assert list(track(display, [], total=0)) == []
    assert list(track(display, range(5), total=3)) == [0, 1, 2, 3, 4]


def test_an_item_costs_little(display):
    count = 100_000
    bar = track(display, range(count), total=count, leave=False)
    started = time.perf_counter()
    for _ in bar:
        advance_examples(bar, 32)
    assert (time.perf_counter() - started) / count < 5e-6  # about 0.5 us on an idle machine


# The choice


def test_a_terminal_has_bars(terminal, attach):
    attach()
    with Progress() as progress:
        for _ in progress.track(range(2), desc="Epochs"):
            assert is_taken()
    assert terminal.screen().text.startswith("Epochs  ━")


def test_a_file_has_plain_lines():
    file = io.StringIO()
    list(Progress(file=file).track(range(2), desc="Testing"))
    assert file.getvalue().startswith("testing step 2/2")


def test_the_standard_output_of_the_moment_is_used(capsys):
    list(Progress().track(range(2), desc="Testing"))
    assert capsys.readouterr().out.startswith("testing step 2/2")


def test_a_notebook_has_its_display(monkeypatch):
    class InNotebook:
        is_jupyter = True

    monkeypatch.setattr(_progress, "Console", InNotebook)
    progress = Progress()
    progress.note("a note")
    assert isinstance(progress._display, NotebookDisplay)


def test_a_process_without_streams_shows_nothing(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert list(Progress().track(range(2))) == [0, 1]


def test_training_within_training_has_plain_lines_above_the_bars(terminal, attach):
    attach()
    with Progress() as progress, Progress() as within:
        for _ in progress.track(range(2), desc="Outer"):
            list(within.track(range(3), desc="Inner"))
    first, second, bar = terminal.screen().text.splitlines()
    assert first.startswith("inner step 3/3")
    assert second.startswith("inner step 3/3")
    assert bar.startswith("Outer  ━")


def test_two_threads_that_train_at_once_do_not_disturb_each_other(attach):
    attach()
    results = []

    def train(name):
        with Progress() as progress:
            bar = progress.track(range(20), desc=name)
            results.append([time.sleep(0.001) or item for item in bar])

    threads = [threading.Thread(target=train, args=(f"Trial {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[*range(20)]] * 3
    assert not is_taken()


# What is off


def test_disabled_progress_gives_the_iterable_itself(capsys):
    items = iter([1, 2])
    progress = Progress(enabled=False)
    assert progress.track(items, desc="Epochs") is items
    progress.note("unseen")
    with progress.status("compiling"):
        pass
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_disable_gives_the_iterable_itself():
    items = [1, 2]
    assert Progress().track(items, disable=True) is items


# Arguments of tqdm


def test_arguments_of_tqdm_are_taken():
    bar = Progress().track(
        range(3),
        desc="Epochs:",
        ncols=80,
        position=0,
        mininterval=1,
        dynamic_ncols=True,
        postfix={"loss": 1.0},
    )
    assert bar.desc == "Epochs"
    assert bar.metrics == {"loss": 1.0}


def test_an_argument_that_nobody_has_is_an_error():
    with pytest.raises(UnknownNameError, match=r"argument of tracker 'descr'.*Did you mean 'desc'"):
        Progress().track([], descr="Epochs")


class WithoutLength(list):
    def __len__(self):
        raise TypeError("an IterableDataset has no length")


@pytest.mark.parametrize(
    "iterable,total,expected",
    [
        ([1, 2], None, 2),
        (iter([1, 2]), None, None),
        (WithoutLength(), None, None),
        (iter([1, 2]), 2, 2),
    ],
)
def test_the_total_is_the_length_where_there_is_one(iterable, total, expected):
    assert Progress().track(iterable, total=total).total == expected


# Statuses


def test_a_status_that_took_long_is_told(capsys, monkeypatch):
    times = iter([0.0, 3.21])
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(times))
    with Progress().status("compiling the train step"):
        pass
    assert capsys.readouterr().out == "compiled the train step in 3.2 s\n"


def test_a_status_has_own_words_for_its_end(capsys, monkeypatch):
    monkeypatch.setattr(_progress, "WORTH_TELLING", -1.0)
    with Progress().status("compiling", done="ready"):
        pass
    assert capsys.readouterr().out == "ready in 0.0 s\n"


def test_a_quick_status_is_not_told(capsys):
    with Progress().status("compiling the train step"):
        pass
    assert capsys.readouterr().out == ""


def test_a_status_that_fails_is_hidden_and_not_told(terminal, attach):
    attach()
    progress = Progress()
    with pytest.raises(ValueError, match="boom"), progress.status("compiling the train step"):
        raise ValueError("boom")
    assert terminal.screen().text == ""
    assert not is_taken()


# Bars of others


class Tqdm:
    """The part of tqdm's bars that is used."""

    def set_postfix(self, ordered_dict=None, refresh=True, **kwargs):
        self.shown = (dict(ordered_dict), refresh)


def test_a_bar_of_tqdm_shows_metrics_without_drawing_at_once():
    bar = Tqdm()
    set_metrics(bar, {"loss": 1.0})
    advance_examples(bar, 32)
    assert bar.shown == ({"loss": 1.0}, False)


def test_tqdm_itself():
    tqdm = pytest.importorskip("tqdm")
    file = io.StringIO()
    for _ in (bar := tqdm.tqdm(range(3), file=file)):
        set_metrics(bar, {"loss": 0.5})
        advance_examples(bar, 32)
    assert "loss=0.5" in file.getvalue()


def test_what_is_no_bar_is_left_alone():
    set_metrics(range(3), {"loss": 1.0})
    advance_examples([1, 2], 32)


def test_nothing_is_kept_of_a_bar_that_is_done():
    progress = Progress(file=io.StringIO())
    bar = progress.track(range(3))
    list(bar)
    kept = weakref.ref(bar)
    del bar
    gc.collect()
    assert kept() is None


# What a run hands over


class Bars(Classifier):
    """Keeps what its bars are told."""

    def tracker(self, iterator, **kwargs):
        bar = Tracked(iterator, NoDisplay, total=None, unit=kwargs.get("unit", "step"))
        self.__dict__.setdefault("bars", []).append(bar)
        return bar

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, metrics | {"grad_like": loss}


@pytest.mark.parametrize(
    "monitor, first",
    [
        (None, ["train/loss", "val/acc", "val/loss"]),  # of the guide, acc before loss
        (("val/loss", "min"), ["train/loss", "val/loss", "val/acc"]),
        (("val/grad_like", "min"), ["train/loss", "val/grad_like", "val/acc"]),
    ],
    ids=["the guide's", "a loss", "a metric of the user"],
)
def test_the_bar_of_the_epochs_has_the_training_loss_and_the_monitor_first(
    tmp_path, monitor, first
):
    trainer = classifier(tmp_path, Bars, monitor=monitor, enable_progress_bar=True)
    trainer.train_model(loader(16, 8), loader(16, 8), num_epochs=1)
    (epochs,) = (bar for bar in trainer.bars if bar.unit == "epoch")
    assert list(epochs.metrics)[:3] == first
    row = trainer.run.history[-1]
    assert epochs.metrics == {n: row[n] for n in epochs.metrics}
    names = {n for n in row if n.startswith(("train/", "val/"))}
    assert set(epochs.metrics) <= names
