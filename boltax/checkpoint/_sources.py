"""Arrays that another program has stored: safetensors files, and folders of orbax.

A source says what it holds without reading it. Nothing of it is executed.
"""

import os
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boltax._base._optional import import_optional
from boltax.checkpoint._dtypes import is_storable
from boltax.checkpoint._files import read_json
from boltax.checkpoint._orbax import foreign_arrays, is_foreign, load_foreign
from boltax.errors import CheckpointError

INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """Arrays by their stored names.

    Attributes:
        place: where they are, for messages.
        texts: what each is, ``"float32[3, 4]"``.
        read: reads some of them, as NumPy arrays.
    """

    place: Path
    texts: Mapping[str, str]
    read: Callable[[Collection[str]], dict[str, np.ndarray]]


def open_foreign(checkpoint: str | os.PathLike[str]) -> Source | None:
    """The arrays of a safetensors file, of several with an index, or of a folder of orbax.

    Returns:
        None for what is none of these: a run of boltax, or nothing.

    Raises:
        CheckpointError: for a file that is cut short or damaged, or a folder with several.
    """
    path = Path(checkpoint).expanduser()
    if path.name.endswith((".safetensors", INDEX)):
        return _safetensors(path)
    if not path.is_dir() or (path / "hparams.json").exists() or (path / "structure.json").exists():
        return None
    indices, files = sorted(path.glob(f"*{INDEX}")), sorted(path.glob("*.safetensors"))
    if found := indices or files:
        return _safetensors(_only(path, found))
    if is_foreign(path):
        return _orbax(path)
    inner = [child for child in sorted(path.iterdir()) if child.is_dir() and is_foreign(child)]
    return _orbax(_only(path, inner)) if inner else None


def _only(folder: Path, found: list[Path]) -> Path:
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:10])
        raise CheckpointError(
            f"Received the folder {folder} with several sets of weights: {names}; expected one. "
            f"Write load_weights({str(found[0])!r})."
        )
    return found[0]


def _safetensors(path: Path) -> Source:
    files = _files_of_index(path) if path.name.endswith(INDEX) else None
    if files is None:
        texts = _texts(path)
        return Source(path, texts, lambda names: _read(path, names))
    texts: dict[str, str] = {}
    for file, names in files.items():
        own = _texts(file)
        if lacking := sorted(names - own.keys()):
            raise CheckpointError(
                f"Received {path}, which says that {lacking[0]} is in {file.name}; expected it "
                "there. The files do not belong together: fetch them again."
            )
        texts |= {name: own[name] for name in sorted(names)}

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        wanted = set(names)
        parts = [_read(file, own & wanted) for file, own in files.items() if own & wanted]
        return {name: array for part in parts for name, array in part.items()}

    return Source(path, texts, read)


def _files_of_index(path: Path) -> dict[Path, set[str]]:
    """The files of an index with the names of the arrays in each."""
    index = read_json(path)
    entries = index.get("weight_map") if isinstance(index, dict) else None
    files: dict[Path, set[str]] = {}
    for name, file in entries.items() if isinstance(entries, dict) else ():
        if not isinstance(file, str) or Path(file).name != file:
            raise _no_index(path, f"the file {file!r} for {name}")
        files.setdefault(path.parent / file, set()).add(name)
    if not files:
        raise _no_index(path, "no arrays")
    return files


def _no_index(path: Path, received: str) -> CheckpointError:
    return CheckpointError(
        f'Received {path} with {received}; expected {{"weight_map": {{"name of an array": "a file '
        'beside it"}}}, as safetensors in several files have it. Fetch it again.'
    )


def _texts(path: Path) -> dict[str, str]:
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: f"{_DTYPES.get(each.get_dtype(), each.get_dtype())}{list(each.get_shape())}"
            for name, each in slices.items()
        }


def _read(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in names}


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    library = import_optional("safetensors", extra="safetensors", purpose=f"reading {path.name}")
    try:
        with library.safe_open(path, framework="np") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(
            f"Received {path}, which does not exist; expected a safetensors file. Look for the "
            "name of the file, or of the folder that holds it."
        ) from error
    except (library.SafetensorError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Received {path}, which cannot be read ({error}); expected a whole safetensors file. "
            "It is cut short or damaged: fetch it again."
        ) from error


_DTYPES = {
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
}


def _orbax(folder: Path) -> Source:
    arrays = foreign_arrays(folder)
    texts = {
        "/".join(names): f"{np.dtype(dtype).name}{list(shape)}"
        for names, (shape, dtype) in arrays.items()
        if is_storable(np.dtype(dtype))
    }

    def read(names: Collection[str]) -> dict[str, np.ndarray]:
        wanted = [own for own in arrays if "/".join(own) in names]
        return {"/".join(own): array for own, array in load_foreign(folder, wanted).items()}

    return Source(folder, texts, read)
