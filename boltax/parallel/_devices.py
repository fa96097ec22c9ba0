"""The devices that a population may use."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from boltax._base._types import PyTree
from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError

Device: TypeAlias = Any
"""A `jax.Device`, which is no type to the type checker."""
Devices: TypeAlias = int | Sequence[Device] | None
"""All local ones, or the first few of them, or these."""


def devices_of(wanted: Devices) -> tuple[Device, ...]:
    """The devices that a user asks for.

    Raises:
        ConfigurationError: when there are none such.
    """
    local = jax.local_devices()
    if wanted is None:
        return tuple(local)
    if is_whole(wanted, 1) and wanted <= len(local):
        return tuple(local[:wanted])
    listed: Any = list(wanted) if isinstance(wanted, Sequence) else []
    platform = {getattr(device, "platform", None) for device in listed}
    is_one_kind = len(platform) == 1 and all(isinstance(device, jax.Device) for device in listed)
    if is_one_kind and len(set(listed)) == len(listed):
        return tuple(listed)
    raise ConfigurationError(
        f"Received devices={wanted!r}; expected None for all local devices where they are faster, "
        f"a number of them from 1 to {len(local)}, or a sequence of different jax.Device. Write "
        "devices=1, or devices=jax.local_devices()."
    )


def default_device() -> Device:
    """The device on which JAX puts what nobody places."""
    return next(iter(jax.device_put(np.int32(0)).devices()))


def on_device(tree: PyTree, device: Device) -> PyTree:
    """A tree on a device; one that is there already stays what it is."""
    first = next(iter(jax.tree.leaves(tree)), None)
    return tree if first is None or first.devices() == {device} else jax.device_put(tree, device)


def is_on_cpu() -> bool:
    """Whether what nobody places is computed on a CPU."""
    return jax.default_backend() == "cpu"


def first_device() -> Device:
    """The first device of this process."""
    return jax.local_devices()[0]


def idle_devices(used: int = 1) -> str:
    """What to say of accelerators that a run on so many devices leaves alone; empty for none."""
    local = jax.local_devices()
    if len(local) <= used or local[0].platform == "cpu":  # those of a CPU share its cores
        return ""
    idle = len(local) - used
    return (
        f"Trains on one device ({local[0].device_kind}); {idle} other{'s' * (idle > 1)} "
        f'{"lie" if idle > 1 else "lies"} idle. Write parallel="data" to use all of them.'
    )
