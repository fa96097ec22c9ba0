"""From a user's `loss_function` to the pure steps that are compiled. Everything here is traced.

A step sees the state and a batch and nothing else: its random keys are folded from the state's root
key and step, the model's collections come out of the state and go back into it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from boltax._keys import step_key
from boltax._state import TrainState, split_collections, variables_of
from boltax._trees import describe, describe_leaf, num_examples
from boltax._types import Batch, Variables
from boltax.errors import ConfigurationError, LossError, MetricsError, noting
from boltax.models._adapter import ModelAdapter
from boltax.models._view import ModelView
from boltax.optim._adapt import optax_promotion
from boltax.optim._regularization import l2_penalty

RESERVED_METRICS = ("loss", "l2_penalty", "grad_norm", "epoch", "step")
LossFunction = Callable[[ModelView, Batch, bool], Any]
Objective = Callable[[Any], tuple[jax.Array, tuple[dict[str, Any], Variables]]]


class LossSteps:
    """The pure steps of a model with a loss.

    Args:
        adapter: the model.
        loss_function: ``(model, batch, train) -> (loss, metrics)``.
        predict_function: ``(model, batch) -> outputs``.
        owner: the trainer's class name, for notes on exceptions.
        hparams: hyperparameters that are no traced numbers; those come from the state.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        loss_function: LossFunction,
        predict_function: Callable[[ModelView, Batch], Any],
        *,
        owner: str,
        hparams: Mapping[str, Any],
    ) -> None:
        self.adapter = adapter
        self.loss_function = loss_function
        self.predict_function = predict_function
        self.owner = owner
        self.hparams = hparams

    def run(self, model: ModelView, batch: Batch) -> None:
        """Runs the loss for its calls of the model, as initialisation does."""
        self._loss(model, batch, train=True)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """One optimizer update, by the gradients of the loss and of an L2 term where asked for."""
        objective = self._objective(state, batch)
        (total, (metrics, variables)), grads = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        state = state.apply_gradients(
            grads=grads,
            loss=total,
            value_fn=lambda params: objective(params)[0],
            **split_collections(variables),
        )
        with optax_promotion():
            norm = optax.tree.norm(grads)
        return state, {**metrics, "grad_norm": norm}

    def gradients(self, state: TrainState, batch: Batch) -> tuple[jax.Array, Any]:
        """The loss of a batch and the gradients as they come, before the optimizer has them."""
        objective = self._objective(state, batch)
        (total, _), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        return total, grads

    def _objective(self, state: TrainState, batch: Batch) -> Objective:
        def objective(params: Any) -> tuple[jax.Array, tuple[dict[str, Any], Variables]]:
            view = self._view(state, {**variables_of(state), "params": params}, "train")
            loss, metrics = self._loss(view, batch, train=True)
            total = jnp.mean(loss)
            if "l2_regularization" in (state.hparams or {}):
                penalty = l2_penalty(params, state.hparams["l2_regularization"])
                total, metrics = (
                    total + penalty.astype(total.dtype),
                    {**metrics, "l2_penalty": penalty},
                )
            return total, ({"loss": loss, **metrics}, view.variables)

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

    def _view(self, state: TrainState, variables: Variables, phase: str) -> ModelView:
        key = step_key(state.rng, phase, jnp.asarray(state.step, jnp.int32))
        hparams = {**self.hparams, **(state.hparams or {})}
        return ModelView(self.adapter, variables, key, train=phase == "train", hparams=hparams)

    def _loss(
        self, view: ModelView, batch: Batch, *, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
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


def _check_loss(loss: Any, batch: Batch, owner: str) -> jax.Array:
    is_array = isinstance(loss, jax.Array) or (hasattr(loss, "shape") and hasattr(loss, "dtype"))
    if (
        is_array
        and jnp.issubdtype(loss.dtype, jnp.floating)
        and loss.shape in ((), (num_examples(batch),))
    ):
        return jnp.asarray(loss)
    received = describe_leaf(loss) if is_array else type(loss).__name__
    raise LossError(
        f"Received a loss of {received} from loss_function of {owner}, for {describe(batch)}; "
        "expected (loss, metrics) with a floating-point loss of shape [] or "
        f"[{num_examples(batch)}], one value per example. "
        "Write loss.mean() over the other axes, and return (loss, {...})."
    )


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
