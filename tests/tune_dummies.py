"""Members, and what of them is compared."""

import jax

from boltax._save import state_tree
from dummies import loader, to_host

MEMBERS = [
    {"seed": 0, "lr": 1e-2},
    {"seed": 1, "lr": 3e-2, "weight_decay": 0.1},
    {"seed": 2, "lr": 1e-2, "weight_decay": 0.1},
]
SGD = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "warmup": 2}


def train_loader():
    return loader(64, 8, shuffle=True)


def arrays(trainer):
    """All that training changes; keys as numbers."""
    tree = state_tree(trainer.state)
    return to_host({**tree, "rng": jax.random.key_data(tree["rng"])})
