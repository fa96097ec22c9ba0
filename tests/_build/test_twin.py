"""Twins and stand-ins leave the trainer that they come from as it is."""

from boltax._build._twin import stand_in_of, twin_of
from dummies import Classifier, Plain, classifier, loader


class Scaled(Classifier):
    """A hook gives the loss what it computes with."""

    def on_training_start(self):
        self.scale = 2.0

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss * getattr(self, "scale", 1.0), metrics


def test_a_twin_has_other_attributes_and_the_trainer_keeps_its_own(tmp_path):
    trainer = classifier(tmp_path)
    before = dict(vars(trainer))
    twin = twin_of(trainer, seed=5)
    twin.init_optimizer(1, 3)
    assert twin.seed == 5
    assert twin.state is not trainer.state
    assert vars(trainer) == before


def test_a_stand_in_trains_with_its_own_methods_and_the_trainer_is_not_assigned_to(tmp_path):
    trainer = classifier(tmp_path, Scaled)
    names = ("callbacks", "monitor", "enable_progress_bar", "_made", "run")
    before = {name: getattr(trainer, name) for name in names}
    stand_in = stand_in_of(trainer, is_silent=True, monitor=("val/loss", "min"))
    stand_in.train_model(loader(), loader(), num_epochs=1)
    assert stand_in.scale == 2.0
    assert {name: getattr(trainer, name) for name in names} == before
    assert not hasattr(trainer, "scale")


def test_a_stand_in_trains_as_the_trainer_itself(tmp_path):
    metrics = [
        make(classifier(tmp_path, Scaled)).train_model(loader(), loader(), num_epochs=2)
        for make in (lambda t: t, lambda t: stand_in_of(t, is_silent=True))
    ]
    assert metrics[0]["val/loss"] == metrics[1]["val/loss"]


def test_trials_in_a_folder_that_is_named_for_all_of_them_keep_their_places(tmp_path):
    params = {"log_dir": str(tmp_path), "logger_type": "none"}
    folders = []
    for _ in range(3):
        trainer = classifier("unused", model_class=Plain, logger_params=params)
        trial = stand_in_of(trainer, is_silent=True)
        trial.train_model(loader(32, 16), num_epochs=1)
        folders.append(trial.log_dir)
    assert folders == [str(tmp_path / name) for name in ("", "version_0", "version_1")]
    assert not (tmp_path / "earlier").exists()
