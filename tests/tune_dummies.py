"""Members, and what of them is compared; where studies are kept."""

import os

import jax

from boltax._loop._saving import state_tree
from dummies import loader, to_host

MEMBERS = [
    {"seed": 0, "lr": 1e-2},
    {"seed": 1, "lr": 3e-2, "weight_decay": 0.1},
    {"seed": 2, "lr": 1e-2, "weight_decay": 0.1},
]
SGD = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "warmup": 2}

DATABASES = os.environ.get("BOLTAX_TEST_DATABASE", "").split()
"""URLs of databases that studies are kept in too; see CONTRIBUTING.md."""


def train_loader():
    return loader(64, 8, shuffle=True)


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
