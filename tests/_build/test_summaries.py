"""The table of a model: the whole of it, and one that fits the terminal."""

import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from boltax._build._summaries import summaries
from boltax.models._adapter import adapt
from boltax.models._calls import Call
from dummies import Mlp


@pytest.mark.parametrize("width", [80, 200])
def test_what_is_shown_fits_and_the_whole_has_all(monkeypatch, width):
    size = os.terminal_size((width, 40))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda _: size)
    adapter, inputs = adapt(Mlp, {}), jnp.ones((2, 4))
    variables = adapter.model.init(jax.random.key(0), inputs)
    calls = [Call((jax.ShapeDtypeStruct((2, 4), jnp.float32),), {})]
    whole, shown = summaries(adapter, calls, variables)
    assert max(map(len, shown.splitlines())) <= width
    assert "Dense_1" in whole
    by_variables, _ = summaries(adapter, None, variables)
    assert "Dense_1" in by_variables
