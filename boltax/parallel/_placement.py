"""`Placement`: the one answer to where everything of a run lies. One device is the smallest.

Batches are divided along the data axes of the mesh, the state as `Rules` say, and metrics, counts
and random keys are whole on each device. Compiled programs are told so for all that goes in and
comes out. What is not divided evenly goes in whole and is divided within the program, where XLA
fills it up and leaves that out of every sum: exact for any model.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, final

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from boltax._base._chunks import Made, Rows
from boltax._base._trees import common_size, describe
from boltax._base._types import Batch, Feed, PyTree, Variables
from boltax.errors import ConfigurationError, DataError
from boltax.parallel._arrays import put_by_all, to_host
from boltax.parallel._devices import first_device, is_on_cpu
from boltax.parallel._group import ALONE, Group, group
from boltax.parallel._jitted import Jitted, Shardings
from boltax.parallel._mesh import mesh_of
from boltax.parallel._parallel import Parallel
from boltax.parallel._processes import check_joined, join
from boltax.parallel._rules import AxisNames, Rules, specs_of_state


@final
class Placement:
    """Where the arrays of a run lie.

    Attributes:
        parallel: what the user asked for; None for one device.
        mesh: the devices; None for the one on which JAX puts what nobody places.
        parts: into how many parts a batch is divided.
        group: the processes whose devices these are.

    Args:
        parallel: see there.
        group: see there.
    """

    def __init__(self, parallel: Parallel | None = None, group: Group = ALONE) -> None:
        self.parallel, self.group = parallel, group
        self.mesh: Any = None if parallel is None else mesh_of(parallel)
        self._axes = () if parallel is None else parallel.data_axes
        sizes: Mapping[str, int] = {} if self.mesh is None else dict(self.mesh.shape)
        self.parts = math.prod(sizes[axis] for axis in self._axes)
        self._rules = None if parallel is None else Rules(parallel, sizes)
        self._numbers: dict[int, Any] = {}

    @property
    def is_one(self) -> bool:
        """Whether all lies on one device, where JAX puts it."""
        return self.mesh is None

    @property
    def num_devices(self) -> int:
        """The devices that work on a step."""
        return 1 if self.mesh is None else int(self.mesh.size)

    @property
    def known_devices(self) -> int:
        """The devices as a checkpoint counts them: of a run on one, those that there are."""
        return jax.device_count() if self.mesh is None else self.num_devices

    @property
    def device(self) -> Any:
        """One of the devices, for what is the same of all: kind, memory, speed."""
        return first_device() if self.mesh is None else self.mesh.local_devices[0]

    @property
    def is_host_enough(self) -> bool:
        """Whether programs take NumPy arrays as they are: of a CPU, the host's memory is its."""
        return self.mesh is None and is_on_cpu()

    def recorded(self) -> dict[str, Any] | None:
        """What a checkpoint holds of the placement; None for one device."""
        if self.parallel is None:
            return None
        sizes = {str(name): int(size) for name, size in self.mesh.shape.items()}
        return {**self.parallel.recorded(), "mesh": sizes, "processes": self.group.count}

    # Arrays are put where they belong.

    def put(self, tree: PyTree) -> PyTree:
        """Arrays that are whole on each device: metrics, counts, keys, a resident data set."""
        return jax.device_put(tree) if self.mesh is None else self._put(tree, self.whole)

    def put_feed(self, feed: Feed, *, is_stacked: bool = False) -> Feed:
        """A batch, or a stack of batches ``[steps, batch, ...]``, divided by its examples."""
        if self.mesh is None:
            return jax.device_put(feed)
        return self._put(feed, self.of_feed(feed, is_stacked=is_stacked))

    def to_host(self, tree: PyTree) -> PyTree:
        """Whole NumPy arrays, wherever the parts of these lie; asked for by all processes."""
        return jax.device_get(tree) if self.group.is_alone else to_host(tree)

    def number(self, value: int) -> Any:
        """A count as int32, brought to the device once; there are a few hundred at most."""
        if value not in self._numbers:
            self._numbers[value] = self.put(np.int32(value))
        return self._numbers[value]

    def divided(self, batch: Batch) -> Batch:
        """A batch within a program, divided by its examples, whatever their number; traced."""
        if self.mesh is None or not self._axes or common_size(batch) is None:
            return batch

        def divide(leaf: Any) -> Any:
            if not np.ndim(leaf):
                return leaf
            return jax.lax.with_sharding_constraint(leaf, self._sharding(PartitionSpec(self._axes)))

        return jax.tree.map(divide, batch)

    # Shardings of trees; None for one device.

    def of_feed(self, feed: Feed, *, is_stacked: bool = False) -> Any:
        """Those of what the batches of a dispatch are taken from."""
        if isinstance(feed, Rows | Made) or not self._axes:
            return jax.tree.map(lambda _: self.whole, feed)
        axis = int(is_stacked)

        def one(leaf: Any) -> Any:
            shape = np.shape(leaf)
            if len(shape) <= axis or not shape[axis] or shape[axis] % self.parts:
                return self.whole
            return self._sharding(PartitionSpec(*(None,) * axis, self._axes))

        return jax.tree.map(one, feed)

    def of_variables(self, variables: Variables, named: AxisNames) -> Any:
        """Those of a model's variables; see `Rules.of_variables`."""
        assert self._rules is not None
        specs = self._rules.of_variables(variables, named)
        return self._tree(variables, specs)

    def settled(self, variables: Variables, named: AxisNames) -> Variables:
        """A model's variables where they belong: arrays, or shapes that say where that is."""
        if self.mesh is None:
            return variables

        def one(leaf: Any, sharding: NamedSharding) -> Any:
            if isinstance(leaf, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            return self._put(leaf, sharding)

        return jax.tree.map(one, variables, self.of_variables(variables, named))

    def of_state(self, state: PyTree, variables: Variables) -> Any:
        """Those of a state, by those of the variables that are in it already.

        Args:
            state: arrays or shapes.
            variables: arrays, or shapes with shardings.
        """
        assert self._rules is not None
        specs = [self._held(leaf).spec for leaf in jax.tree.leaves(variables)]
        return self._tree(state, specs_of_state(state, variables, specs, self._rules))

    def held(self, tree: PyTree) -> Any:
        """Those that arrays have; what is not on the mesh is to be whole on each device."""
        return jax.tree.map(self._held, tree)

    @functools.cached_property
    def whole(self) -> NamedSharding:
        """That of arrays which each device has the whole of."""
        return NamedSharding(self.mesh, PartitionSpec())

    # Functions are compiled.

    def dividing(self, step: Callable[[Any, Batch], Any]) -> Callable[[Any, Batch], Any]:
        """A step ``(state, batch) -> ...`` that begins by dividing its batch."""
        if self.mesh is None:
            return step

        @functools.wraps(step)
        def divided_step(state: Any, batch: Batch) -> Any:
            return step(state, self.divided(batch))

        return divided_step

    def jit(
        self,
        function: Callable[..., Any],
        shardings: Shardings,
        donate: tuple[int, ...] = (),
    ) -> Any:
        """A function compiled for this placement, as by `jax.jit`.

        Args:
            function: a pure function.
            shardings: of what goes in and comes out; only a mesh asks for them.
            donate: the arguments whose memory is taken.
        """
        if self.mesh is None:
            return jax.jit(function, donate_argnums=donate)
        return Jitted(function, shardings, donate)

    def jit_whole(self, function: Callable[..., Any]) -> Any:
        """A function compiled for this placement, whose results are whole on each device."""
        return (
            jax.jit(function) if self.mesh is None else jax.jit(function, out_shardings=self.whole)
        )

    def forms(self, args: PyTree) -> PyTree:
        """The shapes and dtypes of arguments, and where they lie, if that is on the mesh."""
        if self.mesh is None:
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._held(leaf)),
            args,
        )

    # What is asked before the first compilation.

    def check_batch(self, batch: Batch, microbatches: int = 1) -> None:
        """Refuses batches of training that the devices cannot share evenly.

        A last batch with fewer examples is another matter: that is divided as well as it can be.

        Args:
            batch: one batch, arrays or their shapes.
            microbatches: into how many parts a step divides it, one after the other.

        Raises:
            DataError: when it has no examples to be divided by.
            ConfigurationError: when they do not divide.
        """
        if self.parts == 1:
            return
        size, unit = common_size(batch), self.parts * microbatches
        if size is None:
            raise DataError(
                f"Received a batch with {describe(batch)} for {self.parts} devices; expected "
                "arrays that agree on their first axis, the examples, by which batches are "
                "divided. Write a mesh without the axis 'data', or leave out parallel."
            )
        if size % unit:
            lower = size - size % unit
            near = " or ".join(str(each) for each in (lower, lower + unit) if each)
            parts = f" times {microbatches} microbatches" if microbatches > 1 else ""
            raise ConfigurationError(
                f"Received batches of {size} examples for {self.parts} parts along "
                f"{', '.join(self._axes)}{parts}; expected a number that {unit} divides, since "
                f"each device works on as many. Write batch_size={near}."
            )

    def check_divided(self) -> None:
        """Refuses meshes on which the rows that a process reads do not lie on its own devices.

        Raises:
            ConfigurationError: for such a mesh.
        """
        spec = PartitionSpec(self._axes)
        places = self._sharding(spec).devices_indices_map((self.parts,))
        each: list[set[int]] = [set() for _ in range(self.group.count)]
        for device, (rows,) in places.items():
            each[device.process_index] |= {*range(*rows.indices(self.parts))}
        size = self.parts // self.group.count
        if any(rows != {*range(i * size, (i + 1) * size)} for i, rows in enumerate(each)):
            raise ConfigurationError(
                f"Received Divided(...) for {dict(self.mesh.shape)}, on which processes share rows "
                "of a batch, or have them in another order; expected the data axis first in the "
                "mesh, and all devices along the others within one process. Give whole batches, "
                "without Divided."
            )

    def _put(self, tree: PyTree, shardings: PyTree) -> PyTree:
        put = jax.device_put if self.group.is_alone else put_by_all
        return put(tree, shardings)

    def _tree(self, like: PyTree, specs: list[PartitionSpec]) -> Any:
        structure = jax.tree.structure(like)
        return structure.unflatten([self._sharding(spec) for spec in specs])

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)

    def _held(self, leaf: Any) -> NamedSharding:
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh == self.mesh:
            return sharding
        return self.whole


ONE_DEVICE = Placement()
"""The placement of a run on one device."""


def placement_of(parallel: Parallel | None) -> Placement:
    """The placement of a run.

    Raises:
        ConfigurationError: in a job of several processes, for one device, or for devices among
            which a process has none.
    """
    if parallel is not None:
        join()
    check_joined()
    processes = group()
    if parallel is None and processes.is_alone:
        return ONE_DEVICE
    if parallel is None:
        raise ConfigurationError(
            f"Received parallel=None in a job of {processes.count} processes: each would train "
            "alone, in the same folder. Expected devices over which the run is spread. Write "
            'parallel="data", or "fsdp".'
        )
    placement = Placement(parallel, processes)
    used = {device.process_index for device in placement.mesh.devices.flat}
    if len(used) < processes.count:
        idle = sorted({*range(processes.count)} - used)
        raise ConfigurationError(
            f"Received parallel={parallel!r}, whose {placement.num_devices} devices leave out "
            f"those of process {idle[0]} of {processes.count}; expected devices of every process. "
            'Write mesh={"data": -1}, or start fewer processes.'
        )
    return placement
