"""The gradients of one batch, for a look at them."""

from typing import Any

import jax
import jax.numpy as jnp

from boltax._base._narrow import narrowed
from boltax._base._types import Batch, PyTree
from boltax._build._methods import overrides
from boltax._step._ema import evaluated
from boltax.errors import ConfigurationError
from boltax.models._view import ModelView


def model_view(trainer: Any, train: bool) -> ModelView:
    """What `TrainerModule.model_view` gives; see there."""
    trainer._made.check_complete("model_view")
    state = trainer.state.replace(step=jnp.asarray(trainer.state.step, jnp.int32))
    state = state if train else evaluated(state, trainer._made.root_key)
    return trainer._made.loss_steps.view(state, "train" if train else "eval")


def gradients(trainer: Any, batch: Batch) -> tuple[float, PyTree]:
    """What `TrainerModule.gradients` gives; see there."""
    if not overrides(trainer, "loss_function") or overrides(trainer, "create_functions"):
        name = type(trainer).__name__
        raise ConfigurationError(
            f"Received {name}.gradients(batch) for a trainer that writes its steps itself in "
            "create_functions; expected one with loss_function. Write jax.grad of your own loss."
        )
    made = trainer._made
    state = trainer.state.replace(step=jnp.asarray(trainer.state.step, jnp.int32))
    with jax.transfer_guard("allow"):
        on_device = made.placement.put_feed(narrowed(batch, "a batch"))
        loss, found = jax.jit(made.loss_steps.gradients)(state, on_device)
        return float(loss), jax.device_get(found)
