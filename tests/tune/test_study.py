"""Studies: trials train together, compile once for each shape, and end in an Optuna study."""

import itertools

import numpy as np
import optuna
import pytest

import boltax as bx
import tune_project as project
from boltax.errors import ConfigurationError, MetricsError, UnknownNameError
from boltax.tune import _measure, load_configuration, open_storage, optimize, save_configuration
from boltax.tune._configuration import hyperparameters_of
from compile_counts import STEPS, compiled
from dummies import Linear


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def study_of(space, make_trainer=project.make_trainer, **options):
    train_loader, val_loader, _ = project.make_loaders()
    arguments = {
        "num_epochs": 2,
        "n_trials": 4,
        "population": 2,
        "sampler": optuna.samplers.RandomSampler(seed=0),
        "pruner": optuna.pruners.NopPruner(),
        "enable_progress_bar": False,
    }
    return optimize(make_trainer, space, train_loader, val_loader, **{**arguments, **options})


@pytest.mark.parametrize("population", [1, 3])
def test_a_study_compiles_once_for_each_shape(population):
    compiled.clear()
    study = study_of(project.two_widths, n_trials=7, population=population)
    widths = {trial.params["width"] for trial in study.trials}
    assert len(study.trials) == 7
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    assert widths == {4, 8}
    steps = sum(compiled[name] for name in STEPS)
    assert steps == 2 * len(widths)  # training and evaluation


def test_a_trial_that_begins_with_the_data_has_the_value_of_its_single_run():
    space = {"lr": ("log", 1e-3, 1e-1), "rate": (0.0, 0.5), "seed": [1, 2]}
    study = study_of(space, n_trials=3, population=3)
    train_loader, val_loader, _ = project.make_loaders()
    for trial in study.trials:
        alone = project.make_trainer(**trial.params)
        alone.train_model(train_loader, val_loader, num_epochs=2)
        values = [row["val/acc"] for row in alone.run.history]
        reported = [trial.intermediate_values[epoch] for epoch in (1, 2)]
        np.testing.assert_allclose(reported, values, atol=1e-6)
        assert trial.value == pytest.approx(max(values))


def test_trials_that_are_validated_by_steps_report_by_steps():
    every = bx.Every(steps=3)
    study = study_of({"lr": (1e-3, 1e-1)}, n_trials=2, population=2, validate_every=every)
    train_loader, val_loader, _ = project.make_loaders()
    for trial in study.trials:
        alone = project.make_trainer(**trial.params)
        alone.train_model(train_loader, val_loader, num_epochs=2, validate_every=3)
        rows = [row for row in alone.run.history if "val/acc" in row]
        values = {row["step"]: row["val/acc"] for row in rows}
        assert [step for step in values if step % 3 == 0] == [3, 6, 9][: len(values) - 1]
        assert len(values) > 2
        assert trial.intermediate_values == pytest.approx(values)
    for wrong in (0, bx.Every(minutes=1)):
        with pytest.raises(ConfigurationError, match=r"validate_every=.* for a study"):
            study_of({"lr": (1e-3, 1e-1)}, validate_every=wrong)


def test_short_trials_are_laid_out_as_for_the_whole_study(monkeypatch):
    seen, steps_left = [], _measure.steps_left
    monkeypatch.setattr(
        _measure, "steps_left", lambda run: seen.append(steps_left(run)) or seen[-1]
    )
    study_of(project.space, n_trials=10, population=2, num_epochs=1)
    assert set(seen) == {4 * 5}  # batches of an epoch, for 10 trials in two places


class Own(project.Classifier):
    """Its constructor takes hyperparameters; one of them no step reads."""

    def __init__(self, lr, unread, exmp_input=None, logger_params=None):
        super().__init__(
            project.Mlp,
            optimizer_hparams={"lr": lr},
            exmp_input=exmp_input,
            logger_params=logger_params,
            enable_progress_bar=False,
            rate=0.1,
            unread=unread,
        )


def test_a_trainer_may_have_a_constructor_and_numbers_of_its_own():
    example = next(iter(project.make_loaders()[0]))

    def make_trainer(lr):
        return Own(lr, 0.5, example, {"logger_type": "none"})

    study = study_of({"lr": (0.01, 0.1)}, make_trainer, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    for trial in study.trials:
        trainer = Own.load_from_checkpoint(trial.user_attrs["boltax:log_dir"])
        assert trainer.optimizer_hparams == {"lr": trial.params["lr"]}
        metrics = trainer.eval_model(project.make_loaders()[1])
        assert metrics["acc"] == pytest.approx(trial.value)


def test_a_space_may_be_a_function_of_the_trial():
    study = study_of(project.by_hand, n_trials=3)
    for trial in study.trials:
        assert hyperparameters_of(trial)["width"] == 4 * trial.params["layers"]


class PruneOdd(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number % 2 == 1


def test_places_of_pruned_trials_are_taken_by_new_ones():
    study = study_of(project.space, n_trials=6, num_epochs=3, pruner=PruneOdd())
    epochs = [len(trial.intermediate_values) for trial in study.trials]
    assert epochs == [3, 1, 3, 1, 3, 1]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"] * 3
    assert study.trials[1].user_attrs["boltax:reason"] == "pruned after epoch 1"


def test_a_diverged_trial_is_pruned_and_the_others_go_on():
    study = study_of(
        {"lr": [1e-2, 1e30]}, sampler=optuna.samplers.GridSampler({"lr": [1e-2, 1e30]})
    )
    states = {trial.params["lr"]: trial.state.name for trial in study.trials}
    assert states == {1e-2: "COMPLETE", 1e30: "PRUNED"}
    (reason,) = (t.user_attrs["boltax:reason"] for t in study.trials if t.params["lr"] == 1e30)
    assert "not finite at step" in reason


def test_a_study_goes_on_in_its_storage():
    study_of(project.space, n_trials=2, storage="study.journal")
    study = study_of(project.space, n_trials=3, storage="study.journal")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    known = optuna.load_study(study_name="study", storage=open_storage("study.journal"))
    assert known.best_value == study.best_value


def test_the_best_configuration_is_a_file_from_which_it_trains_again(tmp_path):
    study = study_of(project.by_hand, n_trials=2)
    save_configuration(study, tmp_path / "best.json")
    hyperparameters = load_configuration(tmp_path / "best.json")
    train_loader, val_loader, _ = project.make_loaders()
    trainer = project.make_trainer(**hyperparameters)
    metrics = trainer.train_model(train_loader, val_loader, num_epochs=2)
    assert metrics["val/acc"] == pytest.approx(study.best_value)


def test_the_best_model_of_a_trial_is_in_its_folder():
    study = study_of(project.space, n_trials=2)
    folder = study.best_trial.user_attrs["boltax:log_dir"]
    trainer = project.Classifier.load_from_checkpoint(folder)
    assert trainer.eval_model(project.make_loaders()[1])["acc"] == pytest.approx(study.best_value)


def test_an_exception_puts_the_trials_back():
    def make_trainer(**hyperparameters):
        if hyperparameters["width"] == 8:
            raise RuntimeError("no such width")
        return project.make_trainer(**hyperparameters)

    space = {"lr": (0.01, 0.1), "width": [8]}
    with pytest.raises(RuntimeError, match="no such width") as caught:
        study_of(space, make_trainer, storage="study.journal", monitor=("val/acc", "max"))
    assert "trial 0" in caught.value.__notes__[0]
    study = study_of(space, n_trials=1, storage="study.journal")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params


def test_a_trainer_that_cannot_be_made_is_told_before_there_is_a_study(tmp_path):
    def make_trainer(lr):
        raise RuntimeError("no such file")

    storage = tmp_path / "study.journal"
    with pytest.raises(RuntimeError, match="no such file") as caught:
        study_of({"lr": (0.01, 0.1)}, make_trainer, storage=str(storage))
    assert "make_trainer" in caught.value.__notes__[0]
    assert not storage.exists()


# Bad input: each is told before anything is compiled.

SPACES = {
    "another range": (
        {"lr": (0.1, 0.2)},
        r"a space with 'lr' as FloatDistribution\(low=0.1, high=0.2\), where it",
    ),
    "another hyperparameter": ({"rate": (0.0, 0.5), "lr": [0.1]}, "a space with"),
    "a function": (project.by_hand, "space='a function of the trial', where it was"),
}


@pytest.mark.parametrize("space, message", SPACES.values(), ids=SPACES)
def test_a_study_of_this_name_with_another_space_is_refused(space, message):
    study_of({"lr": (0.01, 0.1)}, n_trials=1, storage="study.journal")
    with pytest.raises(ConfigurationError, match=message):
        study_of(space, storage="study.journal")
    with pytest.raises(ConfigurationError, match="num_epochs=9, where it was 2"):
        study_of({"lr": (0.01, 0.1)}, num_epochs=9, storage="study.journal")


BAD = {
    "an unknown hyperparameter": (
        {"space": {"lr": (0.01, 0.1), "widht": [4]}},
        UnknownNameError,
        "Did you mean 'width'",
    ),
    "a metric that does not exist": (
        {"monitor": ("val/accuracy", "max")},
        MetricsError,
        r"monitor=\('val/acc', 'max'\)",
    ),
    "a direction": ({"monitor": ("val/acc", "maximize")}, ConfigurationError, "a direction"),
    "a direction alone": ({"monitor": "max"}, ConfigurationError, "expected a metric and a dir"),
    "a name in other letters": (
        {"monitor": ("val_acc", "max")},
        MetricsError,
        r"Did you mean 'val/acc'\? Write monitor=\('val/acc', 'max'\)",
    ),
    "no trials": ({"n_trials": 0}, ConfigurationError, "n_trials=0"),
    "no places": ({"population": 0}, ConfigurationError, "population=0"),
    "a heart that stands still": ({"heartbeat": 0}, ConfigurationError, "heartbeat=0"),
    "no trainer": ({"make_trainer": lambda lr: 3}, ConfigurationError, "makes no trainer"),
    "a storage out of reach": (
        {"storage": "sqlite:////no/such/folder/study.db"},
        ConfigurationError,
        "cannot be opened",
    ),
}


@pytest.mark.parametrize("options, error, message", BAD.values(), ids=BAD)
def test_bad_input_is_told_before_anything_trains(options, error, message):
    compiled.clear()
    with pytest.raises(error, match=message):
        study_of(**{"space": {"lr": (0.01, 0.1)}, **options})
    assert not any(compiled[name] for name in STEPS)


def test_a_monitor_of_the_validation_needs_one():
    with pytest.raises(ConfigurationError, match="but no val_loader"):
        optimize(project.make_trainer, {"lr": (0.01, 0.1)}, [], num_epochs=1, n_trials=1)


class Regressor(bx.TrainerModule):
    """Of its metrics none tells by itself which model is best, but for the loss."""

    def loss_function(self, model, batch, train):
        error = ((model(batch[0]) - batch[1][:, None].astype(np.float32)) ** 2).mean(-1)
        return error, {"mse": error, "score": -error}


@pytest.mark.parametrize(
    ("trainer_class", "monitor", "followed"),
    [
        (Regressor, ("val/score", "max"), ("val/score", "max")),
        (Regressor, None, ("val/loss", "min")),
        (project.Classifier, None, ("val/acc", "max")),
        (project.Classifier, ("val/loss", "min"), ("val/loss", "min")),
    ],
)
def test_a_study_follows_what_tells_the_best_model_of_its_trainers(
    trainer_class, monitor, followed
):
    def make_trainer(lr):
        model = project.Mlp if trainer_class is project.Classifier else Linear
        settings = {"logger_params": {"logger_type": "none"}, "enable_progress_bar": False}
        example = next(iter(project.make_loaders()[0]))
        return trainer_class(model, {}, {"lr": lr}, example, monitor=monitor, rate=0.1, **settings)

    study = study_of({"lr": (0.01, 0.1)}, make_trainer, n_trials=2)
    assert tuple(study.user_attrs["boltax:settings"]["monitor"]) == followed
    assert study.direction.name == {"max": "MAXIMIZE", "min": "MINIMIZE"}[followed[1]]
    for trial in study.trials:
        assert trial.value == trial.user_attrs["boltax:metrics"][followed[0]]


def test_a_make_trainer_that_makes_two_is_known_by_the_one_that_it_returns():
    def make_trainer(lr):
        project.make_trainer(lr=0.1, width=8)
        return project.make_trainer(lr=lr)

    study = study_of({"lr": [0.01, 0.1]}, make_trainer, n_trials=2)
    alone = study_of({"lr": [0.01, 0.1]}, n_trials=2)
    assert [t.value for t in study.trials] == [t.value for t in alone.trials]


def test_a_make_trainer_that_makes_another_one_at_each_call_is_refused():
    widths = itertools.count(4)

    def make_trainer(lr):
        return project.make_trainer(lr=lr, width=next(widths))

    with pytest.raises(ConfigurationError, match="makes another trainer at each call"):
        study_of({"lr": (0.01, 0.1)}, make_trainer)


def test_a_study_without_a_complete_trial_has_no_configuration():
    with pytest.raises(ConfigurationError, match="none of whose 0 trials is complete"):
        save_configuration(optuna.create_study(), "best.json")


def test_a_file_of_something_else_is_no_configuration(tmp_path):
    (tmp_path / "other.json").write_text("[1]\n")
    with pytest.raises(ConfigurationError, match="holds no 'hyperparameters'"):
        load_configuration(tmp_path / "other.json")
