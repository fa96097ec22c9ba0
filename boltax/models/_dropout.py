"""Dropout whose rate may be traced, so that trials with other rates share a compiled program."""

import jax
import jax.numpy as jnp


def dropout(inputs: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Sets a random part of the inputs to 0 and scales the others up, so that the mean stays.

    The layers of Flax ask whether their rate is 0 and need it as a Python number; here it may be
    ``model.hparams["dropout"]``, a value in the compiled program. In a Linen module::

        def __call__(self, x, train, rate=0.0):
            x = nn.relu(nn.Dense(self.features)(x))
            if train:
                x = dropout(x, rate, self.make_rng("dropout"))
            return nn.Dense(10)(x)

    and in the loss ``model(x, rate=model.hparams["dropout"])``.

    Args:
        inputs: floating-point array of any shape.
        rate: the part that is set to 0, from 0 to 1.
        key: random key.

    Returns:
        An array like `inputs`.

    Example:
        >>> dropped = dropout(jnp.ones(1000), 0.25, jax.random.key(0))
        >>> sorted({float(value) for value in dropped})
        [0.0, 1.3333333730697632]

    References:
        Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
        JMLR 2014.
    """
    kept = 1.0 - jnp.asarray(rate, jnp.float32)
    mask = jax.random.bernoulli(key, kept, inputs.shape)
    # At rate 1 nothing is kept; then the scale is any number, so that gradients are 0, not NaN.
    scale = 1.0 / jnp.where(kept > 0, kept, 1.0)
    return jnp.where(mask, inputs * scale.astype(inputs.dtype), jnp.zeros_like(inputs))
