"""The models of `linen_models` in Flax NNX."""

import itertools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from suite.linen_models import EMBEDDING, attention


class Mlp(nnx.Module):
    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        pairs = itertools.pairwise((*shape, *sizes))
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class Cnn(nnx.Module):
    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        widths = itertools.pairwise((shape[-1], *sizes[:-1]))
        self.convolutions = nnx.List(
            [
                nnx.Conv(*pair, (3, 3), strides=stride, padding=1, rngs=rngs)
                for pair, stride in zip(widths, (1, 2, 2), strict=True)
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for n in sizes[:-1]])
        self.head = nnx.Linear(*sizes[-2:], rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nnx.relu(norm(convolution(x)))
        return self.head(x.mean((1, 2)))


class Block(nnx.Module):
    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.project = nnx.Linear(width, width, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x + self.project(attention(self.qkv(self.norms[0](x)), self.heads))
        return x + self.narrow(nnx.gelu(self.widen(self.norms[1](x))))


class Lm(nnx.Module):
    def __init__(self, shape: tuple[int, ...], sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        vocabulary, width, layers, heads = sizes
        self.embed = nnx.Embed(vocabulary, width, embedding_init=EMBEDDING, rngs=rngs)
        self.positions = nnx.Param(EMBEDDING(rngs.params(), (*shape, width), jnp.float32))
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens) + self.positions[...][None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


MODELS = {"mlp": Mlp, "cnn": Cnn, "lm": Lm}
