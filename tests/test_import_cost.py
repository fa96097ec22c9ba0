"""What `import boltax` does not do: start a backend, change a setting, load optional packages.

The time that it takes is measured by `benchmarks/import_cost.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import boltax

# The packages that may be loaded beside those that jax, flax and optax load themselves.
ALLOWED = {"boltax"}
# Modules without a package of their own: compiled helpers of Cython, build data of Python.
NAMELESS = ("_cython_", "_sysconfigdata", "cython_runtime", "__")

TOP_LEVEL = (
    "import json, sys; print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
)
SETTINGS = "import jax, json; print(json.dumps(jax.config.values, default=repr, sort_keys=True))"


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh process that finds the same boltax."""
    path = [str(Path(boltax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **environment}
    return subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False
    )


def output(program: str) -> object:
    result = run(program)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def top_level_packages(statement: str) -> set[str]:
    """The packages that are loaded after a statement, the standard library's left out."""
    names = set(output(f"{statement}\n{TOP_LEVEL}")) - set(sys.stdlib_module_names)
    return {name for name in names if not name.startswith(NAMELESS)}


def test_import_loads_only_what_jax_flax_and_optax_load() -> None:
    before = top_level_packages("import jax, flax, optax")
    added = top_level_packages("import jax, flax, optax, boltax") - before
    assert added <= ALLOWED, f"import these where they are needed: {sorted(added - ALLOWED)}"


def test_import_leaves_nnx_alone() -> None:
    # It takes a tenth of the time of jax, flax and optax together, and a Linen user never needs it.
    loaded = output("import boltax, json, sys; print(json.dumps([*sys.modules]))")
    assert "flax.nnx" not in loaded


def test_import_changes_no_setting_of_jax() -> None:
    assert output(f"import boltax\n{SETTINGS}") == output(SETTINGS)


def test_import_starts_no_backend() -> None:
    # With a platform that does not exist, whatever starts a backend fails.
    nowhere = {"JAX_PLATFORMS": "no_such_platform"}
    assert run("import jax; jax.devices()", **nowhere).returncode != 0
    result = run("import boltax", **nowhere)
    assert result.returncode == 0, result.stderr


def test_import_sets_no_environment_variable() -> None:
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    before = output(f"import jax, flax, optax\n{program}")
    assert output(f"import boltax\n{program}") == before


def test_import_warns_of_nothing() -> None:
    result = run("import warnings; warnings.simplefilter('error'); import boltax")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
