"""The training state: everything that an optimizer step changes, as one frozen pytree."""

from typing import Any

import jax
import optax
from flax import struct
from flax.training import train_state

from boltax._base._types import PyTree, State, Variables
from boltax._step._ema import restarted
from boltax.optim._adapt import robust
from boltax.optim._by_path import trained_in
from boltax.optim._named import params_to_update
from boltax.optim._plateau import Evaluations


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
        evaluations: what the newest validation gave of the metrics that the optimizer asks for (a
            schedule may follow them); None when it asks for none.
        ema: with ``LoopOptions(ema=...)`` the moving average of parameters and BatchNorm
            statistics, which is evaluated and saved; else None.
        loss_scale: with ``LoopOptions(precision="fp16")`` the scale of the loss; else None.
    """

    batch_stats: PyTree = None
    rng: PyTree = None
    collections: PyTree = None
    hparams: PyTree = struct.field(default=None)
    evaluations: PyTree = None
    ema: PyTree = None
    loss_scale: PyTree = None

    def apply_gradients(
        self, *, grads: PyTree, loss: PyTree = None, value_fn: Any = None, **changes: Any
    ) -> "TrainState":
        """The state after one optimizer update.

        An optimizer also learns the step and the newest `evaluations`, as the extra arguments of
        these names.

        Args:
            grads: gradients with the structure of `params`; with several optimizers by name, also
                those of some parts: ``{"generator": ...}``. The other parts, and the states of
                their optimizers, stay as they are.
            loss: the scalar loss of this step, for optimizers that want it (learned optimizers,
                Polyak step sizes, reduction on a plateau); it reaches them as optax's extra
                arguments `value` and `loss`. For several parts also a dict, one for each.
            value_fn: ``params -> loss`` on this step's batch, for optimizers that search along a
                line; its argument has the structure of `grads`.
            **changes: other fields to replace, e.g. ``batch_stats=..., rng=...``.

        Returns:
            A new state whose `step` is one higher; with gradients of some parts `step` is the same,
            because a step of training may update several parts one after the other. With several
            optimizers a trainer counts one step for each call of its ``train_step``.

        Raises:
            OptimizerError: when the optimizer needs something that is not given.
            UnknownNameError: for gradients of a part that there is not.
        """
        updates, opt_state, part = _update(self, grads, loss, value_fn)
        params = self.params if part is None else part
        new: PyTree = optax.apply_updates(params, updates)
        if part is not None:
            new = {**self.params, **new}
        step = self.step + 1 if part is None else self.step
        return self.replace(**{"step": step, "params": new, "opt_state": opt_state, **changes})


def updates_of(
    state: TrainState, grads: PyTree, *, loss: PyTree = None, value_fn: Any = None
) -> PyTree:
    """What the optimizer of a state would add to the parameters; nothing is changed.

    Args:
        state: the state.
        grads: see `TrainState.apply_gradients`, and so the others.
        loss: the loss of the step.
        value_fn: ``params -> loss``.
    """
    return _update(state, grads, loss, value_fn)[0]


def _update(
    state: TrainState, grads: PyTree, loss: PyTree, value_fn: Any
) -> tuple[PyTree, PyTree, PyTree]:
    """Updates, the optimizer's next state, and the parameters they are for; None for all."""
    extra = {"grad": grads, "value": loss, "loss": loss, "value_fn": value_fn}
    extra |= {"step": state.step, "evaluations": state.evaluations}
    extra = {name: value for name, value in extra.items() if value is not None}
    part = params_to_update(grads, state.params, state.opt_state)
    params = state.params if part is None else part
    updates, opt_state = robust(state.tx).update(grads, state.opt_state, params, **extra)
    return updates, opt_state, part


def variables_of(state: State) -> Variables:
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


def evaluations_of(state: State) -> Evaluations | None:
    """What the optimizer of a state knows of the validations; None where it asks for nothing."""
    return getattr(state, "evaluations", None)


def params_of(state: State) -> PyTree:
    """A state's parameters; of a state that has none by that name, all there is."""
    return getattr(state, "params", state)


def trained_params_of(state: State) -> PyTree:
    """`params_of`, without those that the state's optimizer has frozen."""
    return trained_in(getattr(state, "tx", None), params_of(state))


def split_collections(variables: Variables) -> Variables:
    """The fields of a `TrainState` that hold a model's collections beside its parameters."""
    others = {
        name: value for name, value in variables.items() if name not in ("params", "batch_stats")
    }
    return {"batch_stats": variables.get("batch_stats"), "collections": others or None}


def with_variables(state: State, variables: Variables) -> PyTree:
    """The state with other variables of its model; an average begins anew with them."""
    new = state.replace(params=variables["params"], **split_collections(variables))
    return restarted(new)


def is_traced_hyperparameter(value: object) -> bool:
    """Whether a hyperparameter is a number that may vary without changing the program."""
    return isinstance(value, float) or (isinstance(value, jax.Array) and value.ndim == 0)
