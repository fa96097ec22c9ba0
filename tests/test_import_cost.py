"""What `import boltax` does not do: start a backend, change a setting, load optional packages.

The time that it takes is measured by `benchmarks/import_cost.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import boltax

# The packages that may be loaded beside those that jax, flax and optax load themselves.
ALLOWED = {"boltax"}
# Modules without a package of their own: compiled helpers of Cython, build data of Python.
NAMELESS = ("_cython_", "_sysconfigdata", "cython_runtime", "__")

# What a fresh process sees after its imports. With a platform that does not exist,
# whatever starts a backend fails.
PROGRAM = """
import json, os, sys, warnings

def settings():
    return json.dumps(jax.config.values, default=repr, sort_keys=True)

with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    {imports}
report = {{"modules": [*sys.modules], "environment": dict(os.environ), "settings": {settings}}}
try:
    jax.devices()
    report["backend"] = "started"
except RuntimeError:
    report["backend"] = "refused"
print(json.dumps({{**report, "warnings": [str(w.message) for w in warned]}}))
"""


def seen(imports: str, settings: str = "settings()") -> dict[str, Any]:
    """What a fresh process that finds the same boltax sees after these imports."""
    path = [str(Path(boltax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "JAX_PLATFORMS": "no_such"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports, settings=settings)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return {**json.loads(result.stdout), "errors": result.stderr}


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    """Without boltax; the settings of jax are those from before flax and optax."""
    return seen("import jax; first = settings(); import flax, optax", settings="first")


@pytest.fixture(scope="module")
def after() -> dict[str, Any]:
    """After `import boltax` alone."""
    return seen("import boltax; import jax")


def top_level_packages(modules: list[str]) -> set[str]:
    """The packages of these modules, the standard library's left out."""
    names = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)
    return {name for name in names if not name.startswith(NAMELESS)}


def test_import_loads_only_what_jax_flax_and_optax_load(before: Any, after: Any) -> None:
    added = top_level_packages(after["modules"]) - top_level_packages(before["modules"])
    assert added <= ALLOWED, f"import these where they are needed: {sorted(added - ALLOWED)}"


def test_import_leaves_nnx_alone(after: Any) -> None:
    # It takes a tenth of the time of jax, flax and optax together, and a Linen user never needs it.
    assert "flax.linen" in after["modules"]
    assert "flax.nnx" not in after["modules"]


def test_import_changes_no_setting_of_jax(before: Any, after: Any) -> None:
    assert after["settings"] == before["settings"]


def test_import_starts_no_backend(after: Any) -> None:
    assert after["backend"] == "refused"  # and `import boltax` went well before it


def test_import_sets_no_environment_variable(before: Any, after: Any) -> None:
    assert after["environment"] == before["environment"]


def test_import_warns_of_nothing(after: Any) -> None:
    assert after["warnings"] == []
    assert after["errors"] == ""


def test_the_packages_that_few_need_are_loaded_when_they_are_asked_for(after: Any) -> None:
    assert not {"boltax.tune", "boltax.testing", "boltax.demo"} & {*after["modules"]}
    asked = seen("import boltax; boltax.tune.Population; boltax.testing; import jax")
    assert {"boltax.tune", "boltax.testing"} <= {*asked["modules"]}
    assert "boltax.demo" not in asked["modules"]


def test_the_package_shows_what_it_loads_when_asked() -> None:
    packages = {module.name for module in Path(boltax.__file__).parent.iterdir() if module.is_dir()}
    public = {name for name in packages if not name.startswith("_")}
    assert public <= {*dir(boltax)}
    for name in public:
        assert getattr(boltax, name).__name__ == f"boltax.{name}"


def test_a_misspelt_name_of_the_package_is_suggested() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'tuen'. Did you mean boltax\.tune\?"):
        boltax.tuen  # noqa: B018
    assert not hasattr(boltax, "__path_of_nothing__")
