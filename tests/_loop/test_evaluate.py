"""Evaluation of several states over the same batches is that of each alone."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax._loop._evaluate import OneState, draw, evaluate_states, validations_left
from boltax._loop._limits import Limits
from boltax._loop._run import Run
from boltax._loop._validations import Validations
from boltax.errors import ConfigurationError, DataError, TrainingError
from boltax.metrics._accumulate import compute
from dummies import Plain, classes, classifier, loader


class Side:
    """Several states that share the steps of one trainer, on one device."""

    def __init__(self, steps):
        self.steps, self.sent = steps, []

    def steps_of(self, index):
        return self.steps

    def placed(self, chunk):
        return [chunk]

    def send_each(self, number, send, *, is_timed):
        for index in range(number):
            self.sent.append(index)
            send(index)


@pytest.fixture
def trainer(tmp_path):
    trainer = classifier(tmp_path)
    trainer.init_optimizer(1, 1)
    return trainer


def test_states_side_by_side_have_the_metrics_that_each_has_alone(trainer):
    other = trainer.state.replace(params=jax.tree.map(lambda x: x * 1.5, trainer.state.params))
    states, steps = [trainer.state, other], trainer._parts.steps
    both = evaluate_states(Side(steps), states, draw(steps, loader(27, 8)))
    alone = [
        evaluate_states(OneState(steps), [state], draw(steps, loader(27, 8)))[0] for state in states
    ]
    assert [compute(metrics) for metrics in both] == [compute(metrics) for metrics in alone]
    assert compute(both[0]) != compute(both[1])


def test_an_evaluation_is_the_mean_over_all_examples(trainer):
    inputs, labels = (np.concatenate(parts) for parts in zip(*loader(27, 8), strict=True))
    logits = np.asarray(trainer.bind_model()(inputs))
    assert trainer.eval_model(loader(27, 8))["acc"] == pytest.approx(
        (logits.argmax(-1) == labels).mean()
    )


def test_no_batch_is_an_error(trainer):
    with pytest.raises(DataError, match="for mine without batches"):
        evaluate_states(OneState(trainer._parts.steps), [trainer.state], [], desc="Mine")


def test_examples_that_a_step_drops_are_noticed(trainer):
    chunks = list(draw(trainer._parts.steps, loader(16, 8)))
    for chunk in chunks:
        object.__setattr__(chunk, "size", 9)
    with pytest.raises(TrainingError, match=r"Received 18 examples .* counted 16"):
        evaluate_states(OneState(trainer._parts.steps), [trainer.state], chunks)


@pytest.mark.parametrize(("every", "left"), [(bx.Every(epochs=1), 7), (bx.Every(steps=10), 4)])
def test_validations_that_are_still_to_come(every, left):
    validations = Validations.of(every, [], is_at_start=False)
    run = Run(Limits(num_epochs=10, total_steps=50), validations=validations)
    assert validations_left(run) == 1
    run.is_active = True
    run.count(epoch=4, step=20)
    assert validations_left(run) == left


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("val", "val/loss"),
        ("val/", "val/loss"),
        ("test", "test/loss"),
        ("", "loss"),
        ("a_", "a_loss"),
    ],
)
def test_a_prefix_may_be_the_name_of_a_phase(tmp_path, prefix, name):
    options = bx.LoopOptions(limit_val_batches=1, limit_test_batches=2)
    trainer = classifier(tmp_path, model_class=Plain, loop=options)
    batches = {"val/loss": 1, "test/loss": 2}.get(name, 3)
    inputs, labels = classes(48)
    expected = trainer.eval_model([(inputs[: 16 * batches], labels[: 16 * batches])])["loss"]
    assert trainer.eval_model(loader(48), prefix)[name] == pytest.approx(expected, rel=1e-6)


def test_a_prefix_that_is_no_text_is_refused(tmp_path):
    trainer = classifier(tmp_path, model_class=Plain)
    with pytest.raises(ConfigurationError, match="log_prefix=3"):
        trainer.eval_model(loader(), 3)
