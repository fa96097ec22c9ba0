"""The training state: everything that an optimizer step changes, as one frozen pytree."""

from typing import Any

import jax
import optax
from flax import struct
from flax.training import train_state

from boltax._ema import restarted
from boltax._types import Variables


class TrainState(train_state.TrainState):
    """Flax's train state, with all of a model's variables, a random key and hyperparameters.

    Extend it as any Flax struct. A state handed to a compiled step is donated to it: keep a copy
    with `jax.device_get(state)` if you need the old values.

    Attributes:
        step: completed optimizer updates, an int32 scalar.
        apply_fn: the model's apply function, ``apply_fn({"params": ...}, inputs, ...)``.
        params: nested dict of arrays.
        tx: the optimizer.
        opt_state: its state.
        batch_stats: BatchNorm statistics, or None when the model has none.
        rng: root random key; the default steps fold the step into it and leave it as it is.
        collections: the model's other mutable collections by name, or None when it has none.
        hparams: numbers given to the trainer as extra hyperparameters, traced so that a sweep may
            vary them.
        ema: with ``LoopOptions(ema=...)`` the moving average of parameters and BatchNorm
            statistics, which is evaluated and saved; else None.
        loss_scale: with ``LoopOptions(precision="fp16")`` the scale of the loss; else None.
    """

    batch_stats: Any = None
    rng: Any = None
    collections: Any = None
    hparams: Any = struct.field(default=None)
    ema: Any = None
    loss_scale: Any = None

    def apply_gradients(
        self, *, grads: Any, loss: Any = None, value_fn: Any = None, **changes: Any
    ) -> "TrainState":
        """The state after one optimizer update.

        Args:
            grads: gradients with the structure of `params`.
            loss: the scalar loss of this step, for optimizers that want it (learned optimizers,
                Polyak step sizes, reduction on a plateau); it reaches them as optax's extra
                arguments `value` and `loss`.
            value_fn: ``params -> loss`` on this step's batch, for optimizers that search along a
                line.
            **changes: other fields to replace, e.g. ``batch_stats=..., rng=...``.

        Returns:
            A new state whose `step` is one higher.
        """
        tx = optax.with_extra_args_support(self.tx)
        extra = {"grad": grads, "value": loss, "loss": loss, "value_fn": value_fn}
        extra = {name: value for name, value in extra.items() if value is not None}
        updates, opt_state = tx.update(grads, self.opt_state, self.params, **extra)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **changes)


def variables_of(state: Any) -> Variables:
    """All of the model's variables in a state, by collection.

    The state may be any Flax train state, with or without boltax's fields.
    """
    batch_stats = getattr(state, "batch_stats", None)
    others = getattr(state, "collections", None) or {}
    return {
        "params": state.params,
        **({} if batch_stats is None else {"batch_stats": batch_stats}),
        **others,
    }


def params_of(state: Any) -> Any:
    """A state's parameters; of a state that has none by that name, all there is."""
    return getattr(state, "params", state)


def split_collections(variables: Variables) -> dict[str, Any]:
    """The fields of a `TrainState` that hold a model's collections beside its parameters."""
    others = {
        name: value for name, value in variables.items() if name not in ("params", "batch_stats")
    }
    return {"batch_stats": variables.get("batch_stats"), "collections": others or None}


def with_variables(state: Any, variables: Variables) -> Any:
    """The state with other variables of its model; an average begins anew with them."""
    new = state.replace(params=variables["params"], **split_collections(variables))
    return restarted(new)


def is_traced_hyperparameter(value: object) -> bool:
    """Whether a hyperparameter is a number that may vary without changing the program."""
    return isinstance(value, float) or (isinstance(value, jax.Array) and value.ndim == 0)
