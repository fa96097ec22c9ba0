"""Members, and what of them is compared; where studies are kept."""

import os

import jax
import numpy as np

from boltax._loop._saving import state_tree
from boltax.tune import Overwrite, Replace, Scheduler, Stop
from dummies import loader, to_host

MEMBERS = [
    {"seed": 0, "lr": 1e-2},
    {"seed": 1, "lr": 3e-2, "weight_decay": 0.1},
    {"seed": 2, "lr": 1e-2, "weight_decay": 0.1},
]
FIVE = [{"seed": seed, "lr": 1e-2 * (seed + 1)} for seed in range(5)]
SGD = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "warmup": 2}

DATABASES = os.environ.get("BOLTAX_TEST_DATABASE", "").split()
"""URLs of databases that studies are kept in too; see CONTRIBUTING.md."""


def train_loader():
    return loader(64, 8, shuffle=True)


class Busy(Scheduler):
    """Stops, replaces and overwrites across devices."""

    def on_validation_epoch_end(self, view):
        requests = {
            1: [Stop(4, "enough"), Overwrite(0, 3, {"lr": 0.03})],
            2: [Replace(1, {"seed": 9, "lr": 0.02}), Overwrite(2, 0)],
            3: [Stop(0, "enough"), Stop(2, "enough")],
        }.get(view.epoch, [])
        return [request for request in requests if view.members[request.member].is_training]


class Broken:
    """A loader that fails once, at a batch of an epoch."""

    def __init__(self, epoch, batch):
        self.loader, self.at, self.is_broken = train_loader(), (epoch, batch), True
        self.owns_batches, self.num_batches = True, self.loader.num_batches

    def fingerprint(self):
        return self.loader.fingerprint()

    def epoch(self, epoch, after=None):
        for batch, cursor in self.loader.epoch(epoch, after):
            if self.is_broken and (cursor["epoch"], cursor["batch"]) == self.at:
                self.is_broken = False
                raise OSError("the disk is gone")
            yield batch, cursor


def arrays(trainer):
    """All that training changes; keys as numbers."""
    tree = state_tree(trainer.state)
    return to_host({**tree, "rng": jax.random.key_data(tree["rng"])})


def assert_same(one, other):
    assert one.table.rows == other.table.rows
    assert one.table.history == other.table.history
    for number in range(len(one.members)):
        left, right = (arrays(p.member(number)) for p in (one, other))
        jax.tree.map(np.testing.assert_array_equal, left, right)
