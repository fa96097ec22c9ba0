"""Small models of every kind that an adapter has to serve."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from boltax.models._functional import Functional
from boltax.models._vmap import Vmap
from equinox_dummies import EqxBatched, EqxNormDropout, eqx_blocks
from functional_dummies import NET, NOISY, STAX


class Mlp(nn.Module):
    """Takes no mode at all."""

    features: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features)(nn.relu(nn.Dense(5)(x)))


class NormDropout(nn.Module):
    """BatchNorm and dropout, training by default as in the guide."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Noisy(nn.Module):
    """A collection and a random stream that Linen does not know."""

    @nn.compact
    def __call__(self, x, *, training):
        count = self.variable("counters", "calls", lambda: 0)
        if training and not self.is_initializing():
            count.value = count.value + 1
        x = nn.Dense(3)(x)
        if training:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        return x


class Autoencoder(nn.Module):
    """Methods and submodules of a `setup` module."""

    def setup(self):
        self.encoder = nn.Sequential([nn.Dense(2), nn.relu])
        self.decoder = nn.Dense(4)
        self.dropout = nn.Dropout(0.5)

    def encode(self, x, deterministic=False):
        return self.dropout(self.encoder(x), deterministic=deterministic)

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x, deterministic=False):
        return self.decode(self.encode(x, deterministic=deterministic))


class Deterministic(nn.Module):
    """Asks for the mode by `deterministic`, which has no default."""

    @nn.compact
    def __call__(self, x, deterministic):
        return nn.Dense(3)(nn.Dropout(0.5)(x, deterministic=deterministic))


class NnxMlp(nnx.Module):
    """Takes no mode at all."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.second = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


class NnxNormDropout(nnx.Module):
    """BatchNorm and dropout by the mode of the module."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(self.dense(x))))


class MovingMean(nnx.Variable):
    """A variable type of the user's."""


class NnxCustom(nnx.Module):
    """A variable type of the user's, a plain array, and a stream that is drawn from directly."""

    def __init__(self, features: int = 3, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(4, features, rngs=rngs)
        self.mean = MovingMean({"value": jnp.zeros((features,)), "weight": jnp.zeros(())})
        self.calls = jnp.zeros((), jnp.int32)
        self.scale = jnp.ones((features,))
        self.rngs = rngs
        self.deterministic = False

    def __call__(self, x):
        x = self.dense(x)
        if not self.deterministic:
            old = self.mean.get_value()
            self.mean.set_value({"value": x.mean(0), "weight": old["weight"] + 1})
            self.calls = self.calls + 1
            x = x + jax.random.normal(self.rngs.noise(), x.shape)
        return x * self.scale[None]


class NnxBlocks(nnx.Module):
    """More than ten blocks in a list, two of them the same."""

    def __init__(self, depth: int = 11, *, rngs: nnx.Rngs):
        start = nnx.initializers.uniform(0.5)  # compiles faster than the default
        blocks = [nnx.Linear(4, 4, kernel_init=start, rngs=rngs) for _ in range(depth)]
        self.blocks = nnx.List([*blocks, blocks[0]])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class NnxExplicit(nnx.Module):
    """Asks for the mode by an argument, training by default."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train=True):
        return self.dropout(self.dense(x), deterministic=not train)


@dataclass(frozen=True)
class Kind:
    """One row of the contract: a model, and what is true of it."""

    model_class: Any
    hparams: Mapping[str, Any] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    is_random: bool = False
    method: str | Callable[..., Any] | None = None

    constants: tuple[str, ...] = ()

    @property
    def module_class(self) -> Any:
        """The class of the module, or the function that makes it."""
        return self.model_class.model if isinstance(self.model_class, Vmap) else self.model_class

    @property
    def is_functional(self) -> bool:
        return isinstance(self.module_class, Functional)

    @property
    def is_linen(self) -> bool:
        return inspect.isclass(self.module_class) and issubclass(self.module_class, nn.Module)

    @property
    def is_flax(self) -> bool:
        return self.is_linen or (
            inspect.isclass(self.module_class) and issubclass(self.module_class, nnx.Module)
        )


EQX_MLP = {"in_size": 4, "out_size": 3, "width_size": 5, "depth": 1}
KINDS = {
    "linen mlp": Kind(Mlp, {"features": 2}),
    "linen norm dropout": Kind(NormDropout, {}, ("batch_stats",), is_random=True),
    "linen collection stream": Kind(Noisy, {}, ("counters",), is_random=True),
    "linen setup": Kind(Autoencoder, {}, is_random=True, method="encode"),
    "linen deterministic": Kind(Deterministic, {}, is_random=True),
    "nnx mlp": Kind(NnxMlp),
    "nnx norm dropout": Kind(NnxNormDropout, {}, ("batch_stats",), is_random=True),
    "nnx custom": Kind(NnxCustom, {"features": 2}, ("arrays", "moving_mean"), is_random=True),
    "nnx list": Kind(NnxBlocks, {"depth": 11}),
    "nnx explicit": Kind(NnxExplicit, {}, is_random=True),
    "equinox mlp": Kind(Vmap(eqx.nn.MLP), EQX_MLP),
    "equinox norm dropout": Kind(Vmap(EqxNormDropout), {}, ("batch_stats",), is_random=True),
    "equinox batched": Kind(
        EqxBatched, {"size": 3}, ("state",), is_random=True, constants=("arrays",)
    ),
    "functional stax": Kind(Vmap(STAX)),
    "functional state": Kind(NOISY, {}, ("state",), is_random=True),
    "functional mapped": Kind(Vmap(NET), {"width": 4}),
    "equinox function": Kind(Vmap(eqx_blocks), {"depth": 11}),
}
INPUTS = jnp.linspace(-1.0, 1.0, 24).reshape(6, 4)
