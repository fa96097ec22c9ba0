"""The training state as it is before the first step, and the optimizer that it begins with."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._options import LoopOptions
from boltax._base._types import Variables
from boltax._build._methods import overrides
from boltax._step._ema import first_ema
from boltax._step._loss_scale import first_loss_scale
from boltax._step._state import TrainState, is_traced_hyperparameter, split_collections
from boltax._step._steps import compile_create
from boltax.checkpoint._constructor_call import lacks_parts
from boltax.errors import OptimizerError
from boltax.models._adapter import ModelAdapter
from boltax.optim._build import Optimizer, build
from boltax.optim._plateau import first_evaluations
from boltax.parallel._placement import ONE_DEVICE, Placement


def traced_hparams(
    hparams: Mapping[str, Any], placement: Placement = ONE_DEVICE
) -> dict[str, jax.Array]:
    """The free hyperparameters that live in the state, as arrays."""
    numbers = {k: v for k, v in hparams.items() if is_traced_hyperparameter(v)}
    return {name: _number(value, placement) for name, value in numbers.items()}


def state_without_optimizer(
    adapter: ModelAdapter,
    hparams: Mapping[str, Any],
    variables: Variables,
    rng: jax.Array,
    placement: Placement = ONE_DEVICE,
) -> TrainState:
    """The state before `init_optimizer`, as in the guide.

    Args:
        adapter: the model.
        hparams: the free hyperparameters.
        variables: of the model, by collection.
        rng: root key of the run.
        placement: where the variables lie.
    """
    nothing: Any = None
    return TrainState(
        step=placement.put(np.int32(0)),
        apply_fn=adapter.apply_fn,
        params=variables["params"],
        tx=nothing,
        opt_state=nothing,
        rng=rng if placement.is_one else placement.put(rng),
        hparams=traced_hparams(hparams, placement) or None,
        **split_collections(variables),
    )


def root_key_of(state: Any) -> Any:
    """The root random key of a run in memory of its own; None for a state that has none.

    A user's own steps may put another one into the state, and evaluation draws from the first.
    """
    rng = getattr(state, "rng", None)
    return None if rng is None else jnp.array(rng, copy=True)


def build_optimizer(hparams: Any, total_steps: int | None, trainer_class: type) -> Optimizer:
    """The optimizer of `optimizer_hparams`.

    Args:
        hparams: these.
        total_steps: of the training, for the schedule; None when nobody knows.
        trainer_class: whose loss it minimises.

    Raises:
        OptimizerError: when it cannot be built, or asks for what the trainer's own steps lack.
    """
    if lacks_parts(hparams):
        raise OptimizerError(
            f"Received optimizer_hparams={hparams!r} from a stored run, which "
            "could not hold all of it; expected an optimizer to train with. Write "
            "load_from_checkpoint(folder, optimizer_hparams=...)."
        )
    optimizer = build(hparams, total_steps)
    if optimizer.l2_regularization and overrides(trainer_class, "create_functions"):
        raise OptimizerError(
            f"Received l2_regularization={optimizer.l2_regularization} for "
            f"{trainer_class.__name__}, whose create_functions computes the loss itself; expected "
            "it there. Leave it out of optimizer_hparams and add "
            "boltax.optim.l2_penalty(params, coefficient) to the loss."
        )
    return optimizer


def state_with_optimizer(
    state: Any,
    optimizer: Optimizer,
    hparams: Mapping[str, Any],
    loop: LoopOptions,
    placement: Placement = ONE_DEVICE,
) -> Any:
    """A fresh state at step 0, made in one compiled call; the state that it is made of is donated.

    Args:
        state: the state before, for its variables.
        optimizer: what trains it.
        hparams: the free hyperparameters.
        loop: options that add to the state.
        placement: where it lies.
    """
    traced = traced_hparams(hparams, placement)
    if optimizer.l2_regularization:
        traced["l2_regularization"] = _number(optimizer.l2_regularization, placement)

    def create(state: Any) -> Any:
        return state.replace(
            step=jnp.zeros((), jnp.int32),
            tx=optimizer.tx,
            opt_state=optimizer.tx.init(state.params),
            hparams=traced or None,
            evaluations=first_evaluations(optimizer.metrics),
            **fields_of_options(loop, state),
        )

    return compile_create(create, placement)(state)


def fields_of_options(loop: LoopOptions, state: Any) -> dict[str, Any]:
    """What options add to a fresh state: an average of its parameters, a scale of the loss."""
    return {
        "ema": None if loop.ema is None else first_ema(state, loop.ema),
        "loss_scale": first_loss_scale() if loop.precision == "fp16" else None,
    }


def _number(value: Any, placement: Placement) -> jax.Array:
    """A number on the device: functions of `jax.numpy` would compile a program for it."""
    return placement.put(np.asarray(jax.device_get(value), np.float32))
