"""Compiling: once for each form, in the background where asked, and never again in silence."""

import logging
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._base._chunks import Mode, one_of
from boltax._step import _programs
from boltax._step._programs import Compilations, Program
from boltax.errors import ConfigurationError, RecompilationError
from dummies import Classifier, classes, classifier, loader


def program(**options):
    """A program that counts its traces."""
    traces = []

    def function(state, batch):
        traces.append(batch.shape)
        return state + batch.sum()

    return Program(jax.jit(function), "train step", Compilations(**options)), traces


def test_each_form_of_the_batch_is_traced_once():
    add, traces = program()
    for size in (4, 4, 3, 4, 3):
        assert float(add(jnp.float32(1), jnp.ones(size))) == size + 1
    assert traces == [(4,), (3,)]


def test_what_was_started_in_the_background_is_not_compiled_again():
    add, traces = program()
    form = jax.ShapeDtypeStruct((4,), jnp.float32)
    assert add.start(jnp.float32(0), form) is add.start(jnp.float32(0), form)
    assert float(add(jnp.float32(1), jnp.ones(4))) == 5
    assert traces == [(4,)]
    assert add.compile_seconds > 0


def test_the_memory_of_the_compiler_is_given_back(monkeypatch):
    given_back = threading.Event()
    monkeypatch.setattr(_programs, "after_compiling", [given_back.set])
    add, _ = program()
    add(jnp.float32(1), jnp.ones(4))
    assert given_back.wait(timeout=60)


def test_it_says_what_is_compiled_and_books_the_time():
    shown = []

    def announce(text):
        from contextlib import nullcontext

        shown.append(text)
        return nullcontext()

    add, _ = program(announce=announce)
    add(jnp.float32(1), jnp.ones(4))
    assert shown == ["compiling the train step for batches of 4"]


def test_a_state_of_another_form_is_compiled_for_and_reported(caplog):
    add, traces = program(where=lambda: "step 7")
    add(jnp.float32(1), jnp.ones(4))
    with caplog.at_level(logging.WARNING, "boltax"):
        assert add(jnp.int32(1).astype(jnp.bfloat16), jnp.ones(4).astype(jnp.bfloat16)) == 5
        assert add(jnp.ones((2,)), jnp.ones(4)).shape == (2,)
    assert len(traces) == 3
    assert "compiled again at step 7" in caplog.text
    assert "state was float32[] and is float32[2]" in caplog.text
    assert "batch was float32[4] and is bfloat16[4]" in caplog.text


def test_an_error_of_the_arguments_is_the_error_of_jax():
    add, _ = program()
    add(jnp.float32(1), jnp.ones(4))
    with pytest.raises(TypeError, match="Triangle"):
        add(Triangle(), jnp.ones(4))


class Triangle:
    pass


def batches(*widths):
    inputs, labels = classes(16)
    return [(np.resize(inputs, (16, width)), labels) for width in widths]


class AnyWidth(Classifier):
    """Takes inputs of any width from 4 on."""

    def loss_function(self, model, batch, train):
        return super().loss_function(model, (batch[0][:, :4], batch[1]), train)


def test_a_changed_shape_is_told_with_step_and_remedy(tmp_path, caplog):
    trainer = classifier(tmp_path, AnyWidth)
    with caplog.at_level(logging.WARNING, "boltax"):
        trainer.train_model(batches(4, 4, 6, 4), num_epochs=2)
    (message,) = [r.getMessage() for r in caplog.records if "compiled again" in r.getMessage()]
    assert "The train step was compiled again at train, epoch 1, step 2" in message
    assert "batch[0] was float32[16, 4] and is float32[16, 6]" in message
    assert "pad them in the loader" in message


def test_more_recompilations_than_allowed_are_an_error(tmp_path):
    trainer = classifier(tmp_path, AnyWidth, loop=bx.LoopOptions(max_recompiles=1))
    with pytest.raises(
        RecompilationError, match=r"batch\[0\] was float32.* and is float32\[16, 7\]"
    ):
        trainer.train_model(batches(4, 6, 7), num_epochs=1)
    assert trainer.run.step == 2


def test_a_ragged_last_batch_counts_in_training_and_is_named(tmp_path, capsys):
    trainer = classifier(tmp_path, enable_progress_bar=True)
    trainer.train_model(loader(50, 16), loader(50, 16), num_epochs=2)
    told = [line for line in capsys.readouterr().out.splitlines() if "compiled again" in line]
    assert len(told) == 1
    assert "train step" in told[0]
    assert "step 3" in told[0]
    strict = classifier(tmp_path, loop=bx.LoopOptions(max_recompiles=0))
    with pytest.raises(RecompilationError, match="drop_last=True"):
        strict.train_model(loader(50, 16), num_epochs=1)


def test_a_ragged_validation_is_no_recompilation(tmp_path):
    trainer = classifier(tmp_path, loop=bx.LoopOptions(max_recompiles=0))
    trainer.train_model(loader(50, 16, drop_last=True), loader(50, 16), num_epochs=2)
    assert trainer.run.step == 6


@pytest.mark.parametrize("value", [-1, 0.5, True])
def test_a_number_of_recompilations_that_is_none_is_refused(value):
    with pytest.raises(ConfigurationError, match="max_recompiles"):
        bx.LoopOptions(max_recompiles=value)


class Counting(Classifier):
    """Notes each trace of its loss, by mode and batch size."""

    def __init__(self, *args, **kwargs):
        self.traces = []
        super().__init__(*args, **kwargs)

    def loss_function(self, model, batch, train):
        self.traces.append((train, len(batch[1])))
        return super().loss_function(model, batch, train)


@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_is_traced_once_for_each_size_of_batch(tmp_path, steps):
    loop = bx.LoopOptions(steps_per_execution=steps)
    trainer = classifier(tmp_path, Counting, loop=loop)
    trainer.traces.clear()  # of the initialisation
    trainer.train_model(loader(50, 16), loader(40, 16), num_epochs=3)
    trainer.eval_model(loader(40, 16))
    assert sorted(trainer.traces) == [(False, 16), (True, 2), (True, 16)]


def test_the_compiled_step_takes_the_memory_of_state_and_metrics(tmp_path):
    from boltax._base._chunks import Chunk, Mode, Plan
    from boltax._step._bodies import Training

    trainer = classifier(tmp_path)
    trainer.init_optimizer(1, 4)
    chunk = Chunk(Plan(), jax.device_put(classes(8)), [{"epoch": 1, "batch": 1}], 8)
    carry = Training(trainer.state, trainer._made.steps.empty_train(trainer.state, chunk, None))
    single = trainer._made.steps.train.programs[Mode.SINGLE].lower((), carry, chunk.feed).compile()
    memory = single.memory_analysis()
    arrays = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.number)]
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in arrays)
    aliased = single.as_text().splitlines()[0]
    assert "input_output_alias" in aliased


def test_evaluation_sees_a_numpy_scalar_as_it_is(tmp_path):
    trainer = classifier(tmp_path)
    assert np.isfinite(trainer.eval_model(loader(40, 16))["loss"])


def test_shapes_that_come_on_purpose_are_compiled_once_each_and_not_told(caplog):
    add, traces = program(batch_shapes=3, most_again=0)
    with caplog.at_level(logging.INFO, "boltax"):
        for size in (4, 8, 6, 8, 4, 6):
            add(jnp.float32(1), jnp.ones(size))
    assert traces == [(4,), (8,), (6,)]
    assert not caplog.messages
    with pytest.raises(RecompilationError, match=r"batch was float32\[4\] and is float32\[9\]"):
        add(jnp.float32(1), jnp.ones(9))


def test_another_dtype_is_told_whatever_shapes_are_meant():
    add, _ = program(batch_shapes=3, most_again=0)
    add(jnp.float32(1), jnp.ones(4))
    with pytest.raises(RecompilationError, match=r"is int32\[4\]"):
        add(jnp.float32(1), jnp.ones(4, jnp.int32))


@pytest.mark.parametrize("mode", [Mode.LOOP, Mode.UNROLLED])
def test_a_dispatch_of_several_reports_the_shape_of_a_batch(mode, caplog):
    function = jax.jit(lambda state, feed: state)
    add = Program(function, "train step", Compilations(), one_of=partial(one_of, mode))
    with caplog.at_level(logging.WARNING, "boltax"):
        for length in (512, 1024):
            batch = np.zeros((2, 1, length), np.float32)
            add(jnp.float32(1), batch if mode is Mode.LOOP else tuple(batch))
    assert "batch was float32[1, 512] and is float32[1, 1024]" in caplog.text


def test_declared_buckets_train_without_a_word(tmp_path, caplog):
    lengths = (4, 8, 8, 4, 6, 4)
    batches = [(np.ones((2, n), np.float32), np.zeros(2, np.int32)) for n in lengths]

    class Sums(Classifier):
        def loss_function(self, model, batch, train):
            inputs, labels = batch
            pooled = inputs.sum(1, keepdims=True) * jnp.ones((1, 4), inputs.dtype)
            return super().loss_function(model, (pooled, labels), train)

    with caplog.at_level(logging.WARNING, "boltax"):
        options = bx.LoopOptions(batch_shapes=3, max_recompiles=0)
        trainer = classifier(tmp_path, Sums, exmp_input=batches[0], loop=options)
        trainer.train_model(batches, batches, num_epochs=2)
    assert "compiled again" not in caplog.text
