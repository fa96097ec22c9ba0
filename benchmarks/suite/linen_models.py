"""The models in Flax Linen, and the optimizer and the loss of the JAX sides.

`nnx_models`, `keras_models` and `torch_models` hold the same ones: same sizes, same maths, the same
distributions of initial weights (Linen's default kernels, no bias, 0.02 for embeddings).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from suite.tasks import LEARNING_RATE, Task

EMBEDDING = nn.initializers.normal(0.02)


class Mlp(nn.Module):
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for width in self.sizes[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.sizes[-1])(x)


class Cnn(nn.Module):
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for width, stride in zip(self.sizes[:-1], (1, 2, 2), strict=True):
            x = nn.Conv(width, (3, 3), (stride, stride), padding=1)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.sizes[-1])(x.mean((1, 2)))


class Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        width = x.shape[-1]
        y = nn.Dense(3 * width)(nn.LayerNorm()(x))
        x = x + nn.Dense(width)(attention(y, self.heads))
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))
        return x + nn.Dense(width)(y)


class Lm(nn.Module):
    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, tokens: Any, train: bool = False) -> Any:
        vocabulary, width, layers, heads = self.sizes
        x = nn.Embed(vocabulary, width, embedding_init=EMBEDDING)(tokens)
        x = x + self.param("positions", EMBEDDING, (tokens.shape[1], width))[None]
        for _ in range(layers):
            x = Block(heads)(x)
        return nn.Dense(vocabulary)(nn.LayerNorm()(x))


MODELS = {"mlp": Mlp, "cnn": Cnn, "lm": Lm}


def make_model(task: Task) -> nn.Module:
    """The task's model."""
    return MODELS[task.kind](task.sizes)


def make_optimizer() -> optax.GradientTransformation:
    """Adam, as on all sides."""
    return optax.adam(LEARNING_RATE)


def attention(qkv: jax.Array, heads: int) -> jax.Array:
    """Causal attention from ``[batch, time, 3 * width]``."""
    batch, time, width = qkv.shape
    size = width // 3 // heads
    query, key, value = jnp.moveaxis(qkv.reshape(batch, time, 3, heads, size), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / size**0.5
    mask = jnp.tril(jnp.ones((time, time), bool))
    weights = jax.nn.softmax(jnp.where(mask[None, None], scores, -1e9))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, time, width // 3)


def per_example(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss and accuracy of each example; of a sequence the mean over its tokens."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = (logits.argmax(-1) == labels).astype(jnp.float32)
    size = len(labels)
    return loss.reshape(size, -1).mean(-1), hits.reshape(size, -1).mean(-1)
