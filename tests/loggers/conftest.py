"""Readers of what loggers wrote, with no help from the loggers' own code."""

import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def events() -> Callable[[Path], list[Any]]:
    """All events of a folder's event files, in order."""
    return read_events


@pytest.fixture
def wandb_records() -> Callable[[Path], list[Any]]:
    """All records of the W&B runs of a folder, in order."""
    return read_wandb_records


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, silent, offline and in a temporary folder; its service ends with the test."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield wandb
    wandb.teardown()


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store to copy: making one takes many seconds."""
    pytest.importorskip("mlflow")
    from boltax.loggers import MlflowLogger

    folder = tmp_path_factory.mktemp("store")
    MlflowLogger(folder)._connect()
    return folder / "mlflow.db"


def read_events(folder: Path) -> list[Any]:
    event_pb2 = import_module("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("**/events.out.tfevents.*")):
        data, start = path.read_bytes(), 0
        while start < len(data):
            (length,) = struct.unpack("<Q", data[start : start + 8])
            found.append(event_pb2.Event.FromString(data[start + 12 : start + 12 + length]))
            start += 16 + length
    return found


def read_wandb_records(folder: Path) -> list[Any]:
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    files = sorted(folder.glob("**/*.wandb"))
    return [record.FromString(data) for path in files for data in _logged(path.read_bytes())]


def _logged(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: pieces in blocks of 32 KiB, after 7 bytes."""
    start, pieces = 7, b""
    while start + 7 <= len(data):
        left = 32768 - start % 32768
        if left < 7:
            start += left
            continue
        _, length, kind = struct.unpack("<IHB", data[start : start + 7])
        pieces += data[start + 7 : start + 7 + length]
        start += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield pieces
            pieces = b""


@pytest.fixture
def figure() -> Any:
    """A figure of 300 x 200 pixels that pyplot does not know."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3, 2), dpi=100)
    drawn.add_subplot().plot([0, 1], [1, 0])
    return drawn


@pytest.fixture
def image() -> np.ndarray:
    """Red, green; blue, white: uint8 [2, 2, 3]."""
    return np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
