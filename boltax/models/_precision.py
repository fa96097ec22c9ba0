"""Mixed precision: a model whose calls compute in half precision, whoever makes them.

Half precision stays inside the call. What goes in is rounded there, what comes out is float32, and
variables are what they were: parameters in full precision, statistics as the model keeps them.
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import jax
import jax.numpy as jnp

from boltax._base._types import PyTree, Variables
from boltax.models._adapter import ModelAdapter
from boltax.models._collections import PARAMS
from boltax.models._wrapped import Wrapped

DTYPES: Mapping[str, Any] = {"bf16": jnp.bfloat16, "fp16": jnp.float16}
"""In which dtype a model computes, by the value of ``LoopOptions(precision=...)``."""


def in_precision(adapter: ModelAdapter, precision: str) -> ModelAdapter:
    """The model as it is called with ``LoopOptions(precision=...)``; itself for ``"float32"``."""
    return MixedPrecision(adapter, DTYPES[precision]) if precision in DTYPES else adapter


@final
class MixedPrecision(Wrapped):
    """A model that computes in half precision; see `ModelAdapter`.

    Parameters and floating-point inputs are rounded to it inside the call, so gradients reach the
    parameters in their own dtype. Outputs in half precision become float32: a loss is computed from
    them as without. Collections such as BatchNorm statistics go in and out as they are.

    Args:
        adapter: the model.
        dtype: bfloat16 or float16.
    """

    def __init__(self, adapter: ModelAdapter, dtype: Any) -> None:
        super().__init__(adapter)
        self._dtype = jnp.dtype(dtype)

    def apply(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        **options: Any,
    ) -> tuple[Any, Variables]:
        """Calls the model in half precision. See `ModelAdapter.apply`."""
        params = variables[PARAMS]
        # Statistics in float32 meet activations in half precision: of two dtypes, the wider one.
        with jax.numpy_dtype_promotion("standard"):
            outputs, after = self._adapter.apply(
                {**variables, PARAMS: self._rounded(params)},
                self._rounded(args),
                self._rounded(dict(kwargs)),
                **options,
            )
        return self._widened(outputs), {**after, PARAMS: params}

    def _rounded(self, tree: PyTree) -> PyTree:
        return _cast(tree, lambda dtype: dtype.itemsize > 2, self._dtype)

    def _widened(self, tree: PyTree) -> PyTree:
        return _cast(tree, lambda dtype: dtype == self._dtype, jnp.dtype(jnp.float32))


def _cast(tree: PyTree, should: Callable[[Any], bool], dtype: Any) -> PyTree:
    """The tree with its floating-point arrays of some dtypes in another one."""

    def cast(leaf: Any) -> Any:
        own = getattr(leaf, "dtype", None)
        is_floating = own is not None and jnp.issubdtype(own, jnp.floating)
        return jnp.asarray(leaf, dtype) if is_floating and should(own) else leaf

    return jax.tree.map(cast, tree)
