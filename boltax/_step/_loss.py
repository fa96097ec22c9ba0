"""From a user's `loss_function` to the pure steps that are compiled. Everything here is traced.

A step sees the state and a batch and nothing else: its random keys come from the state's key, in
training together with its step, the model's collections come out of the state and go back into it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.errors import ScopeParamShapeError
from jax import lax

from boltax._base._keys import fold_name, step_key
from boltax._base._trees import (
    choose,
    describe,
    describe_leaf,
    examples_or_one,
    num_examples,
    path_name,
    wide,
)
from boltax._base._types import Batch, Number, PyTree, State, StepMetrics, Variables
from boltax._step._bodies import after
from boltax._step._layers import Watched, layer_metrics
from boltax._step._metric_names import check_names
from boltax._step._microbatches import Part, over_parts
from boltax._step._on_gradients import GradientHook, through_hook
from boltax._step._state import TrainState, split_collections, variables_of
from boltax.errors import (
    BoltaxError,
    ConfigurationError,
    DataError,
    LossError,
    noting,
)
from boltax.metrics._means import held
from boltax.metrics._totals import is_float
from boltax.models._adapter import ModelAdapter
from boltax.models._view import ModelView
from boltax.optim._adapt import optax_promotion
from boltax.optim._by_path import frozen_in, left_of, merged, trained_in
from boltax.optim._regularization import l2_penalty

LossFunction = Callable[[ModelView, Batch, bool], PyTree]
Objective = Callable[[PyTree], tuple[jax.Array, Part]]


class LossSteps:
    """The pure steps of a model with a loss.

    Args:
        adapter: the model.
        loss_function: ``(model, batch, train) -> (loss, metrics)``.
        predict_function: ``(model, batch) -> outputs``.
        owner: the trainer's class name, for notes on exceptions.
        hparams: hyperparameters that are no traced numbers; those come from the state.
        microbatches: in how many parts a training step computes its gradients.
        on_gradients: `TrainerModule.on_gradients`, where a subclass has one.
        watched: what records say of each layer; None for nothing.
        size_of: the number of examples in a batch.
        example: the batch for which the model was initialised, for messages.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        loss_function: LossFunction,
        predict_function: Callable[[ModelView, Batch], PyTree],
        *,
        owner: str,
        hparams: Mapping[str, Any],
        microbatches: int = 1,
        on_gradients: GradientHook | None = None,
        watched: Watched | None = None,
        size_of: Callable[[Batch], int] = num_examples,
        example: Batch | None = None,
    ) -> None:
        self.adapter = adapter
        self.loss_function = loss_function
        self.predict_function = predict_function
        self.owner = owner
        self.hparams = hparams
        self.microbatches = microbatches
        self.on_gradients, self.watched = on_gradients, watched
        self._size_of, self._example = size_of, example

    def run(self, model: ModelView, batch: Batch) -> None:
        """Runs the loss for its calls of the model, as initialisation does."""
        self._loss(model, batch, train=True)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """One optimizer update, by the gradients of the loss and of an L2 term where asked for."""
        raw = self._with_gradients(state, batch)

        def value_fn(params: PyTree) -> jax.Array:
            return self._value(state, batch, params)

        found = raw
        if self.on_gradients is not None:
            found = through_hook(self.on_gradients, self.owner, state, raw, value_fn)
        new = state.apply_gradients(
            grads=found.sums,
            loss=found.loss,
            value_fn=value_fn,
            **split_collections(found.variables),
        )
        with optax_promotion():
            norm = optax.tree.norm(after(new.params, found.sums))
        metrics = {**found.metrics, "grad_norm": norm}
        if self.watched is not None:
            metrics = layer_metrics(self.watched, state, new, found.sums, metrics)
        if state.loss_scale is None:
            return new, metrics
        if found is not raw:  # a hook may have taken out what tells of an overflow
            with optax_promotion():
                norm = optax.tree.norm(raw.sums)
        scale = state.loss_scale.scale
        is_overflow = jnp.isfinite(found.loss) & ~jnp.isfinite(norm) & (scale > 1)
        new = choose(is_overflow, state, new)
        return (
            new.replace(loss_scale=state.loss_scale.after(is_overflow)),
            {**metrics, "loss_scale": scale},
        )

    def gradients(self, state: TrainState, batch: Batch) -> tuple[jax.Array, PyTree]:
        """The loss of a batch and the gradients as they come, before the optimizer has them."""
        found = self._with_gradients(state, batch)
        return found.loss, found.sums

    def _with_gradients(self, state: TrainState, batch: Batch) -> Part:
        """What is found of a batch, its `sums` being the gradients."""

        def find(variables: Variables, examples: Batch, part: Number) -> Part:
            objective = self._objective(state, variables, examples, part)
            return _differentiated(objective, state)

        return self._over_batch(find, state, batch, like=state.params)

    def _value(self, state: TrainState, batch: Batch, params: PyTree) -> jax.Array:
        """The loss of a batch with other parameters."""

        def find(variables: Variables, examples: Batch, part: Number) -> Part:
            return self._objective(state, variables, examples, part)(params)[1]

        return self._over_batch(find, state, batch).loss

    def _over_batch(
        self,
        find: Callable[[Variables, Batch, Number], Part],
        state: TrainState,
        batch: Batch,
        like: PyTree = (),
    ) -> Part:
        variables = variables_of(state)
        if self.microbatches == 1:
            return find(variables, batch, None)
        return over_parts(find, variables, batch, self.microbatches, like)

    def _objective(
        self, state: TrainState, variables: Variables, batch: Batch, part: Number
    ) -> Objective:
        def objective(params: PyTree) -> tuple[jax.Array, Part]:
            view = self._view(state, {**variables, "params": params}, "train", part)
            loss, metrics = self._loss(view, batch, train=True)
            total, weight = _mean_and_weight(loss, batch, self._size_of)
            if "l2_regularization" in (state.hparams or {}):
                trained = trained_in(state.tx, params)
                penalty = l2_penalty(trained, state.hparams["l2_regularization"])
                total, metrics = (
                    total + penalty.astype(total.dtype),
                    {**metrics, "l2_penalty": penalty},
                )
            return total, Part(total, weight, {"loss": loss, **metrics}, view.variables)

        return objective

    def eval_step(self, state: TrainState, batch: Batch) -> StepMetrics:
        """The loss and the metrics of one batch, in evaluation mode."""
        loss, metrics = self._loss(
            self._view(state, variables_of(state), "eval"), batch, train=False
        )
        return {"loss": loss, **metrics}

    def predict_step(self, state: TrainState, batch: Batch) -> PyTree:
        """The outputs for one batch, in evaluation mode."""
        view = self._view(state, variables_of(state), "predict")
        with noting(f"predict_function of {self.owner}"):
            return self.predict_function(view, batch)

    def view(self, state: TrainState, phase: str) -> ModelView:
        """The model of a step, outside of any.

        Args:
            state: with the variables.
            phase: ``"train"``, ``"eval"`` or ``"predict"``.
        """
        return self._view(state, variables_of(state), phase)

    def _unlike_example(self, batch: Batch) -> str:
        """What of a batch has other sizes than the example batch, the first axis aside."""
        if self._example is None:
            return ""
        before, now = (
            {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
            for tree in (self._example, batch)
        )
        return ", ".join(
            f"{name}: {describe_leaf(leaf)} and not {describe_leaf(before[name])}"
            for name, leaf in now.items()
            if name in before and np.shape(leaf)[1:] != np.shape(before[name])[1:]
        )

    def _view(
        self, state: TrainState, variables: Variables, phase: str, part: Number = None
    ) -> ModelView:
        if phase == "train":
            key = step_key(state.rng, phase, jnp.asarray(state.step, jnp.int32))
        else:  # the state's key is that of the batch, and no step of training is to move it
            key = fold_name(state.rng, phase)
        key = key if part is None else jax.random.fold_in(key, part)
        hparams = {**self.hparams, **(state.hparams or {})}
        return ModelView(self.adapter, variables, key, train=phase == "train", hparams=hparams)

    def _loss(self, view: ModelView, batch: Batch, *, train: bool) -> tuple[State, StepMetrics]:
        try:
            with noting(f"loss_function of {self.owner}"):
                result = self.loss_function(view, batch, train)
        except (TypeError, ValueError, ScopeParamShapeError) as error:
            if isinstance(error, BoltaxError) or not (changes := self._unlike_example(batch)):
                raise
            raise _other_example(changes, error) from error
        loss, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        # a pair has a count of its own; all else is weighted by that of the examples
        is_pair = isinstance(loss, tuple)
        size = _size_of_pairs(batch, self._size_of) if is_pair else self._size_of(batch)
        loss, metrics = (
            _check_loss(loss, batch, size, self.owner),
            check_names(metrics, f"loss_function of {self.owner}"),
        )
        with noting(f"loss_function of {self.owner}"):
            return loss, {name: held(name, value, size) for name, value in metrics.items()}


def inputs_of(batch: Batch) -> PyTree:
    """The part of a batch that a model predicts from: the first of a tuple, or all of it.

    Raises:
        ConfigurationError: for a dict, of which nobody knows.
    """
    if isinstance(batch, Mapping):
        raise ConfigurationError(
            f"Received a batch with keys {sorted(batch)} to predict from; expected to know which "
            "one the model takes. Write: def predict_function(self, model, batch): return "
            "model(batch['...'])"
        )
    return batch[0] if isinstance(batch, tuple | list) else batch


def _differentiated(objective: Objective, state: TrainState) -> Part:
    """The objective at the state's parameters, with its gradients; those of frozen ones are 0."""
    is_frozen = frozen_in(state.tx, state.params)
    if is_frozen is None:
        return _differentiated_at(state.params, objective, state)

    def of_left(left: PyTree) -> tuple[jax.Array, Part]:
        return objective(merged(left, state.params, is_frozen))

    found = _differentiated_at(left_of(state.params, is_frozen), of_left, state)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    return found._replace(sums=merged(found.sums, zeros, is_frozen))


def _differentiated_at(params: PyTree, objective: Objective, state: TrainState) -> Part:
    if state.loss_scale is None:
        (_, found), grads = jax.value_and_grad(objective, has_aux=True)(params)
        return found._replace(sums=grads)
    scale = state.loss_scale.scale

    def scaled(params: PyTree) -> tuple[jax.Array, Part]:
        total, found = objective(params)
        return total * scale.astype(total.dtype), found

    (_, found), grads = jax.value_and_grad(scaled, has_aux=True)(params)
    return found._replace(sums=jax.tree.map(lambda g: g / scale.astype(g.dtype), grads))


def _mean_and_weight(
    loss: PyTree, batch: Batch, size_of: Callable[[Batch], int]
) -> tuple[jax.Array, jax.Array]:
    """The loss to minimise, and what it counts beside that of other examples."""
    if not isinstance(loss, tuple):
        return jnp.mean(loss), jnp.float32(size_of(batch))
    # In low precision a count is off from 256 on, and a total beside it.
    dtype = wide(loss[0].dtype)
    total, weight = loss[0].astype(dtype), lax.stop_gradient(loss[1]).astype(dtype)
    return total / jnp.where(weight == 0, 1, weight), weight


def _check_loss(loss: PyTree, batch: Batch, size: int, owner: str) -> PyTree:
    """A loss as an array, or a pair of arrays."""
    if isinstance(loss, tuple) and len(loss) == 2:
        parts = tuple(_as_array(part) for part in loss)
        if all(part is not None and part.shape == () for part in parts):
            total, count = parts
            is_floating = is_float(total.dtype)
            if is_floating or not isinstance(loss[0], jax.Array):
                return total if is_floating else total.astype(jnp.float32), count
    elif (
        not isinstance(loss, tuple)
        and _is_array(loss)
        and loss.shape[:1] in ((), (size,))
        and is_float(loss.dtype)
    ):
        return jnp.asarray(loss)
    parts = loss if isinstance(loss, tuple) else (loss,)
    received = ", ".join(
        describe_leaf(part) if _is_array(part) else type(part).__name__ for part in parts
    )
    raise LossError(
        f"Received a loss of {received} from loss_function of {owner}, for {describe(batch)}; "
        f"expected (loss, metrics) with a floating-point loss of shape [] or [{size}, ...], whose "
        "mean counts, or a pair (total, count) of scalars. Write loss.mean() over other axes, and "
        "return (loss, {...})."
    )


def _other_example(changes: str, error: Exception) -> DataError:
    return DataError(
        f"Received a batch with {changes}, the shape of exmp_input, for which the model was "
        f"initialised; it raised {type(error).__name__}: {error}. Expected batches that the model "
        "takes. Give exmp_input=next(iter(train_loader)), or mend the loader whose batches differ."
    )


def _size_of_pairs(batch: Batch, size_of: Callable[[Batch], int]) -> int:
    """The number of examples beside a loss that is a pair: a graph, which has none, is one."""
    return examples_or_one(batch) if size_of is num_examples else size_of(batch)


def _as_array(value: PyTree) -> PyTree:
    """A number of Python, NumPy or JAX as an array of JAX; None for anything else.

    An integer that int32 may not hold, a count of very many, is one in floating point.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return jnp.asarray(int(value), jnp.int32 if abs(int(value)) < 2**31 else jnp.float32)
    if isinstance(value, float | bool) or _is_array(value):
        return jnp.asarray(value)
    return None


def _is_array(value: PyTree) -> bool:
    return isinstance(value, jax.Array) or (hasattr(value, "shape") and hasattr(value, "dtype"))
