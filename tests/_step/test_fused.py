"""Several steps in one dispatch: same numbers, same moments, and a choice that is measured."""

import logging
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

import boltax as bx
from boltax._base._chunks import Mode
from boltax._loop._saving import state_tree
from boltax._step import _fused
from boltax.callbacks import Callback
from boltax.errors import ConfigurationError, NonFiniteError, UnknownNameError
from boltax.loggers._table import Table
from dummies import Classifier, Low, Mlp, NnxMlp, classes, classifier, loader, to_host


def trained(folder, *, model_class=Mlp, steps="auto", batches=None, num_epochs=2, **options):
    """A trainer after some epochs over 13 batches, the last of them ragged."""
    loop = bx.LoopOptions(**{"steps_per_execution": steps, "log_every": 6, **options})
    trainer = classifier(folder, model_class=model_class, loop=loop)
    batches = loader(100, 8, shuffle=True) if batches is None else batches
    trainer.train_model(batches, loader(30, 8), num_epochs=num_epochs)
    return trainer


def assert_same(one, other):
    trees = [to_host(state_tree(t.state.replace(rng=None))) for t in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *trees)
    rows = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in t.run.history]
        for t in (one, other)
    ]
    assert rows[0] == rows[1]


@pytest.fixture
def not_small(monkeypatch):
    """Has steps begin one by one, as large ones do."""
    monkeypatch.setattr(_fused, "SMALL_FLOPS", -1)


@pytest.fixture
def measured(monkeypatch):
    """Has ``"auto"`` measure in runs of a few steps."""
    monkeypatch.setattr(_fused.FusedStep, "_pays", lambda *_: True)
    monkeypatch.setattr(_fused, "SINGLES", 3)
    monkeypatch.setattr(_fused, "GAIN", 0.0)
    start = _fused.FusedStep._start

    def start_and_wait(*args, **options):
        compiled = start(*args, **options)
        compiled.result()
        return compiled

    monkeypatch.setattr(_fused.FusedStep, "_start", start_and_wait)


def kinds_of_data():
    batches = list(loader(100, 8))
    return {
        "arrays": loader(100, 8, shuffle=True),
        "arrays on the device": loader(100, 8, shuffle=True, device_resident=True),
        "list": batches,
        "device arrays": [jax.device_put(batch) for batch in batches],
        "function": lambda: iter(batches),
    }


@pytest.mark.parametrize("model_class", [Mlp, NnxMlp], ids=["linen", "nnx"])
@pytest.mark.parametrize("steps", [2, 5, 32])
def test_fused_steps_give_the_same_numbers_to_the_last_bit(tmp_path, model_class, steps):
    one_by_one = trained(tmp_path, model_class=model_class, steps=1)
    fused = trained(tmp_path, model_class=model_class, steps=steps)
    assert fused._made.steps.train.chosen.mode is Mode.LOOP
    assert_same(fused, one_by_one)


@pytest.mark.parametrize("kind", kinds_of_data())
def test_every_kind_of_data_can_be_fused(tmp_path, kind):
    one_by_one, fused = (
        trained(tmp_path, steps=steps, batches=kinds_of_data()[kind]) for steps in (1, 4)
    )
    assert_same(fused, one_by_one)


def test_data_on_the_device_are_read_in_the_order_of_those_on_the_host(tmp_path):
    host, device = (
        trained(tmp_path, batches=loader(100, 8, shuffle=True, device_resident=resident))
        for resident in (False, True)
    )
    assert_same(host, device)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU begins with single steps")
@pytest.mark.parametrize("examples", [96, 100])
def test_small_steps_begin_as_a_loop(tmp_path, examples):
    batches = loader(examples, 8, shuffle=True)
    one_by_one = trained(tmp_path, steps=1, batches=batches)
    sent = []
    loop = bx.LoopOptions(log_every=6)
    auto = classifier(tmp_path, Classifier, loop=loop)
    programs = auto._made.steps.train.programs
    programs[Mode.SINGLE] = Spy(programs[Mode.SINGLE], sent)
    auto.train_model(batches, loader(30, 8), num_epochs=2)
    assert len(sent) == (0 if examples == 96 else 2)  # the ragged batches
    assert_same(auto, one_by_one)


@pytest.mark.parametrize(("gain", "mode"), [(0.0, Mode.SINGLE), (1e9, Mode.LOOP)])
def test_what_begins_as_a_loop_is_measured_too(tmp_path, measured, monkeypatch, gain, mode):
    monkeypatch.setattr(_fused, "GAIN", gain)
    one_by_one = trained(tmp_path, steps=1, num_epochs=12)
    auto = trained(tmp_path, num_epochs=12)
    assert auto._made.steps.train.chosen.mode is mode
    assert_same(auto, one_by_one)


def test_auto_measures_and_gives_the_same_numbers(tmp_path, not_small, measured):
    one_by_one = trained(tmp_path, steps=1, num_epochs=12)
    auto = trained(tmp_path, num_epochs=12)
    assert auto._made.steps.train.chosen is not None
    assert auto._made.steps.train.chosen.mode is not Mode.SINGLE  # GAIN of 0: whatever it measures
    assert_same(auto, one_by_one)


def test_auto_says_what_it_chose(tmp_path, not_small, measured, capsys):
    loop = bx.LoopOptions(log_every=6)
    trainer = classifier(tmp_path, loop=loop, enable_progress_bar=True)
    trainer.train_model(loader(100, 8), num_epochs=12)
    assert "train step: 13 steps in a dispatch" in capsys.readouterr().out


def test_auto_tries_nothing_that_cannot_win_back_its_compilation(tmp_path, not_small):
    trainer = trained(tmp_path, num_epochs=12)
    assert trainer._made.steps.train.chosen.mode is Mode.SINGLE


def test_auto_keeps_single_steps_where_they_are_faster(tmp_path, not_small, measured, monkeypatch):
    monkeypatch.setattr(_fused, "GAIN", 1e9)
    trainer = trained(tmp_path, num_epochs=30)
    assert trainer._made.steps.train.chosen.mode is Mode.SINGLE


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3,))(x[..., None])
        return nn.Dense(3)(x.mean(1))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only slow on a CPU")
def test_no_loop_is_made_of_convolutions_on_a_cpu(tmp_path):
    one_by_one = trained(tmp_path, model_class=ConvNet, steps=1)
    trainer = trained(tmp_path, model_class=ConvNet, steps=4)
    assert trainer._made.steps.train.chosen.mode is Mode.UNROLLED
    if _fused.is_unrolling_exact():
        assert_same(trainer, one_by_one)
    else:
        params = [to_host(t.state.params) for t in (trainer, one_by_one)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *params)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only slow on a CPU")
def test_auto_unrolls_convolutions_only_where_that_is_exact(tmp_path, measured):
    one_by_one = trained(tmp_path, model_class=ConvNet, steps=1, num_epochs=12)
    trainer = trained(tmp_path, model_class=ConvNet, num_epochs=12)
    mode = Mode.UNROLLED if _fused.is_unrolling_exact() else Mode.SINGLE
    assert trainer._made.steps.train.chosen.mode is mode
    assert_same(trainer, one_by_one)


class Moments(Callback):
    """Notes each step at which it is called, by the counter and by the state."""

    def __init__(self, due):
        self.due, self.steps = due, []

    def next_step(self, step):
        return min((due for due in self.due if due > step), default=None)

    def on_step_end(self, view):
        self.steps.append((view.step, int(jax.device_get(view.state.step))))


class Spy:
    """A program that notes its calls."""

    def __init__(self, program, calls):
        self._program, self._calls = program, calls

    def __call__(self, *args):
        self._calls.append(args)
        return self._program(*args)

    def __getattr__(self, name):
        return getattr(self._program, name)


class Records(Callback):
    def __init__(self):
        self.steps = []

    def on_log(self, view):
        self.steps.append((view.step, int(jax.device_get(view.state.step))))


@pytest.mark.parametrize("steps", [1, 3, 32])
def test_everything_falls_on_its_exact_step(tmp_path, steps):
    moments, records = Moments([1, 4, 7, 20, 26]), Records()
    trainer = classifier(
        tmp_path,
        callbacks=[moments, records],
        loop=bx.LoopOptions(steps_per_execution=steps, log_every=5),
        checkpoint=bx.CheckpointOptions(every_steps=11, keep_last=99),
    )
    trainer.train_model(loader(100, 8), num_epochs=2)
    assert moments.steps == [(step, step) for step in (1, 4, 7, 20, 26)]
    assert records.steps == [(step, step) for step in (5, 10, 15, 20, 25)]
    saved = {
        int(path.name) for path in (Path(trainer.log_dir) / "checkpoints/resume").glob("[0-9]*")
    }
    assert 11 in saved  # a later one waits for the disk


def rows_of(trainer):
    """The records of a run, without what the clock says."""
    table = Table(Path(trainer.log_dir, "metrics.csv"), key="step")
    return [
        {name: v for name, v in row.items() if name.split("/")[0] not in ("speed", "time")}
        for row in table.rows()
    ]


@pytest.mark.parametrize("resident", [False, True])
def test_a_dispatch_may_hold_several_records(tmp_path, resident):
    runs, spans = [], []
    for steps in (1, 5, 32):
        loop = bx.LoopOptions(steps_per_execution=steps, log_every=3)
        trainer = classifier(tmp_path, Low, loop=loop)
        data = loader(100, 8, shuffle=True, device_resident=resident)
        sent, send = [], trainer._made.steps.train.programs[Mode.LOOP]
        trainer._made.steps.train.programs[Mode.LOOP] = Spy(send, sent)
        trainer.train_model(data, loader(30, 8), num_epochs=2)
        runs.append(rows_of(trainer))
        spans.append(len(sent))
    assert runs[0] == runs[1] == runs[2]
    assert [row["step"] for row in runs[0] if "train/step/lowest" in row] == [*range(3, 25, 3)]
    assert spans[0] == 0
    assert spans[2] < spans[1] < 8  # there are eight records


class Waited(Spy):
    """A program whose results are there when the host goes on."""

    def __call__(self, *args):
        return jax.block_until_ready(super().__call__(*args))


@pytest.mark.parametrize("is_waited", [False, True])
def test_a_bad_step_ends_the_records_of_its_dispatch(tmp_path, is_waited):
    runs = []
    for steps in (1, 32):
        loop = bx.LoopOptions(steps_per_execution=steps, log_every=2)
        trainer = classifier(tmp_path, loop=loop)
        if is_waited:
            programs = trainer._made.steps.train.programs
            programs.update({mode: Waited(program, []) for mode, program in programs.items()})
        with pytest.raises(NonFiniteError, match="at step 8"):
            trainer.train_model(poisoned(8), num_epochs=1)
        runs.append(rows_of(trainer))
        assert [row["step"] for row in runs[-1]] == [2, 4, 6]
        [epoch], [interval] = trainer.run.metrics.epoch, trainer.run.metrics.interval
        assert int(epoch.batches) + int(interval.batches) == 7
    assert runs[0] == runs[1]


@pytest.mark.parametrize("limit", [1, 9, 17])
def test_a_limit_of_steps_is_kept_exactly(tmp_path, limit):
    trainer = classifier(tmp_path, loop=bx.LoopOptions(steps_per_execution=32))
    trainer.train_model(loader(100, 8), num_epochs=5, max_steps=limit)
    assert int(trainer.state.step) == trainer.run.step == limit


def test_a_next_step_that_is_not_later_is_an_error(tmp_path):
    class Stuck(Callback):
        def next_step(self, step):
            return step

        def on_step_end(self, view):
            pass

    trainer = classifier(tmp_path, callbacks=[Stuck()])
    with pytest.raises(ConfigurationError, match=r"Received 0 from Stuck.next_step\(0\)"):
        trainer.train_model(loader(), num_epochs=1)


def poisoned(bad):
    """Ten batches of which one holds a NaN."""
    inputs, labels = classes(80)
    inputs[(bad - 1) * 8 + 3, 1] = np.nan
    return bx.data.ArrayLoader((inputs, labels), 8)


@pytest.mark.parametrize("bad", [1, 2, 6, 10])
@pytest.mark.parametrize("steps", [1, 4, 32])
def test_a_bad_step_among_fused_ones_is_named_and_undone(tmp_path, bad, steps):
    loop = bx.LoopOptions(steps_per_execution=steps, log_every=3)
    trainer = classifier(tmp_path, loop=loop)
    with pytest.raises(NonFiniteError, match=rf"at step {bad} \(epoch 1, batch {bad}\)"):
        trainer.train_model(poisoned(bad), num_epochs=1)
    good = classifier(tmp_path, loop=loop)
    if bad > 1:
        good.train_model(poisoned(bad), num_epochs=1, max_steps=bad - 1)
        jax.tree.map(
            np.testing.assert_array_equal, to_host(trainer.state.params), to_host(good.state.params)
        )
    assert trainer.run.step == bad - 1


def test_skipping_is_the_same_for_fused_steps(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "boltax"):
        one, other = (
            trained(tmp_path, steps=steps, batches=poisoned(5), on_nonfinite="skip")
            for steps in (1, 8)
        )
    assert_same(one, other)
    assert caplog.text.count("its update is left out") == 4


@pytest.mark.parametrize("value", ["often", 0, 2.5, True])
def test_a_number_of_steps_that_is_none_is_refused(value):
    error = UnknownNameError if value == "often" else ConfigurationError
    with pytest.raises(error, match="steps_per_execution"):
        bx.LoopOptions(steps_per_execution=value)


class Slow(Classifier):
    """An evaluation that differs from batch to batch, so that order and number count."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {**metrics, "noise": jax.random.normal(model.rng("noise"), (len(batch[1]),))}


@pytest.mark.parametrize("resident", [False, True])
def test_fused_evaluation_is_the_same(tmp_path, resident):
    results = []
    for steps in (1, 3, 32):
        loop = bx.LoopOptions(steps_per_execution=steps)
        trainer = classifier(tmp_path, Slow, loop=loop)
        data = loader(100, 8, device_resident=resident)
        results.append([trainer.eval_model(data, log_prefix="val/") for _ in range(2)])
    assert results[0] == results[1] == results[2]
