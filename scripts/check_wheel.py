"""Builds the wheel out of the source archive and tests it, installed, from another directory.

What this catches: a file that the archive or the wheel leaves out, a console script that points
nowhere, and code that works only beside the source tree.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import importlib, importlib.metadata, pathlib, pkgutil, sys
import boltax

site = pathlib.Path(sys.argv[1]).resolve()
assert pathlib.Path(boltax.__file__).resolve().is_relative_to(site), boltax.__file__
modules = [module.name for module in pkgutil.walk_packages(boltax.__path__, "boltax.")]
for name in modules:
    if not name.endswith("__main__"):
        importlib.import_module(name)
distribution = importlib.metadata.distribution("boltax")
(script,) = distribution.entry_points.select(group="console_scripts", name="boltax")
assert callable(script.load())
print(f"the wheel of boltax {distribution.version} imports: {len(modules)} modules")
"""


def main() -> int:
    """Returns 0 when the wheel is whole."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _run(["-m", "build", "--no-isolation", "--outdir", str(work), str(ROOT)], cwd=work)
        (wheel,) = work.glob("*.whl")
        missing = _source_files() - set(zipfile.ZipFile(wheel).namelist())
        if missing:
            print(f"The wheel lacks {sorted(missing)}: see [tool.hatch.build] in pyproject.toml.")
            return 1
        site, elsewhere = work / "site", work / "elsewhere"
        elsewhere.mkdir()
        _run(["-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel)], cwd=work)
        _run(
            ["-W", "error", "-c", PROGRAM, str(site)],
            cwd=elsewhere,
            show=True,
            PYTHONPATH=str(site),
        )
    return 0


def _source_files() -> set[str]:
    files = (path.relative_to(ROOT) for path in (ROOT / "boltax").rglob("*") if path.is_file())
    return {path.as_posix() for path in files if "__pycache__" not in path.parts}


def _run(arguments: list[str], cwd: Path, show: bool = False, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=None if show else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        print(result.stdout or "", end="")
        raise SystemExit(result.returncode)


if __name__ == "__main__":
    sys.exit(main())
