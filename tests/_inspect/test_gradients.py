"""The gradients of a batch, and the course of a run."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax._inspect._course import Course
from boltax.errors import ConfigurationError, MetricsError
from dummies import GuideRegressor, Linear, classifier, line, loader


class Regressor(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch[0]) - batch[1]) ** 2).mean(), {}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    example = tuple(part[:4] for part in line())
    made = classifier(
        tmp_path_factory.mktemp("gradients"), Regressor, model_class=Linear, exmp_input=example
    )
    made.train_model(bx.data.ArrayLoader(line(), 8), num_epochs=2)
    return made


def test_gradients_are_those_of_the_loss_by_hand(trainer):
    inputs, targets = line()
    dense = jax.device_get(trainer.state.params)["Dense_0"]
    errors = inputs @ dense["kernel"] + dense["bias"] - targets
    loss, found = trainer.gradients((inputs, targets))
    assert loss == pytest.approx((errors**2).mean(), rel=1e-5)
    kernel = 2 * inputs.T @ errors / len(inputs)
    np.testing.assert_allclose(found["Dense_0"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["Dense_0"]["bias"], 2 * errors.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(dense["bias"], trainer.state.params["Dense_0"]["bias"])


def test_own_steps_have_no_gradients_to_show(tmp_path):
    example = tuple(part[:4] for part in line())
    own = classifier(tmp_path, GuideRegressor, model_class=Linear, exmp_input=example[0])
    with pytest.raises(ConfigurationError, match="writes its steps itself"):
        own.gradients(example)


def test_the_history_is_a_table_and_a_figure(trainer, tmp_path):
    history = trainer.history
    losses = [row["train/loss"] for row in trainer.run.history]
    assert (len(history), history["train/loss"], history[-1]["step"]) == (2, losses, 8)
    assert list(history.to_pandas()["train/loss"]) == losses
    figure = history.plot("loss", path=str(tmp_path / "loss.png"))
    (curve,) = figure.axes[0].lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([4, 8], losses)
    assert (tmp_path / "loss.png").stat().st_size > 0
    assert repr(history).startswith("2 rows")
    for wrong in (lambda: history["val/acc"], lambda: history.plot("acc")):
        with pytest.raises(MetricsError, match="expected one of"):
            wrong()
    assert repr(Course([])) == "0 rows, the last: {}"


def test_the_same_first_batches_are_fitted_in_each_epoch(tmp_path):
    seen = []

    class Noting(Regressor):
        def on_training_epoch_end(self, epoch_idx):
            seen.append(self.run.step)

    data = bx.data.ArrayLoader(line(), 8, shuffle=True)
    options = {"model_class": Linear, "exmp_input": tuple(part[:4] for part in line())}
    loop = bx.LoopOptions(overfit_batches=2)
    trainer = classifier(tmp_path, Noting, loop=loop, **options)
    trainer.train_model(data, num_epochs=3)
    assert seen == [2, 4, 6]
    batches = [batch for batch, _ in data.epoch(1)][:2]
    source = trainer.run.train_source
    for epoch in (1, 2):
        found = [batch for batch, _ in source.epoch(epoch)]
        jax.tree.map(np.testing.assert_array_equal, found, batches)
    (_, cursor), (rest, _) = source.epoch(2)
    ((again, _),) = source.epoch(2, cursor)
    jax.tree.map(np.testing.assert_array_equal, again, rest)


def test_what_cannot_be_fitted_twice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="expected one of them"):
        bx.LoopOptions(overfit_batches=2, steps_per_epoch=3)
    trainer = classifier(tmp_path, loop=bx.LoopOptions(overfit_batches=1))
    with pytest.raises(bx.errors.DataError, match="which can be read once"):
        trainer.train_model(iter(loader()), num_epochs=1)
