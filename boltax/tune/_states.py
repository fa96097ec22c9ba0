"""The training states of members: made anew, given other values, and moved about on the device.

States lie in groups. A group of one member is its state as in a single run; a group of more is one
state whose arrays have a first axis, the members. A *row* is the place of a member, counted over
all groups; the last group is filled up with copies that nobody looks at.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import core

from boltax._arguments import overrides
from boltax._initialise import call_model, init_variables
from boltax._setup import state_without_optimizer, traced_hparams
from boltax._steps import (
    compile_copy,
    compile_create,
    compile_init,
    compile_members,
    compile_per_member,
)
from boltax._types import PyTree, Variables
from boltax.optim._traced import TracedOptimizer
from boltax.tune._values import Varied

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


class MemberStates:
    """Makes the states of members, each function compiled once for all of them.

    Attributes:
        optimizer: that of all members.

    Args:
        trainer: whose model is initialised.
        varied: the hyperparameters that differ.
        optimizer: see there.
    """

    def __init__(
        self, trainer: "TrainerModule", varied: Varied, optimizer: TracedOptimizer
    ) -> None:
        self.optimizer = optimizer
        self._trainer, self._varied = trainer, varied
        is_own = overrides(trainer, "run_model_init")
        init = self._by_trainer if is_own else self._initialised
        self._traced_init = init
        self._variables = init if is_own else compile_init(init)
        self._create: Callable[[PyTree], Any] = compile_create(self._state)
        self._set_one = jax.jit(self.changed)
        self._set_each = compile_per_member(self.changed)

    def fresh(self, seed: int, values: Mapping[str, float]) -> Any:
        """The state of a member before its first step, as its single run has it."""
        complete = self._varied.complete(values, -1)
        with jax.transfer_guard("allow"):
            arrays = self._varied.arrays(complete)
            root, init_rng = jax.random.split(jax.random.key(seed))
            variables = core.unfreeze(self._variables(self._example(), init_rng, arrays))
            return self._create((variables, root, arrays))

    def form(self) -> Any:
        """The shapes and dtypes of such a state."""

        def make(example: Any, key: jax.Array, values: dict[str, jax.Array]) -> Any:
            root, init_rng = jax.random.split(key)
            variables = core.unfreeze(self._traced_init(example, init_rng, values))
            return self._state((variables, root, values))

        number = jax.ShapeDtypeStruct((), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.eval_shape(make, self._example(), key, dict.fromkeys(self._varied.names, number))

    def with_values(self, group: Any, values: Sequence[Mapping[str, float]], size: int) -> Any:
        """A group whose members have these hyperparameters, one mapping for each."""
        names = self._varied.names
        if not names:
            return group
        columns = {n: np.asarray([v[n] for v in values], np.float32) for n in names}
        if size == 1:
            return self._set_one(group, jax.device_put({n: c[0] for n, c in columns.items()}))
        return self._set_each(group, jax.device_put(columns))

    def changed(self, state: Any, values: Mapping[str, jax.Array]) -> Any:
        """The state of one member with other values; traced."""
        opt_state = self.optimizer.with_values(state.opt_state, values)
        return state.replace(opt_state=opt_state, hparams=self._varied.state_hparams(values))

    def _state(self, parts: tuple[Variables, jax.Array, Mapping[str, jax.Array]]) -> Any:
        variables, root, values = parts
        state = state_without_optimizer(self._trainer, variables, root)
        return state.replace(
            tx=self.optimizer.optimizer.tx,
            opt_state=self.optimizer.init(state.params, values),
            hparams=self._varied.state_hparams(values),
        )

    def _by_trainer(self, example: Any, key: jax.Array, _: Mapping[str, jax.Array]) -> Variables:
        return self._trainer.run_model_init(example, key)

    def _initialised(
        self, example: Any, key: jax.Array, values: Mapping[str, jax.Array]
    ) -> Variables:
        trainer = self._trainer
        run = trainer.loss_steps.run if self._uses_loss() else call_model
        own = {name: values[name] for name in self._varied.loss_names}
        traced = {**traced_hparams(trainer), **own}
        return init_variables(trainer.adapter, run, trainer.hparams, [], example, key, traced)

    def _uses_loss(self) -> bool:
        return overrides(self._trainer, "loss_function")

    def _example(self) -> Any:
        example = self._trainer.exmp_input
        is_inputs = not self._uses_loss() and not isinstance(example, list | tuple)
        return [example] if is_inputs else example


class Rows:
    """Moves rows between groups on the device."""

    def __init__(self) -> None:
        self._do = compile_members()
        self._copy = compile_copy()

    def grouped(self, trees: Sequence[PyTree], size: int) -> list[PyTree]:
        """Trees of one member each, in groups of `size`."""
        if size == 1:
            return list(trees)
        return self.rearranged([], 1, range(len(trees)), size, fresh=trees)

    def rearranged(
        self,
        groups: Sequence[PyTree],
        size: int,
        rows: Sequence[int],
        new_size: int,
        *,
        fresh: Sequence[PyTree] = (),
    ) -> list[PyTree]:
        """New groups of some of the rows, in another order or more than once.

        Args:
            groups: the groups as they are.
            size: their members.
            rows: which rows, those of `fresh` counted behind the others.
            new_size: members of the new groups.
            fresh: trees of one member each.
        """
        if size == new_size == 1:
            return self._picked([*groups, *fresh], rows)
        stacked = [self._do.stack(*groups)] if size == 1 and groups else list(groups)
        stacked += [self._do.stack(*fresh)] if fresh else []
        if new_size == 1:
            return [
                self._do.one(self._do.gather(tuple(stacked), _index([row])), _index(0))
                for row in rows
            ]
        filled = [*rows, *(rows[0],) * (-len(rows) % new_size)]
        parts = [filled[i : i + new_size] for i in range(0, len(filled), new_size)]
        return [self._do.gather(tuple(stacked), _index(part)) for part in parts]

    def row(self, groups: Sequence[PyTree], size: int, row: int) -> PyTree:
        """A copy of one row, as the tree of one member."""
        if size == 1:
            return self._copy(groups[row], None)
        return self._do.one(groups[row // size], _index(row % size))

    def copy(self, tree: PyTree) -> PyTree:
        """A copy of a group in memory of its own."""
        return self._copy(tree, None)

    def chosen(self, are_new: Sequence[bool], new: PyTree, old: PyTree, size: int) -> PyTree:
        """A group with the rows of `new` where it says so; takes the memory of `old`."""
        condition = np.asarray(are_new[0] if size == 1 else are_new, np.bool_)
        return self._do.choose(jax.device_put(condition), new, old)

    def _picked(self, trees: Sequence[PyTree], rows: Sequence[int]) -> list[PyTree]:
        used: set[int] = set()
        picked: list[PyTree] = []
        for row in rows:  # a step takes the memory of its state, so no two rows may share it
            picked.append(self._copy(trees[row], None) if row in used else trees[row])
            used.add(row)
        return picked


def _index(rows: int | Sequence[int]) -> jax.Array:
    return jax.device_put(np.asarray(rows, np.int32))
