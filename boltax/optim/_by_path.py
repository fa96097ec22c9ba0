"""Options for some of the parameters, chosen by their paths: learning rates, and frozen parts.

A path is ``"encoder/Dense_0/kernel"``, and a pattern is a regular expression that is searched in
it. What is chosen is found when the optimizer meets the parameters; a pattern without a match is an
error then, before the first step.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from boltax._base._trees import path_text
from boltax._base._types import PyTree
from boltax.errors import OptimizerError

Freeze: TypeAlias = str | Sequence[str] | Callable[[PyTree], PyTree]
"""What is frozen: one or several patterns, or a function to a tree of bools."""

_MOST_PATHS = 20


def compiled(key: str, pattern: Any, expected: str) -> re.Pattern[str]:
    """A pattern of the user.

    Raises:
        OptimizerError: when it is no regular expression.
    """
    try:
        return re.compile(pattern)
    except (TypeError, re.error) as error:
        raise OptimizerError(
            f"Received {key}={pattern!r} ({type(pattern).__name__}: {error}); expected {expected}"
        ) from error


def matching(pattern: re.Pattern[str], params: PyTree, key: str, write: str) -> PyTree:
    """Which parameters a pattern chooses, as a tree of bools.

    Args:
        pattern: what is searched in their paths.
        params: the parameters.
        key: the option that it is the value of, for the error.
        write: an example of that option, for the error.

    Raises:
        OptimizerError: when it matches none.
    """
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: pattern.search(path_text(path)) is not None, params
    )
    if any(jax.tree.leaves(mask)):
        return mask
    paths = [path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    raise OptimizerError(
        f"Received {key}={pattern.pattern!r}, which matches no parameter; expected a regular "
        f"expression that is found in at least one of: {', '.join(paths[:_MOST_PATHS])}"
        f"{', ...' if len(paths) > _MOST_PATHS else ''}. Write for instance {write}."
    )


def with_lr_scale(
    tx: optax.GradientTransformation, lr_scale: Mapping[str, float]
) -> optax.GradientTransformation:
    """`tx`, with the finished updates of the chosen parameters multiplied by a factor.

    Where a parameter is chosen twice, the first pattern counts. Without patterns, `tx` itself.
    """
    if not lr_scale:
        return tx
    patterns = {compiled("lr_scale", key, _SCALE_EXPECTED): v for key, v in lr_scale.items()}

    def factors(params: PyTree) -> PyTree:
        masks = [
            matching(pattern, params, "lr_scale", 'lr_scale={"encoder/": 0.1}')
            for pattern in patterns
        ]

        def factor(_: Any, *chosen: bool) -> float:
            found = (v for v, is_chosen in zip(patterns.values(), chosen, strict=True) if is_chosen)
            return next(found, 1.0)

        return jax.tree.map(factor, params, *masks)

    def init(params: PyTree) -> PyTree:
        factors(params)  # a pattern without a match is found before the first step
        return optax.EmptyState()

    def scaled(updates: PyTree, _: PyTree) -> PyTree:
        def scale(update: jax.Array, factor: float) -> jax.Array:
            return update if factor == 1.0 else update * factor

        return jax.tree.map(scale, updates, factors(updates))

    return optax.chain(tx, optax.stateless(scaled)._replace(init=init))


def without_frozen(
    tx: optax.GradientTransformationExtraArgs, freeze: Freeze | None
) -> optax.GradientTransformationExtraArgs:
    """`tx` for the parameters that are not frozen, as if there were no others.

    The frozen ones take no memory in its state, and their updates change no bit of them. A step
    that knows them (`frozen_in`) computes no gradients of them.
    """
    if freeze is None:
        return tx
    frozen = freeze if callable(freeze) else functools.partial(_frozen, _patterns(freeze))

    def init(params: PyTree) -> PyTree:
        is_frozen = frozen(params)
        if all(jax.tree.leaves(is_frozen)):
            raise OptimizerError(
                f"Received freeze={freeze!r}, which freezes every parameter; expected some that "
                'are left to train. Write for instance freeze="encoder/".'
            )
        return tx.init(left_of(params, is_frozen))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        is_frozen = frozen(updates if params is None else params)
        extra = {name: _for_left(name, v, params, is_frozen) for name, v in extra.items()}
        left = None if params is None else left_of(params, is_frozen)
        new, state = tx.update(left_of(updates, is_frozen), state, left, **extra)
        # To add -0.0 leaves every number as it is; to add 0.0 makes 0.0 of -0.0.
        still = jax.tree.map(lambda leaf: jnp.full_like(leaf, -0.0), updates)
        return merged(new, still, is_frozen), state

    return freezing(init, update, frozen)


def freezing(
    init: Any, update: Any, frozen: Callable[[PyTree], PyTree]
) -> optax.GradientTransformationExtraArgs:
    """A transformation of which `frozen_in` knows.

    Args:
        init: that of the transformation.
        update: likewise.
        frozen: ``params -> tree of bools``: which it leaves as they are.
    """
    vars(update)["frozen"] = frozen  # there, as a transformation has no room for more
    return optax.GradientTransformationExtraArgs(init, update)


def is_freezing(tx: Any) -> bool:
    """Whether an optimizer leaves parameters as they are."""
    return hasattr(getattr(tx, "update", None), "frozen")


def frozen_in(tx: Any, params: PyTree) -> PyTree | None:
    """Which parameters an optimizer leaves as they are, a tree of bools; None where it has none."""
    return tx.update.frozen(params) if is_freezing(tx) else None


def trained_in(tx: Any, params: PyTree) -> PyTree:
    """The parameters that an optimizer trains, without those that are frozen."""
    is_frozen = frozen_in(tx, params)
    return params if is_frozen is None else left_of(params, is_frozen)


def describe_freeze(freeze: Freeze) -> str:
    """What is frozen in a few words, for logs."""
    if callable(freeze):
        return f"what {getattr(freeze, '__name__', type(freeze).__name__)} chooses"
    return " ".join(f"/{pattern.pattern}/" for pattern in _patterns(freeze))


def check_freeze(freeze: Any) -> None:
    """Raises for what cannot be a value of `freeze`.

    Raises:
        OptimizerError: when it is no pattern, no list of them, and no function.
    """
    if not callable(freeze) and not _patterns(freeze):
        raise OptimizerError(f"Received freeze={freeze!r}; expected {_FREEZE_EXPECTED}")


def check_lr_scale(lr_scale: Mapping[str, float]) -> None:
    """Raises for patterns that are none.

    Raises:
        OptimizerError: when a key is no regular expression.
    """
    for pattern in lr_scale:
        compiled("lr_scale", pattern, _SCALE_EXPECTED)


_SCALE_EXPECTED = (
    'a dict from regular expressions over paths such as "encoder/Dense_0/kernel" to factors. Write '
    'for instance lr_scale={"encoder/": 0.1}.'
)
_FREEZE_EXPECTED = (
    'one or several regular expressions over paths such as "encoder/Dense_0/kernel", or a function '
    'from the parameters to a tree of bools. Write for instance freeze="encoder/".'
)


def _patterns(freeze: Any) -> list[re.Pattern[str]]:
    several = freeze if isinstance(freeze, list | tuple) else [freeze]
    return [compiled("freeze", pattern, _FREEZE_EXPECTED) for pattern in several]


def _frozen(patterns: list[re.Pattern[str]], params: PyTree) -> PyTree:
    masks = [matching(pattern, params, "freeze", 'freeze="encoder/"') for pattern in patterns]
    return jax.tree.map(lambda *chosen: any(chosen), *masks)


def left_of(tree: PyTree, is_frozen: PyTree) -> PyTree:
    """The tree without its frozen leaves, in the form in which optax takes it."""
    return jax.tree.map(lambda out, leaf: optax.MaskedNode() if out else leaf, is_frozen, tree)


def merged(left: PyTree, whole: PyTree, is_frozen: PyTree) -> PyTree:
    """The leaves of `left`, and those of `whole` where frozen."""
    return jax.tree.map(lambda out, leaf, own: own if out else leaf, is_frozen, left, whole)


def _for_left(name: str, value: Any, params: PyTree, is_frozen: PyTree) -> Any:
    """An extra argument as an optimizer needs it that does not know of the frozen parameters."""
    if name == "grad":
        return left_of(value, is_frozen)
    if name not in ("obj_fn", "value_fn") or not callable(value):
        return value

    @functools.wraps(value)
    def of_left(left: PyTree, *args: Any, **kwargs: Any) -> Any:
        return value(merged(left, params, is_frozen), *args, **kwargs)

    return of_left
