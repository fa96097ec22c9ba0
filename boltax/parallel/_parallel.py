"""`Parallel`: how a run lies on several devices, as the user says it. Plain data, checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from boltax._base._options import Options
from boltax.errors import ConfigurationError, unknown_name

Axis: TypeAlias = str | tuple[str, ...] | None
"""What one dimension of an array is divided by: an axis of the mesh, several, or none."""
Axes: TypeAlias = Sequence[Axis]
"""One for each dimension, from the first; those behind them are not divided."""

DATA = "data"
"""The axis of a mesh by which batches are divided."""
MEMBERS = "members"
"""The axis that is kept for the members of a population."""
NAMES = ("data", "fsdp")


@dataclass(frozen=True, kw_only=True)
class Parallel(Options):
    """How a run lies on several devices.

    Devices stand in a mesh, a table whose axes have names. Batches are divided along the axis
    ``"data"``, and along that of `fsdp`. Each array of the state lies as the first of these says
    that has a word for it: `rules`; the names that the model itself gives its axes (Flax's
    ``with_partitioning`` and ``with_logical_partitioning``); `fsdp`; else each device has all of
    it. What the optimizer keeps for a parameter lies as the parameter does.

    The batch size stays that of the whole step, and the numbers those of one device, up to
    rounding.

    In a population's mesh the axis ``"members"`` divides the members, each of which lies on the
    rest of the mesh as a single run would; see `boltax.tune.Population`.

    Attributes:
        mesh: the axes, name to size; one of them may be -1, the devices that are left.
        fsdp: the axis along which large arrays are divided, with their averages and optimizer
            state; None for nowhere. Each is divided in its longest dimension that can be.
        rules: pairs of a regular expression, which is searched in the path of a variable
            (``"encoder/Dense_0/kernel"``, and ``"batch_stats/..."`` for other collections), and of
            one mesh axis, a tuple of them, or None for each of its dimensions. The first that is
            found counts.
        logical_axes: for models whose axes have names of their own: name to mesh axis, or None.
        min_shard_bytes: arrays with fewer bytes are not divided by `fsdp`.
        devices: so many of the devices, or these; None for all.

    Raises:
        ConfigurationError: for what cannot be, whatever the model.

    Example:
        >>> Parallel(mesh={"data": -1}, fsdp="data").fsdp
        'data'
    """

    mesh: Mapping[str, int] = field(default_factory=lambda: {DATA: -1})
    fsdp: str | None = None
    rules: Sequence[tuple[str, Axes]] = ()
    logical_axes: Mapping[str, Axis] | None = None
    min_shard_bytes: int = 2**20
    devices: Any = None

    def __post_init__(self) -> None:
        _check_mesh(self.mesh)
        if self.fsdp is not None:
            self._check_axis(self.fsdp, "Parallel(fsdp=...)")
        for rule in self.rules:
            self._check_rule(rule)
        for name, axis in (self.logical_axes or {}).items():
            self._check_axis(axis, f"Parallel(logical_axes={{{name!r}: ...}})")
        size: Any = self.min_shard_bytes
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ConfigurationError(
                f"Received Parallel(min_shard_bytes={size!r}); expected a number of bytes from 0. "
                "Write min_shard_bytes=2**20."
            )

    @property
    def data_axes(self) -> tuple[str, ...]:
        """The axes of the mesh by which batches are divided."""
        return tuple(name for name in self.mesh if name in (DATA, self.fsdp))

    def recorded(self) -> dict[str, Any]:
        """What a run's folder holds of it."""
        devices: Any = self.devices
        return {
            "mesh": dict(self.mesh),
            "fsdp": self.fsdp,
            "rules": [[pattern, [*axes]] for pattern, axes in self.rules],
            "logical_axes": None if self.logical_axes is None else dict(self.logical_axes),
            "min_shard_bytes": self.min_shard_bytes,
            "devices": devices if devices is None or isinstance(devices, int) else len(devices),
        }

    def _check_rule(self, rule: Any) -> None:
        if not isinstance(rule, tuple | list) or len(cast("Any", rule)) != 2:
            raise ConfigurationError(
                f"Received the rule {rule!r} in Parallel(rules=...); expected pairs of a regular "
                f"expression and axes. Write rules=[{EXAMPLE}]."
            )
        pattern, axes = cast("tuple[Any, Any]", rule)
        try:
            re.compile(pattern)
        except (TypeError, re.error) as error:
            raise ConfigurationError(
                f"Received the pattern {pattern!r} in Parallel(rules=...), which is no regular "
                f"expression ({error}); expected one. Write rules=[{EXAMPLE}]."
            ) from error
        if isinstance(axes, str) or not isinstance(axes, Sequence):
            raise ConfigurationError(
                f"Received the axes {axes!r} for {pattern!r} in Parallel(rules=...); expected a "
                "tuple with one entry for each dimension: a mesh axis, a tuple of them, or None. "
                f"Write rules=[{EXAMPLE}]."
            )
        for axis in cast("Sequence[Any]", axes):
            self._check_axis(axis, f"the rule {pattern!r} of Parallel(rules=...)")
        named = [name for axis in cast("Sequence[Any]", axes) for name in names_in(axis)]
        if len(named) != len(set(named)):
            raise ConfigurationError(
                f"Received the axes {axes!r} for {pattern!r} in Parallel(rules=...); expected each "
                "axis of the mesh once, since it divides one dimension. Leave one of them out."
            )

    def _check_axis(self, axis: Any, where: str) -> None:
        for name in names_in(axis):
            if name not in self.mesh or name == MEMBERS:
                known = [each for each in self.mesh if each != MEMBERS]
                raise unknown_name(f"axis in {where}", name, known)


EXAMPLE = '(r"mlp/.*kernel$", (None, "model"))'


def names_in(axis: Any) -> tuple[Any, ...]:
    """The names in what one dimension is divided by."""
    if axis is None:
        return ()
    return tuple(cast("Any", axis)) if isinstance(axis, tuple | list) else (axis,)


def as_parallel(value: Any, *, has_members: bool = False) -> Parallel | None:
    """The argument ``parallel=``: a name stands for the whole.

    Args:
        value: the argument.
        has_members: whether it is that of a population, whose mesh may have an axis for members.

    Raises:
        ConfigurationError: for something else.
    """
    if isinstance(value, Parallel) and MEMBERS in value.mesh and not has_members:
        raise ConfigurationError(
            f"Received a single run with the mesh {dict(value.mesh)!r}; expected one without the "
            f"axis {MEMBERS!r}, along which the members of a population lie. Write "
            "boltax.tune.Population(trainer, members, parallel=...) with a trainer that has no "
            f"parallel=, or leave {MEMBERS!r} out."
        )
    if value is None or isinstance(value, Parallel):
        return value
    if isinstance(value, str):
        if value not in NAMES:
            raise unknown_name("parallel=...", value, NAMES)
        return Parallel(fsdp=DATA if value == "fsdp" else None)
    raise ConfigurationError(
        f"Received parallel={value!r} ({type(value).__name__}); expected None, "
        f'{", ".join(map(repr, NAMES))} or a boltax.Parallel. Write parallel="data" for every '
        "device to work on its part of each batch."
    )


def on_mesh(parallel: Parallel | None, mesh: Mapping[str, int] | None) -> Parallel | None:
    """What a user asks for, on another mesh than that; None leaves it as it is."""
    if mesh is None:
        return parallel
    return Parallel(mesh=mesh) if parallel is None else replace(parallel, mesh=mesh, devices=None)


def _check_mesh(mesh: Any) -> None:
    is_mapping = isinstance(mesh, Mapping) and bool(cast("Any", mesh))
    items: Any = cast("Any", mesh).items() if is_mapping else ()
    is_good = is_mapping and all(
        isinstance(name, str)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and (size > 0 or size == -1)
        for name, size in items
    )
    if not is_good or sum(size == -1 for _, size in items) > 1:
        raise ConfigurationError(
            f"Received Parallel(mesh={mesh!r}); expected names of axes with their sizes, at least "
            '1, one of which may be -1 for the devices that are left. Write mesh={"data": -1}, or '
            'mesh={"data": -1, "model": 2}.'
        )
