"""A model of one example, mapped over the batch: `Vmap`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from boltax.errors import ModelError

Axis = int | None


@dataclass(frozen=True)
class Vmap:
    """A model that takes one example, for a trainer that gives it batches.

    Equinox models and plain functions are often written for one example, and mapped by `jax.vmap`.
    As ``model_class=Vmap(MLP)``, ``model(images)`` in the loss maps the model over the batch: each
    example has a random key of its own, and state such as that of BatchNorm comes back once.

    Args:
        model: the model's class, a function that makes it, or a `Functional`.
        axis_name: the name of the batch axis, which BatchNorm has to be given too.
        in_axes: which axis of the inputs is that of the examples, as in `jax.vmap`: one for all, or
            a tuple with one for each positional input; None for an input that all examples share.
            Keyword arguments that are arrays are mapped over their first axis.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from boltax.models import Vmap, adapt
        >>> hparams = {"in_size": 4, "out_size": 3, "width_size": 8, "depth": 1}
        >>> adapter = adapt(Vmap(eqx.nn.MLP), hparams)
        >>> adapter.bind(adapter.empty(jax.random.key(0)))(jnp.ones((5, 4))).shape
        (5, 3)
    """

    model: Any
    axis_name: str = "batch"
    in_axes: Axis | tuple[Axis, ...] = 0

    @property
    def __name__(self) -> str:
        """The model's name."""
        return getattr(self.model, "__name__", type(self.model).__name__)

    def over_examples(
        self,
        run: Callable[[tuple[Any, ...], Mapping[str, Any], Any], tuple[Any, Any]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        key: jax.Array | None,
    ) -> tuple[Any, Any]:
        """Calls `run` for each example; traced.

        Args:
            run: ``(args, kwargs, key) -> (outputs, state)`` of one example.
            args: positional inputs of the batch.
            kwargs: keyword inputs; those that are no arrays are handed on as they are.
            key: is split, one for each example; None where no key is needed.

        Returns:
            The outputs, stacked, and the state, which has to be the same for all examples.

        Raises:
            ModelError: when no input has an axis of examples.
        """
        leaves, treedef = jax.tree.flatten((args, dict(kwargs)))
        axes = self._axes(args, kwargs)
        places = [n for n, axis in enumerate(axes) if axis is not None]
        mapped = [leaves[n] for n in places]
        if not mapped:
            raise ModelError(
                f"Received a call of {self.__name__}, a Vmap, without an array to map over; "
                "expected inputs [batch, ...]. Write model(images), and in_axes=(0, None) for an "
                "input that all examples share."
            )
        if key is not None:
            key = jax.random.split(key, mapped[0].shape[axes[places[0]] or 0])

        def one(mapped: list[Any], key: Any) -> tuple[Any, Any]:
            filled = list(leaves)
            for place, leaf in zip(places, mapped, strict=True):
                filled[place] = leaf
            inputs, named = treedef.unflatten(filled)
            return run(inputs, named, key)

        in_axes = ([axes[n] for n in places], 0)
        try:
            return jax.vmap(one, in_axes, (0, None), axis_name=self.axis_name)(mapped, key)
        except ValueError as error:
            if "out_axes" in str(error):
                error.add_note(
                    f"The state of {self.__name__} has to be the same for all examples of a batch: "
                    f'take the mean over them, jax.lax.pmean(value, "{self.axis_name}").'
                )
            raise

    def example(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The positional inputs of the first example."""
        leaves, treedef = jax.tree.flatten((args, {}))
        axes = self._axes(args, {})
        first = [
            leaf if axis is None else jax.lax.index_in_dim(leaf, 0, axis, keepdims=False)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        return treedef.unflatten(first)[0]

    def _axes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Axis]:
        """The mapped axis of each leaf of the inputs; None where it is shared."""
        each = self.in_axes if isinstance(self.in_axes, tuple) else (self.in_axes,) * len(args)
        if len(each) != len(args):
            raise ModelError(
                f"Received a call of {self.__name__} with {len(args)} positional inputs; expected "
                f"{len(each)}, as in Vmap(in_axes={self.in_axes!r}). Give an axis for each."
            )
        pairs = [*zip(args, each, strict=True), *((kwargs[name], 0) for name in sorted(kwargs))]
        return [
            axis if hasattr(leaf, "shape") else None
            for tree, axis in pairs
            for leaf in jax.tree.leaves(tree)
        ]
