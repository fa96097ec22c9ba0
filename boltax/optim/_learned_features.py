"""What the scheduler of a learned optimizer sees: how the loss falls, the time, each tensor.

The trend of the loss is that of ten exponential averages, whose half-lives reach from 10 steps to
the whole run. An array of a tensor's statistics has its decay rates on the first axis,
``[decays, *shape]``; the tensor itself goes in as ``[1, *shape]``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_HORIZONS = 10
_LARGEST_LOSS = 999999999999.0
_TIMES = np.asarray([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1], np.float32)
_MOST_AXES = 5


class LossTrend(NamedTuple):
    """Averages of the loss over ten horizons, from the shortest to the longest.

    Attributes:
        means: the averages, which begin at 0, float32 ``[10]``.
        smallest: the smallest that each has been, its start corrected for, float32 ``[10]``.
        decays: what each keeps in a step, float32 ``[10]``.
    """

    means: jax.Array
    smallest: jax.Array
    decays: jax.Array


def init_trend(total_steps: int) -> LossTrend:
    """The trend before the first loss, for a run of so many steps."""
    half_lives = 10.0 ** np.linspace(1.0, np.log10(total_steps), _HORIZONS)
    return LossTrend(
        means=jnp.zeros(_HORIZONS, jnp.float32),
        smallest=jnp.full(_HORIZONS, _LARGEST_LOSS, jnp.float32),
        decays=jnp.asarray(np.exp(-1.0 / half_lives), jnp.float32),
    )


def update_trend(trend: LossTrend, loss: jax.Array, updates: jax.Array) -> LossTrend:
    """The trend with one more loss, which counts no more than twice the largest average.

    Args:
        trend: as it was.
        loss: float32 scalar.
        updates: how many losses it has seen, int32 scalar.
    """
    largest = jnp.where(updates == 0, loss, jnp.max(_corrected(trend, updates + 1)))
    loss = jnp.minimum(2.0 * jnp.abs(largest), loss)
    trend = trend._replace(means=trend.means * trend.decays + loss * (1.0 - trend.decays))
    corrected = _corrected(trend, updates + 1)
    return trend._replace(smallest=jnp.minimum(trend.smallest, corrected))


def loss_features(trend: LossTrend, updates: jax.Array) -> jax.Array:
    """How each average stands to the next longer one, from -1 to 1; 0 in the first two updates.

    Args:
        trend: as it is now.
        updates: how many losses it has seen, int32 scalar.

    Returns:
        float32 ``[9]``.
    """
    corrected = _corrected(trend, updates)
    above, longer = (corrected - trend.smallest)[:-1], corrected[1:] - trend.smallest[:-1]
    features = jnp.clip(above / jnp.maximum(1e-8, longer) - 1.0, -1.0, 1.0)
    return jnp.where(updates <= 2, 0.0, features)


def _corrected(trend: LossTrend, updates: jax.Array) -> jax.Array:
    return trend.means / (1.0 - trend.decays ** updates.astype(jnp.float32))


def time_features(updates: jax.Array, total_steps: int) -> jax.Array:
    """Where the run is, as soft steps at nine fractions of it: float32 ``[9]``."""
    return jnp.tanh(10.0 * (updates.astype(jnp.float32) / float(total_steps) - _TIMES))


def tensor_features(
    param: jax.Array, momentum: jax.Array, mean_square: jax.Array
) -> dict[str, jax.Array]:
    """What VeLO's scheduler sees of a tensor beside time and loss.

    Args:
        param: float32 ``[1, *shape]``.
        momentum: averages of the gradient, ``[3, *shape]``.
        mean_square: average of its square, ``[1, *shape]``.

    Returns:
        Vectors by name; their widths are 1, 5, 3 and 3.
    """
    axes = tuple(range(1, param.ndim))
    scale = jax.lax.rsqrt(jnp.maximum(1e-9, jnp.mean(jnp.square(param))))
    # The mean square is scaled like the other two, and not by the square: so it was trained.
    momentum, mean_square = momentum * scale, mean_square * scale
    mean = jnp.mean(momentum, axes, keepdims=True)
    rank = sum(size > 1 for size in param.shape[1:])
    return {
        "mean_rms": _log(jnp.mean(mean_square, axes)),
        "rank": jnp.asarray(np.arange(_MOST_AXES) == rank, jnp.float32),
        "var_m": _log(jnp.mean(jnp.square(momentum - mean), axes)),
        # Around the means of the momentum, not its own: so it was trained.
        "var_rms": _log(jnp.mean(jnp.square(mean_square - mean), axes)),
    }


def _log(x: jax.Array) -> jax.Array:
    return 0.5 * jnp.clip(jnp.log(1e-8 + jnp.abs(10.0 * x)), -5.0, 5.0)
