"""The training states of members: made anew, and given other values."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import core

from boltax._base._trees import path_names
from boltax._base._types import PyTree, Variables
from boltax._build._first_state import fields_of_options, state_without_optimizer, traced_hparams
from boltax._build._methods import overrides
from boltax._step._initialise import call_model, first_keys, init_variables, root_key
from boltax._step._state import variables_of
from boltax._step._steps import compile_create, compile_init, compile_per_member
from boltax.optim._plateau import first_evaluations
from boltax.optim._traced import TracedOptimizer
from boltax.parallel._placement import ONE_DEVICE, Placement
from boltax.parallel._places import Place, keeping, put_whole
from boltax.trainer import TrainerModule
from boltax.tune._values import Varied


def loaded_variables(trainer: TrainerModule) -> dict[tuple[str, ...], Any]:
    """The variables that `load_weights` has set in a trainer, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(variables_of(trainer.state))
    places = ((path_names(path), leaf) for path, leaf in leaves)
    return {path: jax.device_get(leaf) for path, leaf in places if path in trainer._made.loaded}


class MemberStates:
    """Makes the states of members, each function compiled once for all of them.

    Attributes:
        optimizer: that of all members.

    Args:
        trainer: whose model is initialised.
        varied: the hyperparameters that differ.
        optimizer: see there.
        placement: where states are made.
        loaded: variables with which all members begin, by place.
    """

    def __init__(
        self,
        trainer: TrainerModule,
        varied: Varied,
        optimizer: TracedOptimizer,
        placement: Placement = ONE_DEVICE,
        loaded: Mapping[tuple[str, ...], Any] = MappingProxyType({}),
    ) -> None:
        self.optimizer, self._loaded = optimizer, loaded
        self._trainer, self._varied, self._placement = trainer, varied, placement
        is_own = overrides(trainer, "run_model_init")
        init = self._by_trainer if is_own else self._initialised
        self._traced_init = init
        self._variables = init if is_own else self._compiled_init()
        self._create: Callable[[PyTree], Any] = (
            compile_create(self._state)
            if placement.is_one
            else placement.jit(self._state, self._created, donate=(0,))
        )
        self._set_one = keeping(self.changed, lambda state, _: state)
        self._set_each = compile_per_member(self.changed)
        self._roots = compile_per_member(root_key)

    def with_optimizer(self, optimizer: TracedOptimizer) -> "MemberStates":
        """The same with another optimizer."""
        return MemberStates(self._trainer, self._varied, optimizer, self._placement, self._loaded)

    def fresh(self, seed: int, values: Mapping[str, float]) -> Any:
        """The state of a member before its first step, as its single run has it."""
        complete = self._varied.complete(values, -1)
        with jax.transfer_guard("allow"):
            arrays = self._varied.arrays(complete)
            root, init_rng = first_keys(seed)
            variables = core.unfreeze(self._variables(self._example(), init_rng, arrays))
            if self._loaded:
                variables = jax.tree_util.tree_map_with_path(
                    lambda path, leaf: self._loaded.get(path_names(path), leaf), variables
                )
            variables = self._placement.settled(variables, self._axis_names)
            return self._create((variables, root, arrays))

    def root_keys(self, seeds: Sequence[int], size: int, place: Place) -> Any:
        """The root random keys of a group of members, as `fresh` gives them to their states."""
        with jax.transfer_guard("allow"):
            keys = self._roots(np.asarray(seeds, np.int64))
            return put_whole(keys if size > 1 else keys[0], place)

    def form(self) -> Any:
        """The shapes and dtypes of such a state, and how its arrays are divided."""

        def make(example: Any, key: jax.Array, values: dict[str, jax.Array]) -> Any:
            root, init_rng = jax.random.split(key)
            variables = core.unfreeze(self._traced_init(example, init_rng, values))
            return self._state((variables, root, values))

        form = jax.eval_shape(make, self._example(), *self._key_and_values())
        if self._placement.is_one:
            return form
        variables = self._placement.settled(variables_of(form), self._axis_names)
        places = self._placement.of_state(form, variables)
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), form, places
        )

    def with_values(self, group: Any, values: Sequence[Mapping[str, float]], size: int) -> Any:
        """A group whose members have these hyperparameters, one mapping for each."""
        names = self._varied.names
        if not names:
            return group
        columns = {n: np.asarray([v[n] for v in values], np.float32) for n in names}
        with jax.transfer_guard("allow"):
            if size == 1:
                return self._set_one(group, {n: c[0] for n, c in columns.items()})
            return self._set_each(group, columns)

    def changed(self, state: Any, values: Mapping[str, jax.Array]) -> Any:
        """The state of one member with other values; traced."""
        opt_state = self.optimizer.with_values(state.opt_state, values)
        return state.replace(opt_state=opt_state, hparams=self._varied.state_hparams(values))

    def _compiled_init(self) -> Callable[..., Variables]:
        """Makes variables, each device what it holds of them."""
        if self._placement.is_one:
            return compile_init(self._traced_init)
        shapes = jax.eval_shape(self._traced_init, self._example(), *self._key_and_values())
        places = self._placement.of_variables(shapes, self._axis_names)
        return compile_init(self._traced_init, out_shardings=places)

    def _created(self, parts: tuple[Variables, jax.Array, Mapping[str, jax.Array]]) -> Any:
        """Where lies what a state is made of, and where the state."""
        form = jax.eval_shape(self._state, parts)
        return (self._placement.held(parts),), self._placement.of_state(form, parts[0])

    def _key_and_values(self) -> tuple[Any, dict[str, Any]]:
        """The shapes of a random key, and of the hyperparameters that differ."""
        number = jax.ShapeDtypeStruct((), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return key, dict.fromkeys(self._varied.names, number)

    @property
    def _axis_names(self) -> Any:
        return self._trainer._made.adapter.axis_names

    def _state(self, parts: tuple[Variables, jax.Array, Mapping[str, jax.Array]]) -> Any:
        variables, root, values = parts
        state = state_without_optimizer(
            self._trainer._made.adapter, self._trainer.hparams, variables, root
        )
        return state.replace(
            tx=self.optimizer.optimizer.tx,
            opt_state=self.optimizer.init(state.params, values),
            hparams=self._varied.state_hparams(values),
            evaluations=first_evaluations(self.optimizer.optimizer.metrics),
            **fields_of_options(self._trainer.loop, state),
        )

    def _by_trainer(self, example: Any, key: jax.Array, _: Mapping[str, jax.Array]) -> Variables:
        return self._trainer.run_model_init(example, key)

    def _initialised(
        self, example: Any, key: jax.Array, values: Mapping[str, jax.Array]
    ) -> Variables:
        trainer = self._trainer
        run = trainer._made.loss_steps.run if self._uses_loss() else call_model
        own = {name: values[name] for name in self._varied.loss_names}
        traced = {**traced_hparams(trainer.hparams), **own}
        return init_variables(trainer._made.adapter, run, trainer.hparams, [], example, key, traced)

    def _uses_loss(self) -> bool:
        return overrides(self._trainer, "loss_function")

    def _example(self) -> Any:
        example = self._trainer.exmp_input
        is_inputs = not self._uses_loss() and not isinstance(example, list | tuple)
        return [example] if is_inputs else example
