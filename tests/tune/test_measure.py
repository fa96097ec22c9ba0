"""How members are laid out: what is measured, what does not fit, and what looking may cost."""

import math
from types import SimpleNamespace

import jax
import pytest

from boltax._base._chunks import Chunk, Mode, Plan
from boltax.errors import ConfigurationError
from boltax.tune import Population, Scheduler, Status, _measure, _memory, _population
from boltax.tune._layouts import Layout
from dummies import Mlp, classifier, loader
from tune_dummies import SGD, train_loader

MEMBERS = [{"seed": seed, "lr": 0.01} for seed in range(6)]


def measured(folder, notes=None, **options):
    """A population that chose its own layout."""
    trainer = classifier(folder, model_class=Mlp, optimizer_hparams=SGD)
    if notes is not None:
        trainer._made.progress.note = notes.append
    together = Population(trainer, MEMBERS, **options)
    together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    assert {member.status for member in together.members} == {Status.FINISHED}
    return together._trainees.layout


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 1)


@pytest.fixture
def the_largest_wins(monkeypatch):
    monkeypatch.setattr(_measure, "SHARE", math.inf)
    monkeypatch.setattr(_measure, "SHARE_OF_SMALL", math.inf)
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
    assert together._trainees.run.step == 0
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
    monkeypatch.setattr(_measure, "SHARE_OF_SMALL", 0.0)
    layout = measured(tmp_path)
    assert (layout.size, layout.devices) == (1, 1)


def test_groups_go_off_side_by_side_where_that_is_faster(tmp_path, monkeypatch, the_largest_wins):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 3)
    alone = measured(tmp_path, members_per_step=1, devices=1)
    assert (alone.size, alone.lanes) == (1, 3)
    notes = []
    both = measured(tmp_path, notes, devices=1)
    assert (both.size, both.lanes) == (2, 3)
    assert any("2 members in one program, 3 such at a time" in note for note in notes)


def test_each_lane_has_a_workspace(tmp_path):
    together = Population(classifier(tmp_path, model_class=Mlp, optimizer_hparams=SGD), MEMBERS)
    together.train_model(train_loader(), loader(32, 8), num_epochs=1)
    run = together._trainees
    batch, cursor = next(iter(run.run.train_source.epoch(1)))
    chunk = Chunk(Plan(), batch, [cursor], 8)
    one, three = (_memory._needed(run, Layout(1, lanes=lanes), chunk) for lanes in (1, 3))
    assert three - one == 2 * _memory._workspace(run, 1) > 0


class Told:
    """A candidate of which it is known how long it takes, by its size and lanes."""

    looked_at, per_steps, mode, compile_seconds = [], {}, Mode.LOOP, 1.0

    def __init__(self, run, chunk, layout, chosen=None):
        self.layout, self.chosen = layout, Plan(self.mode, 8, 8)
        self.looked_at.append((layout.size, layout.lanes))
        self.per_step = self.per_steps[layout.size, layout.lanes]

    def time(self):
        pass


# small steps: the second size first, then larger ones, or the smaller one
BETTER = {(1, 2): 2.0, (16, 2): 0.5, (32, 2): 0.4}, "1/1 1/2 16/2 32/2"
NO_BETTER = {(1, 2): 1.5, (16, 2): 0.99, (16, 1): 0.99, (32, 2): 2.0, (32, 1): 2.0, (4, 2): 0.8}
# others: from the smallest on, as long as they get faster
SINGLE = {(1, 2): 0.5, (4, 2): 0.4, (16, 2): 0.9, (16, 1): 0.9}, "1/1 1/2 4/2 16/2 16/1"


@pytest.mark.parametrize(
    "mode, per_steps, looked_at",
    [
        (Mode.LOOP, *BETTER),
        (Mode.LOOP, NO_BETTER, "1/1 1/2 16/2 16/1 32/2 32/1 4/2"),
        (Mode.SINGLE, *SINGLE),
    ],
)
def test_what_is_probably_fastest_is_looked_at_first(monkeypatch, mode, per_steps, looked_at):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 2)
    monkeypatch.setattr(_measure, "_Candidate", Told)
    monkeypatch.setattr(_measure, "lack_of_memory", lambda *_: None)
    monkeypatch.setattr(Told, "looked_at", [])
    monkeypatch.setattr(Told, "per_steps", {(1, 1): 1.0, **per_steps})
    monkeypatch.setattr(Told, "mode", mode)
    layout = _measure.measured(population_of(64, steps=10**6), None)
    assert " ".join(f"{size}/{lanes}" for size, lanes in Told.looked_at) == looked_at
    assert (layout.size, layout.lanes) == min(Told.per_steps, key=Told.per_steps.get)


@pytest.mark.parametrize("steps, looked_at", [(3, "1/1 1/2"), (30, "1/1 1/2 16/2 32/2")])
def test_side_by_side_is_looked_at_where_no_program_pays(monkeypatch, steps, looked_at):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 2)
    monkeypatch.setattr(_measure, "_Candidate", Told)
    monkeypatch.setattr(_measure, "lack_of_memory", lambda *_: None)
    monkeypatch.setattr(Told, "looked_at", [])
    per_steps = {(1, 1): 1.0, (1, 2): 0.6, (16, 2): 0.5, (32, 2): 0.4}
    monkeypatch.setattr(Told, "per_steps", per_steps)
    layout = _measure.measured(population_of(64, steps=steps), None)
    assert " ".join(f"{size}/{lanes}" for size, lanes in Told.looked_at) == looked_at
    assert layout.lanes == 2


def population_of(number, steps):
    """What is asked of a population while its layout is measured."""
    return SimpleNamespace(
        occupants=list(range(number)),
        wanted=None,
        places=jax.local_devices()[:1],
        parallel=None,
        is_spread=False,
        run=SimpleNamespace(train_source=SimpleNamespace(num_batches=steps)),
        scheduler=Scheduler(),
        num_epochs=1,
    )
