"""The models of `linen_models` in Keras, with Linen's distributions of initial weights."""

from typing import Any

import keras
from keras import layers

from suite.tasks import Task

KERNEL = keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", seed=0)
EMBEDDING = keras.initializers.RandomNormal(stddev=0.02, seed=0)


def make_model(task: Task) -> keras.Model:
    """The task's model."""
    keras.utils.set_random_seed(0)
    dtype = "int32" if task.kind == "lm" else "float32"
    inputs = keras.Input(task.shape, dtype=dtype)
    build = {"mlp": _mlp, "cnn": _cnn, "lm": _lm}[task.kind]
    return keras.Model(inputs, build(inputs, task.sizes))


def _mlp(x: Any, sizes: tuple[int, ...]) -> Any:
    for width in sizes[:-1]:
        x = _dense(width, activation="relu")(x)
    return _dense(sizes[-1])(x)


def _cnn(x: Any, sizes: tuple[int, ...]) -> Any:
    for width, stride in zip(sizes[:-1], (1, 2, 2), strict=True):
        x = layers.ZeroPadding2D(1)(x)  # "same" pads on one side only when the stride is 2
        x = layers.Conv2D(width, 3, stride, kernel_initializer=_seeded())(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))
    return _dense(sizes[-1])(layers.GlobalAveragePooling2D()(x))


def _lm(tokens: Any, sizes: tuple[int, ...]) -> Any:
    vocabulary, width, depth, heads = sizes
    x = Embeddings(vocabulary, width)(tokens)
    for _ in range(depth):
        y = _dense(3 * width)(layers.LayerNormalization(epsilon=1e-6)(x))
        x = x + _dense(width)(CausalAttention(heads)(y))
        y = _dense(4 * width)(layers.LayerNormalization(epsilon=1e-6)(x))
        y = layers.Activation(lambda x: keras.activations.gelu(x, approximate=True))(y)
        x = x + _dense(width)(y)
    return _dense(vocabulary)(layers.LayerNormalization(epsilon=1e-6)(x))


class Embeddings(layers.Layer):
    """Of tokens, and of their positions."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.tokens = layers.Embedding(vocabulary, width, embeddings_initializer=EMBEDDING)

    def build(self, shape: Any) -> None:
        self.tokens.build(shape)
        self.positions = self.add_weight(
            shape=(shape[1], self.tokens.output_dim), initializer=EMBEDDING, name="positions"
        )

    def call(self, tokens: Any) -> Any:
        return self.tokens(tokens) + self.positions


class CausalAttention(layers.Layer):
    """From queries, keys and values ``[batch, time, 3 * width]``."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], shape[-1] // 3)

    def call(self, qkv: Any) -> Any:
        ops, time, width = keras.ops, qkv.shape[1], qkv.shape[2] // 3
        split = ops.reshape(qkv, (-1, time, 3, self.heads, width // self.heads))
        mixed = ops.dot_product_attention(
            split[:, :, 0], split[:, :, 1], split[:, :, 2], is_causal=True
        )
        return ops.reshape(mixed, (-1, time, width))


def _dense(width: int, **options: Any) -> layers.Dense:
    return layers.Dense(width, kernel_initializer=_seeded(), **options)


def _seeded() -> Any:
    """A new one for each layer: an initializer with a seed gives the same numbers each time."""
    return KERNEL.clone()
