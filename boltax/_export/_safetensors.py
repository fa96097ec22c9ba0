"""Writes arrays in the format safetensors, one after the other: no second copy of all of them.

    8 bytes, little-endian: length of the header
    header: JSON, {name: {"dtype": "F32", "shape": [3, 4], "data_offsets": [begin, end]}}
    the arrays, C-contiguous and little-endian, without gaps

The package `safetensors` reads it; to write, it wants all bytes in memory beside the arrays.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from boltax._base._trees import describe_leaf
from boltax._export._standalone import DTYPES
from boltax.errors import ModelError

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file.

    Args:
        path: the file.
        arrays: by name, on any device; each is fetched when it is its turn.
        metadata: what the file says of itself.

    Raises:
        ModelError: for an array of a type that the format does not have.

    Example:
        >>> write_safetensors(Path("w.safetensors"), {"params/w": np.ones((2, 3), np.float32)})
        >>> from safetensors.numpy import load_file
        >>> load_file("w.safetensors")["params/w"].shape
        (2, 3)
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    header |= dict(_entries(arrays))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(jax.device_get(array)).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _entries(arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    end = 0
    for name, array in arrays.items():
        dtype = _NAMES.get(str(array.dtype))
        if dtype is None:
            raise ModelError(
                f"Received the array {name}, {describe_leaf(array)}; expected one of the types "
                f"{', '.join(_NAMES)}, which a safetensors file can hold. Leave it out of the "
                "model's variables, or convert it."
            )
        begin, end = end, end + array.size * array.dtype.itemsize
        yield name, {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
