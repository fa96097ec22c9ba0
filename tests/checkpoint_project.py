"""What a user's module looks like to a lookup: a trainer, a model, and names imported by chance."""

import dataclasses
import enum
import functools
import os
import pickle
import subprocess
from os import system
from pickle import loads
from subprocess import Popen
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import struct

from boltax.models._functional import Functional

__all__ = ["Popen", "functools", "loads", "os", "pickle", "subprocess", "system"]


class Mlp(nn.Module):
    features: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.features)(x)


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclasses.dataclass(frozen=True)
class Widths:
    first: int = 8
    rest: tuple[int, ...] = (4, 4)

    def __post_init__(self) -> None:
        CALLS.append("Widths")


class Pair(NamedTuple):
    image: Any
    label: Any


@struct.dataclass
class Example:
    tokens: Any
    mask: Any = None
    name: str = struct.field(pytree_node=False, default="text")


def swish(x: jax.Array) -> jax.Array:
    CALLS.append("swish")
    return x * jax.nn.sigmoid(x)


def line_init(key: jax.Array) -> list[jax.Array]:
    return [jax.random.normal(key, (4, 3))]


def line(params: list[jax.Array], x: jax.Array) -> jax.Array:
    return x @ params[0]


LINE = Functional(line_init, line)


def run_anything(*args: Any, **kwargs: Any) -> None:
    CALLS.append("run_anything")


class Trainer:
    def __init__(self, model_class: type[Any], seed: int = 0) -> None:
        self.model_class = model_class


CALLS: list[str] = []
"""Code of this module that was called."""

doubled = lambda x: 2 * x  # noqa: E731 - a name like any other
