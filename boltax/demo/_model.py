"""The network of the demo: a pre-activation ResNet for small images. Knows nothing of training."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

_BLOCK_SIZES = (1, 1, 1)
_WIDTHS = (32, 64, 128)


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, each after BatchNorm and ReLU.

    Attributes:
        width: channels of the output.
        stride: step of the first convolution; 2 halves height and width.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """From ``[batch, h, w, channels]`` to ``[batch, h / stride, w / stride, self.width]``."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        conv = partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal())
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(x))
        if x.shape[-1] != self.width or self.stride != 1:
            x = conv(self.width, (1, 1), strides)(y)
        y = conv(self.width, (3, 3), strides)(y)
        y = nn.relu(norm()(y))
        return x + conv(self.width, (3, 3))(y)


class ResNet(nn.Module):
    """A pre-activation ResNet: a convolution, stages of blocks, the mean of pixels, a linear layer.

    Each stage after the first halves height and width in its first block, by a stride rather than
    by max-pooling, whose gradient is slow on a CPU.

    Attributes:
        num_classes: number of logits.
        block_sizes: blocks in each stage.
        widths: channels of each stage; as many as there are stages.
        stem_stride: step of the first convolution; 2 for images that are large for a CPU.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = ResNet(num_classes=10, block_sizes=(1, 1), widths=(8, 16))
        >>> images = jnp.zeros((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), images, train=False)
        >>> model.apply(variables, images, train=False).shape
        (4, 10)

    References:
        He et al., "Identity Mappings in Deep Residual Networks", 2016, https://arxiv.org/abs/1603.05027
    """

    num_classes: int = 10
    block_sizes: Sequence[int] = _BLOCK_SIZES
    widths: Sequence[int] = _WIDTHS
    stem_stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        """Logits of a batch of images.

        Args:
            x: images ``[batch, height, width, channels]``; floats, or uint8, which are divided by
                255 here.
            train: whether BatchNorm uses this batch's statistics, and updates the running ones.

        Returns:
            Logits, ``[batch, num_classes]``.
        """
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        init = nn.initializers.he_normal()
        stem = (self.stem_stride, self.stem_stride)
        x = nn.Conv(self.widths[0], (3, 3), stem, use_bias=False, kernel_init=init)(x)
        for stage, (blocks, width) in enumerate(zip(self.block_sizes, self.widths, strict=True)):
            for block in range(blocks):
                x = ResNetBlock(width, 2 if stage > 0 and block == 0 else 1)(x, train)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))
