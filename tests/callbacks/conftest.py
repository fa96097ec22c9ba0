"""Views made by hand: what a callback sees, without a run."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import optax
import pytest

from boltax.callbacks._base import View


def make_view(**changes: Any) -> View:
    """A view of epoch 1, with what a test changes."""
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.125)
    settings: dict[str, Any] = {
        "phase": "train",
        "epoch": 1,
        "step": 10,
        "num_epochs": 5,
        "total_steps": 50,
        "state": SimpleNamespace(opt_state=tx.init({"w": jnp.zeros(2)})),
        "metrics": {},
        "history": (),
        "elapsed": 1.0,
        "log_dir": "runs/Model/version_0",
        "summary": lambda: "a table of layers\n",
        "predict": lambda batch: batch,
    }
    return View(**{**settings, **changes})


def make_views(key: str, values: list[float]) -> list[View]:
    """What a callback sees at the end of each epoch, in which a metric has these values."""
    rows = [
        {"epoch": epoch, "step": 10 * epoch, key: value, "time/train": 2.0}
        for epoch, value in enumerate(values, start=1)
    ]
    return [
        make_view(
            phase="val",
            epoch=row["epoch"],
            step=row["step"],
            metrics={key: row[key]},
            history=tuple(rows[: row["epoch"]]),
        )
        for row in rows
    ]


@pytest.fixture
def view():
    return make_view


@pytest.fixture
def views():
    return make_views
