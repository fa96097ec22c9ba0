"""Runs the exported model that lies beside this file: pip install jax flatbuffers.

from predict import load

predict = load()             # or load("folder/of/the/model")
outputs = predict(inputs)
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""What safetensors calls the types of arrays."""


def load(folder: Any = None) -> Any:
    """The model as a function from inputs to outputs, both as ``signature.json`` says."""
    place = Path(__file__).parent if folder is None else Path(folder)
    signature = json.loads((place / "signature.json").read_text(encoding="utf-8"))
    program = jax.export.deserialize(bytearray((place / "program.jax").read_bytes()))
    if signature["weights"] == "inside":
        return program.call
    weights = read_weights(place / "weights.safetensors")
    return lambda inputs: program.call(weights, inputs)


def read_weights(path: Any) -> dict[str, Any]:
    """The arrays of a safetensors file by name, on the default device."""
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        return {name: _read(file, 8 + length, entry) for name, entry in entries.items()}


def _read(file: Any, start: int, entry: dict[str, Any]) -> Any:
    first, last = entry["data_offsets"]
    file.seek(start + first)
    flat = np.frombuffer(file.read(last - first), jnp.dtype(DTYPES[entry["dtype"]]))
    return jax.device_put(flat.reshape(entry["shape"]))
