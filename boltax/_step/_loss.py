"""From a user's `loss_function` to the pure steps that are compiled. Everything here is traced.

A step sees the state and a batch and nothing else: its random keys come from the state's key, in
training together with its step, the model's collections come out of the state and go back into it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from boltax._base._keys import fold_name, step_key
from boltax._base._trees import choose, describe, describe_leaf, num_examples
from boltax._base._types import Batch, PyTree, Variables
from boltax._step._microbatches import Part, over_parts
from boltax._step._state import TrainState, split_collections, variables_of
from boltax.errors import ConfigurationError, LossError, MetricsError, noting
from boltax.models._adapter import ModelAdapter
from boltax.models._view import ModelView
from boltax.optim._adapt import optax_promotion
from boltax.optim._regularization import l2_penalty

RESERVED_METRICS = (
    "loss",
    "l2_penalty",
    "grad_norm",
    "loss_scale",
    "param_norm",
    "update_norm",
    "epoch",
    "step",
)
LossFunction = Callable[[ModelView, Batch, bool], Any]
Objective = Callable[[Any], tuple[jax.Array, Part]]


class LossSteps:
    """The pure steps of a model with a loss.

    Args:
        adapter: the model.
        loss_function: ``(model, batch, train) -> (loss, metrics)``.
        predict_function: ``(model, batch) -> outputs``.
        owner: the trainer's class name, for notes on exceptions.
        hparams: hyperparameters that are no traced numbers; those come from the state.
        microbatches: in how many parts a training step computes its gradients.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        loss_function: LossFunction,
        predict_function: Callable[[ModelView, Batch], Any],
        *,
        owner: str,
        hparams: Mapping[str, Any],
        microbatches: int = 1,
    ) -> None:
        self.adapter = adapter
        self.loss_function = loss_function
        self.predict_function = predict_function
        self.owner = owner
        self.hparams = hparams
        self.microbatches = microbatches

    def run(self, model: ModelView, batch: Batch) -> None:
        """Runs the loss for its calls of the model, as initialisation does."""
        self._loss(model, batch, train=True)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """One optimizer update, by the gradients of the loss and of an L2 term where asked for."""
        found = self._with_gradients(state, batch)
        new = state.apply_gradients(
            grads=found.sums,
            loss=found.loss,
            value_fn=lambda params: self._value(state, batch, params),
            **split_collections(found.variables),
        )
        with optax_promotion():
            norm = optax.tree.norm(_after(new.params, found.sums))
        metrics = {**found.metrics, "grad_norm": norm}
        if state.loss_scale is None:
            return new, metrics
        scale = state.loss_scale.scale
        is_overflow = jnp.isfinite(found.loss) & ~jnp.isfinite(norm) & (scale > 1)
        new = choose(is_overflow, state, new)
        return (
            new.replace(loss_scale=state.loss_scale.after(is_overflow)),
            {**metrics, "loss_scale": scale},
        )

    def gradients(self, state: TrainState, batch: Batch) -> tuple[jax.Array, Any]:
        """The loss of a batch and the gradients as they come, before the optimizer has them."""
        found = self._with_gradients(state, batch)
        return found.loss, found.sums

    def _with_gradients(self, state: TrainState, batch: Batch) -> Part:
        """What is found of a batch, its `sums` being the gradients."""

        def find(variables: Variables, examples: Batch, part: Any) -> Part:
            objective = self._objective(state, variables, examples, part)
            return _differentiated(objective, state)

        return self._over_batch(find, state, batch, like=state.params)

    def _value(self, state: TrainState, batch: Batch, params: Any) -> jax.Array:
        """The loss of a batch with other parameters."""

        def find(variables: Variables, examples: Batch, part: Any) -> Part:
            return self._objective(state, variables, examples, part)(params)[1]

        return self._over_batch(find, state, batch).loss

    def _over_batch(
        self,
        find: Callable[[Variables, Batch, Any], Part],
        state: TrainState,
        batch: Batch,
        like: Any = (),
    ) -> Part:
        variables = variables_of(state)
        if self.microbatches == 1:
            return find(variables, batch, None)
        return over_parts(find, variables, batch, self.microbatches, like)

    def _objective(
        self, state: TrainState, variables: Variables, batch: Batch, part: Any
    ) -> Objective:
        def objective(params: Any) -> tuple[jax.Array, Part]:
            view = self._view(state, {**variables, "params": params}, "train", part)
            loss, metrics = self._loss(view, batch, train=True)
            total, weight = _mean_and_weight(loss, batch)
            if "l2_regularization" in (state.hparams or {}):
                penalty = l2_penalty(params, state.hparams["l2_regularization"])
                total, metrics = (
                    total + penalty.astype(total.dtype),
                    {**metrics, "l2_penalty": penalty},
                )
            return total, Part(total, weight, {"loss": loss, **metrics}, view.variables)

        return objective

    def eval_step(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The loss and the metrics of one batch, in evaluation mode."""
        loss, metrics = self._loss(
            self._view(state, variables_of(state), "eval"), batch, train=False
        )
        return {"loss": loss, **metrics}

    def predict_step(self, state: TrainState, batch: Batch) -> Any:
        """The outputs for one batch, in evaluation mode."""
        view = self._view(state, variables_of(state), "predict")
        with noting(f"predict_function of {self.owner}"):
            return self.predict_function(view, batch)

    def _view(
        self, state: TrainState, variables: Variables, phase: str, part: Any = None
    ) -> ModelView:
        if phase == "train":
            key = step_key(state.rng, phase, jnp.asarray(state.step, jnp.int32))
        else:  # the state's key is that of the batch, and no step of training is to move it
            key = fold_name(state.rng, phase)
        key = key if part is None else jax.random.fold_in(key, part)
        hparams = {**self.hparams, **(state.hparams or {})}
        return ModelView(self.adapter, variables, key, train=phase == "train", hparams=hparams)

    def _loss(self, view: ModelView, batch: Batch, *, train: bool) -> tuple[Any, dict[str, Any]]:
        with noting(f"loss_function of {self.owner}"):
            result = self.loss_function(view, batch, train)
        loss, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        return _check_loss(loss, batch, self.owner), _check_names(metrics, self.owner)


def inputs_of(batch: Batch) -> Any:
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
    """The objective at the state's parameters, with its gradients."""
    if state.loss_scale is None:
        (_, found), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        return found._replace(sums=grads)
    scale = state.loss_scale.scale

    def scaled(params: Any) -> tuple[jax.Array, Part]:
        total, found = objective(params)
        return total * scale.astype(total.dtype), found

    (_, found), grads = jax.value_and_grad(scaled, has_aux=True)(state.params)
    return found._replace(sums=jax.tree.map(lambda g: g / scale.astype(g.dtype), grads))


def _mean_and_weight(loss: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The loss to minimise, and what it counts beside that of other examples."""
    if not isinstance(loss, tuple):
        return jnp.mean(loss), jnp.float32(num_examples(batch))
    total, count = loss
    weight = lax.stop_gradient(count).astype(total.dtype)
    return total / jnp.where(weight == 0, 1, weight), weight


def _check_loss(loss: Any, batch: Batch, owner: str) -> Any:
    """A loss as an array, or a pair of arrays."""
    is_pair = isinstance(loss, tuple) and len(loss) == 2
    parts: tuple[Any, ...] = loss if is_pair else (loss,)
    forms = ((),) if is_pair else ((), (num_examples(batch),))
    is_floating = _is_array(parts[0]) and jnp.issubdtype(parts[0].dtype, jnp.floating)
    if is_floating and all(_is_array(part) and part.shape in forms for part in parts):
        arrays = tuple(jnp.asarray(part) for part in parts)
        return arrays if is_pair else arrays[0]
    received = ", ".join(
        describe_leaf(part) if _is_array(part) else type(part).__name__ for part in parts
    )
    raise LossError(
        f"Received a loss of {received} from loss_function of {owner}, for {describe(batch)}; "
        "expected (loss, metrics) with a floating-point loss of shape [] or "
        f"[{num_examples(batch)}], one value per example, or a pair (total, count) of scalars. "
        "Write loss.mean() over the other axes, and return (loss, {...})."
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _check_names(metrics: Any, owner: str) -> dict[str, Any]:
    if not isinstance(metrics, Mapping):
        raise MetricsError(
            f"Received metrics of type {type(metrics).__name__} from loss_function of {owner}; "
            "expected "
            '(loss, metrics) with a dict of metrics, e.g. return loss, {"acc": logits.argmax(-1) '
            "== labels}."
        )
    reserved = [name for name in metrics if name in RESERVED_METRICS]
    if reserved:
        raise MetricsError(
            f"Received a metric named {reserved[0]!r} from loss_function of {owner}; expected "
            f"names other than {', '.join(RESERVED_METRICS)}, which boltax writes itself. Leave "
            "out the loss, or give it another name."
        )
    return dict(metrics)


def _after(first: Any, second: PyTree) -> PyTree:
    """The second, for what is computed of it once the first is there: on a CPU.

    Beside the update the norm would take a small MLP's step a seventh longer: XLA runs small
    operations that do not wait for each other on several threads, and passes the data between them.
    """
    if jax.default_backend() != "cpu":
        return second
    return lax.optimization_barrier((first, second))[1]
