"""Optimizers, schedules and regularisation from plain hyperparameters.

>>> from boltax import optim
>>> hparams = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "warmup": 0.1, "weight_decay": 1e-4}
>>> optimizer = optim.build(hparams, total_steps=1000)
>>> optimizer.describe
'sgd, lr 0.1 warmup_cosine (warmup 100 of 1000), clip norm 1, decay 0.0001 on all parameters'

It is an ordinary transformation of optax, whose state tells the learning rate:

>>> import jax, jax.numpy as jnp, optax
>>> params = {"kernel": jnp.ones((2, 3))}
>>> state = optimizer.tx.init(params)
>>> for step in range(51):
...     updates, state = optimizer.tx.update({"kernel": jnp.ones((2, 3))}, state, params)
...     params = optax.apply_updates(params, updates)
>>> print(f"{optim.learning_rate(state):.3f}")
0.050

A transformation, or a function that makes one from the number of steps, serves as well:

>>> adam = lambda total_steps: optax.adam(optax.linear_schedule(1e-3, 0.0, total_steps))
>>> optim.build(adam, total_steps=100).describe
'the optax transformation from <lambda>(total_steps=100)'
"""

from boltax.optim._build import Optimizer, OptimizerHparams, build, check_hparams
from boltax.optim._celo import celo, celo_adam
from boltax.optim._learning_rate import learning_rate
from boltax.optim._registry import NOT_BY_NAME
from boltax.optim._registry import entries as optimizers
from boltax.optim._regularization import DecayMask, l2_penalty
from boltax.optim._schedules import names as schedules
from boltax.optim._velo import velo

__all__ = [
    "NOT_BY_NAME",
    "DecayMask",
    "Optimizer",
    "OptimizerHparams",
    "build",
    "celo",
    "celo_adam",
    "check_hparams",
    "l2_penalty",
    "learning_rate",
    "optimizers",
    "schedules",
    "velo",
]
