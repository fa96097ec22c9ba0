import subprocess
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import checkpoint_project as project
from boltax.checkpoint._names import LIBRARIES, Lookup
from boltax.errors import CheckpointError

LOOKUP = Lookup(project.Trainer)


@pytest.fixture(autouse=True)
def _nothing_was_called() -> None:
    project.CALLS.clear()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (nn.relu, "flax.linen:relu"),
        (jax.nn.relu, "flax.linen:relu"),
        (nn.Dense, "flax.linen:Dense"),
        (nnx.Linear, "flax.nnx:Linear"),
        (jax.nn.initializers.he_normal, "flax.linen.initializers:he_normal"),
        (nn.initializers.zeros_init(), "flax.linen:zeros"),
        (jnp.bfloat16, "jax.numpy:bfloat16"),
        (jnp.tanh, "flax.linen:tanh"),
        (jnp.add, "jax.numpy:add"),
        (jax.lax.Precision, "jax.lax:Precision"),
        (jax.checkpoint, "flax.linen:remat"),
        (optax.adam, "optax:adam"),
        (optax.nadam, "optax:nadam"),
        (optax.contrib.muon, "optax.contrib:muon"),
        (project.Mlp, "trainer:Mlp"),
        (project.swish, "trainer:swish"),
        (project.doubled, "trainer:doubled"),
        (project.Mode, "trainer:Mode"),
    ],
)
def test_a_function_or_class_has_a_name_that_finds_it(value, name):
    found = LOOKUP.name_of(value)
    if value is not jax.checkpoint:  # which alias comes first is the library's affair
        assert found == name
    assert LOOKUP.find(found) is value


@pytest.mark.parametrize(
    "value",
    [
        lambda x: x,
        nn.initializers.xavier_uniform(),
        LOOKUP.find,
        len,
        project.os,
        project.system,
        project.Popen,
        project.loads,
        project.subprocess.run,
        project.functools.partial,
        np.load,
        jnp.load,
        jnp.save,
        jax.pure_callback,
        nn.Dense(3),
        optax.adam(1e-3),
        None,
        3,
    ],
)
def test_other_things_have_none(value):
    assert LOOKUP.name_of(value) is None


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "jax:os",
        "jax.numpy:load",
        "jax.numpy:save",
        "jax.numpy:fromfile",
        "jax:pure_callback",
        "jax:numpy",
        "flax.linen:nn.os.system",
        "flax.linen:relu.__globals__",
        "flax.linen.os:system",
        "flax.linen:__builtins__",
        "flax.linen:__loader__",
        "flax.linen:Any",
        "optax:MaskOrFn",
        "__import__",
        "builtins:eval",
        "builtins:__import__",
        "trainer:os",
        "trainer:system",
        "trainer:Popen",
        "trainer:loads",
        "trainer:pickle",
        "trainer:CALLS",
        "trainer:__builtins__",
        "trainer:subprocess.run",
        "trainer:Missing",
        "trainer:",
        ":relu",
        "flax.linen:",
        "flax.linen:relu:relu",
        "flax.linen",
        "",
        None,
        3,
        ["flax.linen:relu"],
    ],
)
def test_hostile_names_find_nothing(name):
    with pytest.raises(CheckpointError, match="expected a function or class of jax, flax or optax"):
        LOOKUP.find(name)
    assert not project.CALLS


def test_a_lookup_without_a_trainer_knows_the_libraries_only():
    assert Lookup(None).name_of(nn.relu) == "flax.linen:relu"
    assert Lookup(None).name_of(project.swish) is None
    with pytest.raises(CheckpointError, match="trainer:swish"):
        Lookup(None).find("trainer:swish")


def module_with(name, **contents):
    """A module as if it had been imported, and a trainer class in it."""
    module = types.ModuleType(name)
    bases = contents.pop("bases", ())
    trainer = type("Trainer", bases, {"__module__": name})
    vars(module).update(contents, Trainer=trainer)
    return module, trainer


def test_base_classes_bring_their_modules(monkeypatch):
    module, derived = module_with("derived_project", bases=(project.Trainer,))
    monkeypatch.setitem(sys.modules, "derived_project", module)
    lookup = Lookup(derived)
    assert lookup.own == "derived_project"
    assert lookup.find(lookup.name_of(project.swish)) is project.swish


def test_a_name_that_another_object_hides_is_not_given(monkeypatch):
    module, derived = module_with(
        "hiding_project", bases=(project.Trainer,), swish=project.run_anything
    )
    monkeypatch.setitem(sys.modules, "hiding_project", module)
    assert Lookup(derived).name_of(project.swish) is None
    assert Lookup(derived).find("trainer:swish") is project.run_anything


def test_a_model_class_of_an_installed_package_is_found(monkeypatch):
    installed = type("Installed", (nn.Module,), {"__module__": "yaml"})
    module, trainer = module_with("user_project", Installed=installed, dense=nn.Dense)
    monkeypatch.setitem(sys.modules, "user_project", module)
    assert Lookup(trainer).find("trainer:Installed") is installed


def test_names_hold_where_the_trainer_is_a_script(tmp_path):
    (tmp_path / "script.py").write_text(
        "from boltax.checkpoint._names import Lookup\n"
        "def act(x): return x\n"
        "class Trainer: pass\n"
        "if __name__ == '__main__':\n"
        "    print(Lookup(Trainer).name_of(act))\n"
    )
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "trainer:act"


def test_a_name_imports_no_module_that_is_not_listed(monkeypatch):
    imported = []
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name: imported.append(name) or sys.modules.get(name, types.ModuleType(name)),
    )
    for name in ("os:system", "shutil:rmtree", "flax.linen.os:system", "evil:run"):
        with pytest.raises(CheckpointError, match=name):
            LOOKUP.find(name)
    assert set(imported) <= set(LIBRARIES)
