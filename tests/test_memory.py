"""What nobody holds any more is given back: many trainers in one process do not pile up.

Besides arrays a trainer holds compiled programs; each has mappings, of which Linux allows a process
some 65,000.
"""

import gc
import weakref

import jax
import pytest

import boltax as bx
from boltax.tune import Population
from dummies import Mlp, NnxMlp, classifier, loader
from tune_dummies import MEMBERS, SGD, train_loader


@pytest.fixture
def programs(forget_executables):
    """Counts the programs that somebody holds."""

    def count():
        forget_executables()
        gc.collect()
        return len(jax.devices()[0].client.live_executables())

    return count


def used(trainer):
    """A weak reference to a trainer that has done everything once."""
    trainer.train_model(train_loader(), loader(32, 8), num_epochs=1)
    trainer.eval_model(loader(32, 8))
    trainer.bind_model()
    trainer.preflight(next(iter(loader(32, 8))))
    trainer.load_model()
    return weakref.ref(trainer)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Mlp, {"on_nonfinite": "stop"}),
        (NnxMlp, {"on_nonfinite": "skip", "microbatches": 2, "ema": 0.9}),
    ],
)
def test_a_trainer_that_is_dropped_leaves_neither_arrays_nor_programs(
    tmp_path, programs, model, options
):
    def make():
        loop = bx.LoopOptions(**options)
        return classifier(tmp_path, model_class=model, optimizer_hparams=SGD, loop=loop)

    used(make())  # JAX keeps what it compiles for functions of its own
    before = programs()
    trainer = used(make())
    assert programs() <= before
    assert trainer() is None


def test_a_trainer_on_a_mesh_that_is_dropped_leaves_neither(tmp_path, programs):
    def make():
        trainer = classifier(tmp_path, model_class=Mlp, optimizer_hparams=SGD, parallel="fsdp")
        trainer._made.copies.copy(trainer.state)  # with the optimizer, which is static in it
        return used(trainer)

    make()
    before = programs()
    trainer = make()
    assert programs() <= before
    assert trainer() is None


def test_a_population_that_is_dropped_leaves_nothing_either(tmp_path, programs):
    def trained():
        trainer = classifier(tmp_path, optimizer_hparams=SGD)
        population = Population(trainer, MEMBERS, members_per_step=2)
        population.train_model(train_loader(), loader(32, 8), num_epochs=1)
        return weakref.ref(population), weakref.ref(population.member(0))

    trained()
    before = programs()
    references = trained()
    assert programs() <= before
    assert [reference() for reference in references] == [None, None]
