"""How members are laid out: what is measured, what does not fit, and what looking may cost."""

import math

import jax
import pytest

from boltax.errors import ConfigurationError
from boltax.tune import Population, Status, _measure, _memory, _population
from dummies import Mlp, classifier, loader
from tune_dummies import SGD, train_loader

MEMBERS = [{"seed": seed, "lr": 0.01} for seed in range(6)]


def measured(folder, notes=None, **options):
    """A population that chose its own layout."""
    trainer = classifier(folder, model_class=Mlp, optimizer_hparams=SGD)
    if notes is not None:
        trainer.progress.note = notes.append
    together = Population(trainer, MEMBERS, **options)
    together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert {member.status for member in together.members} == {Status.FINISHED}
    return together._run.layout


@pytest.fixture
def the_largest_wins(monkeypatch):
    monkeypatch.setattr(_measure, "SHARE", math.inf)
    monkeypatch.setattr(_measure, "GAIN", 0.0)
    monkeypatch.setattr(_measure, "CLEAR", math.inf)
    monkeypatch.setattr(_measure, "ROUNDS", 1)


def test_members_are_spread_where_that_is_faster(tmp_path, the_largest_wins):
    assert measured(tmp_path).devices == len(jax.local_devices())
    one = measured(tmp_path, members_per_step=3, devices=1)
    assert (one.size, one.devices) == (3, 1)
    both = measured(tmp_path, members_per_step=2)
    assert (both.size, both.devices) == (2, 2)


def test_a_group_that_does_not_fit_is_never_run(tmp_path, monkeypatch, the_largest_wins):
    seen, notes = {}, []

    def needed(run, layout, chunk):
        seen[layout.size] = of_shapes(run, layout, chunk)
        run.memory = seen.get(3)
        return seen[layout.size]

    of_shapes = _memory._needed
    monkeypatch.setattr(_memory, "_needed", needed)
    assert measured(tmp_path, notes, devices=1).size == 3  # 6 of them need more than 3
    assert any("no 6 members in one program: they need" in note for note in notes)


def test_where_nothing_fits_members_train_in_turn(tmp_path, monkeypatch, the_largest_wins):
    monkeypatch.setattr(_population, "memory_of", lambda _: 1000)
    notes = []
    assert measured(tmp_path, notes).size == 1
    assert any("MiB of memory, and there are" in note for note in notes)


@pytest.mark.parametrize("devices", [1, None, 2])
def test_a_size_that_does_not_fit_is_an_error_before_the_first_step(tmp_path, monkeypatch, devices):
    monkeypatch.setattr(_population, "memory_of", lambda _: 100_000)
    trainer = classifier(tmp_path, model_class=Mlp, optimizer_hparams=SGD)
    together = Population(trainer, MEMBERS, members_per_step=3, devices=devices)
    with pytest.raises(
        ConfigurationError, match=r"in groups of 3: they need .* MiB of memory, and"
    ):
        together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert together._run.step == 0
    measured(tmp_path, members_per_step=1, devices=1)  # nothing takes less


def test_a_size_that_fits_by_its_own_program_is_run(tmp_path, monkeypatch):
    needed, of_shapes = [], _memory._needed

    def noted(run, layout, chunk):
        needed.append(of_shapes(run, layout, chunk))
        run.memory = needed[0]  # just enough
        return needed[-1]

    monkeypatch.setattr(_memory, "_needed", noted)
    assert measured(tmp_path, members_per_step=6, devices=1).size == 6
    assert len(needed) == 1
    monkeypatch.setattr(_memory, "_needed", lambda *_: needed[0] + 1)
    monkeypatch.setattr(_population, "memory_of", lambda _: needed[0])
    with pytest.raises(ConfigurationError, match="Write a smaller number"):
        measured(tmp_path, members_per_step=6, devices=1)


def test_a_short_training_does_not_pay_for_a_search(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "SHARE", 0.0)
    layout = measured(tmp_path)
    assert (layout.size, layout.devices) == (1, 1)
