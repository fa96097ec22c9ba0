"""Host arrays in the dtypes of the device, which has 32 bits unless x64 is on.

A number that does not fit is an error: JAX would cut an integer to its last bits, and make an
infinity of a float. What to look at costs little: of integers the bits, or the smallest and the
largest, while a cast of floats tells by itself. Only what is there is cast, never memory that
nobody has written.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._trees import describe_leaf, path_name
from boltax._base._types import PyTree
from boltax.errors import DataError


class DoesNotFitError(ValueError):
    """Raised within this package only: a number that the device cannot hold."""


def device_dtype(dtype: Any) -> Any:
    """The dtype that arrays of a dtype have on the device.

    Example:
        >>> device_dtype(np.dtype("float16")), device_dtype(np.dtype("int64"))
        (dtype('float16'), dtype('int32'))
    """
    return dtype if dtype.itemsize < 8 else _canonical(dtype, has_64_bits())


def has_64_bits() -> bool:
    """Whether the device holds numbers of 64 bits."""
    return bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


@functools.lru_cache
def _canonical(dtype: Any, _: bool) -> Any:
    is_extended = jnp.issubdtype(dtype, jax.dtypes.extended)
    return dtype if is_extended else jax.dtypes.canonicalize_dtype(dtype)


def narrow(leaf: Any, is_looked_at: bool = False) -> Any:
    """The leaf in the dtype of the device; itself where it has that, or is no NumPy array.

    Args:
        leaf: a NumPy or JAX array.
        is_looked_at: whether its integers are known to fit.

    Raises:
        DoesNotFitError: when a number does not fit.
    """
    if not isinstance(leaf, np.ndarray) or (dtype := device_dtype(leaf.dtype)) == leaf.dtype:
        return leaf
    if leaf.dtype.kind not in "iu":
        return _floats_checked(lambda: leaf.astype(dtype))
    if not is_looked_at:
        check_integers(leaf)
    return leaf.astype(dtype)


def narrow_into(out: Any, leaf: Any, *, is_looked_at: bool = False) -> None:
    """Copies a leaf into an array of the dtype that the device has for it; see `narrow`."""
    if out.dtype == leaf.dtype:
        out[...] = leaf
        return
    if leaf.dtype.kind not in "iu":
        _floats_checked(lambda: np.copyto(out, leaf, casting="unsafe"))
        return
    if not is_looked_at:
        check_integers(leaf)
    np.copyto(out, leaf, casting="unsafe")


def stack_into(out: Any, leaves: Sequence[Any]) -> None:
    """Stacks leaves into an array of the dtype that the device has for them; see `narrow`."""
    if out.dtype == leaves[0].dtype:
        np.stack(leaves, out=out)
    elif leaves[0].dtype.kind in "iu":
        narrow_into(out, np.stack(leaves))
    else:
        _floats_checked(lambda: np.stack(leaves, out=out, casting="unsafe"))


def check_integers(leaf: Any) -> None:
    """Looks at the smallest and the largest integer of an array, where its dtype narrows.

    Raises:
        DoesNotFitError: when one does not fit.
    """
    dtype = device_dtype(leaf.dtype)
    if dtype == leaf.dtype or leaf.dtype.kind not in "iu" or not leaf.size:
        return
    least, most = _limits(dtype)
    # where none is negative, all their bits together tell in one pass
    if 0 <= np.bitwise_or.reduce(leaf, axis=None).item() <= most:
        return
    if leaf.max().item() > most or leaf.min().item() < least:
        raise DoesNotFitError


@functools.lru_cache
def _limits(dtype: Any) -> tuple[int, int]:
    limits = np.iinfo(dtype)  # asking it takes longer than to look at a small array
    return int(limits.min), int(limits.max)


def _floats_checked(cast: Any) -> Any:
    with np.errstate(over="raise", invalid="ignore"):  # the second is about odd NaNs
        try:
            return cast()
        except FloatingPointError as error:
            raise DoesNotFitError from error


def narrowed(tree: PyTree, where: str, root: str = "batch") -> PyTree:
    """A tree with all its leaves in the dtypes of the device.

    Args:
        tree: NumPy arrays, and JAX arrays, which stay.
        where: what it is, for messages: ``"batch 3 of epoch 1"``.
        root: the name with which the paths of its leaves begin.

    Raises:
        DataError: when a number does not fit; names it and its leaf.
    """
    try:
        return jax.tree.map(narrow, tree)
    except DoesNotFitError as error:
        raise does_not_fit([tree], where, root) from error


def does_not_fit(trees: Sequence[PyTree], where: str, root: str = "batch") -> DataError:
    """The error about the first number, in one of these trees, that the device cannot hold."""
    for tree in trees:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            try:
                narrow(leaf)
            except DoesNotFitError:
                return _named(leaf, f"{where} with {path_name(path, root)}")
    return DataError(f"Received {where} with numbers that do not fit; expected others.")


def _named(leaf: Any, what: str) -> DataError:
    dtype = device_dtype(leaf.dtype)
    is_integer = leaf.dtype.kind in "iu"
    limits: Any = np.iinfo(dtype) if is_integer else np.finfo(dtype)
    flat = leaf.ravel()
    if is_integer:
        is_out = (flat > limits.max) | (flat < limits.min)
    else:
        is_out = np.isfinite(flat) & (np.abs(flat) > float(limits.max))
    value = flat[is_out.argmax()].item()
    advice = (
        "Number them anew (np.unique(x, return_inverse=True)[1]), take the difference to a start, "
        "or split them into two columns"
        if is_integer
        else "Scale or clip them"
    )
    return DataError(
        f"Received {what}: {describe_leaf(leaf)}, which holds {value!r}; expected numbers from "
        f"{limits.min} to {limits.max}, since the device holds them as {dtype}. {advice}; or "
        'have 64 bits: jax.config.update("jax_enable_x64", True) before anything else.'
    )
