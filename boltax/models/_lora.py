"""Low-rank adaptation: a model whose weights stay, beside pairs of small matrices that train.

    W = W_0 + alpha / rank * A B        (Hu et al. 2021, LoRA, section 4.1)

The pairs are the parameters; the weights are a collection, which no optimizer knows.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._keys import fold_name
from boltax._base._trees import path_names, path_text
from boltax._base._types import PyTree, Variables
from boltax.errors import ModelError
from boltax.models._calls import Call, is_equinox, linen_apply
from boltax.models._collections import PARAMS, put
from boltax.parallel._rules import AxisNames

BASE = "base"
"""The collection of the weights that stay as they are."""
_MOST_PATHS = 20


@dataclass(frozen=True)
class Lora:
    """A model that is fine-tuned by low-rank pairs: only these are trained.

    As ``model_class=Lora(ViT, "attention/.*kernel", rank=8)`` it computes with ``W + alpha / rank *
    A B`` in place of each weight that the pattern chooses. Its parameters are the pairs, which
    begin as a change of nothing. The model's own are the collection ``base``: it stays as it is,
    takes no memory in the optimizer, and has no gradients. `TrainerModule.load_weights` loads
    weights of the model itself into it, and `bind_model` and `export` give the model with the pairs
    merged in. Weights of convolutions are matrices of all other axes by the outputs; those of three
    axes, as in attention, are split where the two sides are small.

    Args:
        model: what would be the ``model_class`` without it: of Linen, NNX, Equinox, or functions.
        pattern: a regular expression that is searched in paths such as ``"Dense_0/kernel"``, or
            several; arrays of at least two axes in whose path one is found get a pair.
        rank: the inner size of a pair.
        alpha: the strength; the change is ``alpha / rank * A B``.

    Raises:
        ModelError: for a pattern or numbers that cannot work.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from boltax.models import ModelView, adapt
        >>> adapter = adapt(Lora(nn.Dense, "kernel", rank=1), {"features": 3})
        >>> view = ModelView(adapter, {}, jax.random.key(0), train=True, initializing=True)
        >>> _ = view(jnp.ones((2, 4)))
        >>> jax.tree.map(jnp.shape, view.params)
        {'kernel': {'a': (4, 1), 'b': (1, 3)}}

    References:
        Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
    """

    model: Any
    pattern: str | tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        try:
            is_good = bool(self.patterns) and all(p.pattern for p in self.patterns)
        except (TypeError, re.error):
            is_good = False
        is_whole = isinstance(self.rank, int) and not isinstance(self.rank, bool)
        if not is_good or not is_whole or self.rank < 1 or not self.alpha > 0:
            raise ModelError(
                f"Received Lora(pattern={self.pattern!r}, rank={self.rank!r}, "
                f"alpha={self.alpha!r}); expected regular expressions over paths, a whole number "
                "of at least 1, and a number above 0. Write "
                'Lora(ViT, "attention/.*kernel", rank=8).'
            )

    @property
    def __name__(self) -> str:
        """The model's name."""
        return getattr(self.model, "__name__", type(self.model).__name__)

    @property
    def patterns(self) -> list[re.Pattern[str]]:
        """The patterns, compiled."""
        several = (self.pattern,) if isinstance(self.pattern, str) else self.pattern
        return [re.compile(pattern) for pattern in several]


class LoraAdapter:
    """A model with low-rank pairs; see `ModelAdapter`.

    Variables without the collection ``base`` are those of the model itself, merged already.

    Args:
        adapter: of the model.
        lora: which weights get pairs.
    """

    def __init__(self, adapter: Any, lora: Lora) -> None:
        self.model, self.name = adapter.model, adapter.name
        self.apply_fn: Callable[..., Any] = linen_apply(self.apply)
        self._adapter, self._lora, self._patterns = adapter, lora, lora.patterns
        self._has_input_last = is_equinox(type(adapter.model))

    @property
    def axis_names(self) -> AxisNames:
        """Those of the model's weights, which lie beside the pairs. See `ModelAdapter`."""
        named: AxisNames = self._adapter.axis_names
        return {(BASE if n[0] == PARAMS else n[0], *n[1:]): axes for n, axes in named.items()}

    def empty(self, key: jax.Array) -> Variables:
        """The variables that the model has before the first call, with pairs."""
        variables = self._adapter.empty(key)
        return self._parted(variables, {}, fold_name(key, "lora")) if PARAMS in variables else {}

    def apply(
        self,
        variables: Variables,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        keys: Callable[[str], jax.Array],
        initializing: bool = False,
        **options: Any,
    ) -> tuple[Any, Variables]:
        """Calls the model with its pairs merged. See `ModelAdapter.apply`."""
        outputs, after = self._adapter.apply(
            self.merged(variables), args, kwargs, keys=keys, initializing=initializing, **options
        )
        if initializing:  # a pair that was just made changes nothing: the weights are those before
            return outputs, self._parted(after, variables[PARAMS], keys("lora"))
        if BASE not in variables:
            return outputs, after
        return outputs, {**after, BASE: variables[BASE], PARAMS: variables[PARAMS]}

    def merged(self, variables: Variables) -> Variables:
        """The variables of the model itself, with the pairs merged into its weights; traced."""
        if BASE not in variables:
            return variables
        pairs = _pairs(variables[PARAMS])
        half = _half_dtype(variables[PARAMS])

        def one(path: tuple[Any, ...], leaf: Any) -> Any:
            if pair := pairs.get(path_names(path)):
                leaf = leaf + self._change(pair, leaf)
            is_floating = jnp.issubdtype(leaf.dtype, jnp.floating)
            return leaf.astype(half) if half is not None and is_floating else leaf

        own = {name: value for name, value in variables.items() if name != BASE}
        return {**own, PARAMS: jax.tree_util.tree_map_with_path(one, variables[BASE])}

    def bind(self, variables: Variables, rngs: Mapping[str, jax.Array] | None = None) -> Any:
        """The model itself, with the pairs merged in. See `ModelAdapter.bind`."""
        return self._adapter.bind(self.merged(variables), rngs)

    def tabulate(
        self, calls: Sequence[Call], *, depth: int | None, console: Mapping[str, Any]
    ) -> str:
        """The table of the model itself. See `ModelAdapter.tabulate`."""
        text = self._adapter.tabulate(calls, depth=depth, console=console)
        searched = " ".join(f"/{pattern.pattern}/" for pattern in self._patterns)
        return f"{text.rstrip()}\nOnly pairs of rank {self._lora.rank} train, for {searched}\n"

    def _change(self, pair: Mapping[str, Any], weight: Any) -> Any:
        a, b = (pair[name].astype(_wide(weight.dtype)) for name in ("a", "b"))
        change = jnp.matmul(a, b, precision="highest") * (self._lora.alpha / self._lora.rank)
        return change.reshape(weight.shape).astype(weight.dtype)

    def _parted(self, variables: Variables, known: PyTree, key: jax.Array) -> Variables:
        """Variables of the model with its parameters as the base, and pairs for those chosen."""
        base, pairs = variables[PARAMS], _pairs(known)
        chosen = {
            path_names(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(base)
            if jnp.ndim(leaf) >= 2 and self._chooses(path_names(path))
        }
        if not chosen:
            raise self._matches_nothing(base)
        made: dict[str, Any] = {}
        for names, leaf in chosen.items():
            put(made, names, pairs.get(names) or self._pair(names, leaf, key))
        return {**variables, BASE: base, PARAMS: made}

    def _chooses(self, names: Sequence[str]) -> bool:
        return any(pattern.search("/".join(names)) for pattern in self._patterns)

    def _pair(self, names: Sequence[str], weight: Any, key: jax.Array) -> dict[str, jax.Array]:
        """A pair that changes nothing yet: the side of the inputs is random, the other one zero."""
        path, rank = "/".join(names), self._lora.rank
        rows, columns = _sides(jnp.shape(weight), has_input_last=self._has_input_last)
        if rank > min(rows, columns):
            raise ModelError(
                f"Received rank={rank} for {path} of shape {jnp.shape(weight)}; expected at most "
                f"{min(rows, columns)}, the rank that it has. Write Lora(..., rank=...), or a "
                "pattern that leaves it out."
            )
        dtype, key = jnp.result_type(weight), fold_name(key, path)
        shapes = {"a": (rows, rank), "b": (rank, columns)}
        given, inputs = ("b", columns) if self._has_input_last else ("a", rows)
        pair = {name: jnp.zeros(shape, dtype) for name, shape in shapes.items()}
        noise = jax.random.normal(key, shapes[given], jnp.float32) / np.float32(np.sqrt(inputs))
        return {**pair, given: noise.astype(dtype)}

    def _matches_nothing(self, base: PyTree) -> ModelError:
        leaves = jax.tree_util.tree_leaves_with_path(base)
        paths = [path_text(path) for path, leaf in leaves if jnp.ndim(leaf) >= 2]
        more = ", ..." if len(paths) > _MOST_PATHS else ""
        return ModelError(
            f"Received Lora(pattern={self._lora.pattern!r}), which matches no weight of "
            f"{self.name}; expected a regular expression that is found in at least one of: "
            f"{', '.join(paths[:_MOST_PATHS])}{more}. Write for instance "
            f'Lora({self.name}, "kernel").'
        )


def merged(adapter: Any, variables: Variables) -> Variables:
    """The variables of a model itself: those of a `Lora` merged, all others as they are."""
    return adapter.merged(variables) if isinstance(adapter, LoraAdapter) else variables


def _pairs(params: PyTree, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The pairs in nested dicts by the path of their weight."""
    if set(params) == {"a", "b"} and not isinstance(params["a"], dict):
        return {path: params}
    inner = [_pairs(child, (*path, name)) for name, child in params.items()]
    return {names: pair for pairs in inner for names, pair in pairs.items()}


def _sides(shape: tuple[int, ...], *, has_input_last: bool) -> tuple[int, int]:
    """The weight as a matrix: its axes in two groups."""
    splits = [(int(np.prod(shape[:n])), int(np.prod(shape[n:]))) for n in range(1, len(shape))]
    if len(shape) > 3:  # of a convolution
        return splits[0 if has_input_last else -1]
    return min(splits, key=sum)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _half_dtype(pairs: PyTree) -> Any:
    """The half precision in which a call computes, or None: its parameters come in it."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(pairs)}
    return next((dtype for dtype in dtypes if dtype.itemsize == 2), None)
