"""What cannot work in a population is said before anything is compiled, with what to write."""

import jax
import pytest

import boltax as bx
from boltax.callbacks import EarlyStopping
from boltax.errors import (
    ConfigurationError,
    MetricsError,
    OptimizerError,
    TrainingError,
    UnknownNameError,
)
from boltax.tune import (
    Member,
    Overwrite,
    Population,
    PopulationBasedTraining,
    PopulationView,
    Replace,
    Scheduler,
    Stop,
    SuccessiveHalving,
)
from dummies import Classifier, GuideRegressor, Linear, classifier, line, loader
from tune_dummies import SGD, train_loader


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    hparams = {"model_hparams": {"features": 4}, "optimizer_hparams": SGD}
    return classifier(tmp_path_factory.mktemp("errors"), offset=0.5, depth=2, **hparams)


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ([], r"Received members=\[\]; expected a list with a dict for each member"),
        ({"seed": 0}, "expected a list with a dict for each member"),
        ([3], r"Received 3 \(int\) as member 0; expected a dict"),
        ([{"seed": 0.5}], r"seed=0.5 \(float\) for member 0; expected a whole number"),
        ([{}, {"lr": "fast"}], r"lr='fast' \(str\) for member 1; expected a finite number"),
        ([{"lr": float("nan")}], "lr=nan .* expected a finite number"),
        ([{"offset": True}], "offset=True .* expected a finite number"),
        ([{"features": 4}, {"features": 8}], r"features=4: members 0; features=8: members 1"),
        ([{"features": 8}], "Write features into model_hparams, and one Population"),
        ([{"optimizer": "adam"}, {}], "Received members with optimizer, which changes shapes"),
        ([{"warmup": 3}], "Received members with warmup, which changes shapes or is fixed"),
        ([{"nesterov": True}], "Received members with nesterov"),
        ([{"depth": 3}, {}], r"Write depth into the trainer as depth=2.0, so that it is a traced"),
        ([{"momentum": 0.5}, {"lr": -1.0}], "lr=-1.0"),
    ],
)
def test_members_that_cannot_work(trainer, members, match):
    with pytest.raises(ConfigurationError, match=match):
        Population(trainer, members)


def test_a_misspelt_hyperparameter_suggests_the_right_one(trainer):
    with pytest.raises(UnknownNameError, match=r"of member 1 'weight_deacy'.*'weight_decay'\?"):
        Population(trainer, [{}, {"weight_deacy": 0.1}])
    with pytest.raises(UnknownNameError, match=r"'ofset'.*Did you mean 'offset'\?"):
        Population(trainer, [{"ofset": 0.1}])


def test_a_static_value_that_all_members_share_with_the_trainer_is_fine(trainer):
    members = [{"features": 4, "lr": 0.1}, {"features": 4, "lr": 0.2}]
    assert len(Population(trainer, members).members) == 2


def test_what_a_single_run_refuses_is_refused_for_a_member(trainer, tmp_path):
    members = [{}, {"weight_decay": 0.1, "l2_regularization": 0.1}]
    with pytest.raises(OptimizerError, match="expected one of them") as raised:
        Population(trainer, members)
    assert "raised for member 1 of the population" in str(raised.value.__notes__)
    adam = classifier(tmp_path, optimizer_hparams={"optimizer": "adam"})
    with pytest.raises(ConfigurationError, match="Received members with weight_decay"):
        Population(adam, [{"weight_decay": 0.1}])


def test_a_learning_rate_that_bends_the_schedule_is_refused(tmp_path):
    trainer = classifier(
        tmp_path,
        optimizer_hparams={
            "optimizer": "sgd",
            "schedule": {
                "name": "warmup_cosine_decay_schedule",
                "warmup_steps": 2,
                "end_value": 0.01,
            },
        },
    )
    population = Population(trainer, [{"lr": 0.1}, {"lr": 0.5}])
    with pytest.raises(OptimizerError, match="expected a schedule that lr multiplies"):
        population.train_model(train_loader(), num_epochs=1)


def test_hooks_and_callbacks_are_refused(tmp_path):
    class Hooked(Classifier):
        def on_training_start(self):
            raise AssertionError

    with pytest.raises(ConfigurationError, match="Hooked with on_training_start, which work with"):
        Population(classifier(tmp_path, Hooked), [{}])
    stopping = classifier(tmp_path, callbacks=[EarlyStopping("val/loss")])
    with pytest.raises(ConfigurationError, match="Classifier with EarlyStopping"):
        Population(stopping, [{}])
    with pytest.raises(ConfigurationError, match="debug=True; expected a compiled one"):
        Population(classifier(tmp_path, debug=True), [{}])
    with pytest.raises(ConfigurationError, match=r"as trainer; expected a TrainerModule"):
        Population(Classifier, [{}])


def test_options_that_cannot_work(trainer):
    with pytest.raises(ConfigurationError, match="members_per_step=0; expected 'auto' or a whole"):
        Population(trainer, [{}], members_per_step=0)
    with pytest.raises(ConfigurationError, match="expected an object of a class derived from"):
        Population(trainer, [{}], scheduler="asha")
    population = Population(trainer, [{}])
    with pytest.raises(ConfigurationError, match="num_epochs=0"):
        population.train_model(train_loader(), num_epochs=0)
    with pytest.raises(TrainingError, match="expected train_model first"):
        population.member(0)


class Deaf(Classifier):
    """Reads a Python number where the traced one should be."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss * self.hparams["factor"], metrics


class DeafGuide(GuideRegressor):
    """The same at the level of the guide."""

    def create_functions(self):
        train_step, eval_step = super().create_functions()

        def scaled(state, batch):
            inputs, targets = batch
            return train_step(state, (inputs, targets * self.hparams["factor"]))

        return scaled, eval_step


def guide(folder, trainer_class):
    return trainer_class(
        Linear,
        {},
        SGD,
        exmp_input=line(4)[0],
        enable_progress_bar=False,
        factor=1.0,
        logger_params={"base_log_dir": str(folder), "logger_type": "none"},
    )


def test_a_step_that_does_not_read_the_traced_number_is_noticed(tmp_path):
    members = [{"factor": 1.0, "lr": 0.1}, {"factor": 2.0, "lr": 0.2}]
    deaf = Population(classifier(tmp_path, Deaf, factor=1.0), members)
    with pytest.raises(ConfigurationError, match=r"with factor, .* come out equal.*model.hparams"):
        deaf.train_model(train_loader(), num_epochs=1)
    data = bx.data.ArrayLoader(line(), 8)
    with pytest.raises(ConfigurationError, match=r"with factor, .*state.hparams\[.factor.\]"):
        Population(guide(tmp_path, DeafGuide), members).train_model(data, num_epochs=1)


def test_steps_of_the_guide_train_as_a_population(tmp_path):
    class Listening(GuideRegressor):
        def create_functions(self):
            train_step, eval_step = super().create_functions()

            def scaled(state, batch):
                factor = jax.lax.stop_gradient(state.hparams["factor"])
                return train_step(state, (batch[0], batch[1] * factor))

            return scaled, eval_step

    members = [{"factor": 1.0}, {"factor": 2.0}]
    together = Population(guide(tmp_path, Listening), members, members_per_step=2)
    data = bx.data.ArrayLoader(line(), 8)
    table = together.train_model(data, data, num_epochs=4)
    assert table[0]["val/loss"] < table[1]["val/loss"]


class Answering(Scheduler):
    """Returns what it is given."""

    def __init__(self, answer):
        self.answer = answer

    def on_validation_epoch_end(self, view):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ("stop", r"Received 'stop' from Answering.on_validation_epoch_end; expected Stop"),
        (Stop(5, "x"), r"Stop\(member=5.* expected the number of a member, from 0 to 1"),
        ([Stop(0, "x"), Replace(0, {})], "expected one request for each member at a time"),
        (Overwrite(0, 7), "expected the number of a member"),
        (Overwrite(0, 1, {"momentum": 0.5}), "momentum=0.5 for member 0, which no member had"),
        (Replace(0, {"features": 9}), "Received members with features|features=9"),
        (Replace(0, {"lr": 0.1, "seeed": 3}), r"'seeed'.*Did you mean 'seed'\?"),
    ],
)
def test_requests_that_cannot_be_carried_out(trainer, answer, match):
    together = Population(
        trainer, [{"lr": 0.1}, {"lr": 0.2}], scheduler=Answering(answer), members_per_step=1
    )
    with pytest.raises(ConfigurationError, match=match) as raised:
        together.train_model(loader(16, 8), num_epochs=2)
    assert len(together.members) == 2
    assert all(member.is_training for member in together.members), raised


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SuccessiveHalving("val/acc"), "expected a metric and a direction"),
        (lambda: SuccessiveHalving(("val/acc", "max"), factor=1), "factor=1.*at least 2"),
        (lambda: PopulationBasedTraining(("a", "max"), {}), "at least one hyperparameter"),
        (lambda: PopulationBasedTraining(("a", "max"), {"lr": (1.0, 0.1)}), "a higher one"),
        (lambda: PopulationBasedTraining(("a", "max"), {"lr": None}, quantile=0.9), "most 0.5"),
        (lambda: PopulationBasedTraining(("a", "max"), {"lr": None}, resample=0.5), "resample"),
    ],
)
def test_schedulers_that_cannot_work(make, match):
    with pytest.raises(ConfigurationError, match=match):
        make()


def test_a_metric_that_members_lack_is_named():
    view = PopulationView(
        epoch=1,
        num_epochs=2,
        members=(Member(number=0, seed=0, values={}, epoch=1, metrics={"val/loss": 1.0}),),
    )
    with pytest.raises(MetricsError, match=r"'val/acc' of SuccessiveHalving.*one of: val/loss"):
        SuccessiveHalving(("val/acc", "max")).on_validation_epoch_end(view)
