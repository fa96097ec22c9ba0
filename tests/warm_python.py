"""A Python that has imported what programs import, and forks a process for each of them.

What a test runs as its users type it needs a process of its own, and most of what such a process
does is importing JAX and what stands on it. The imports are made once; no program sees anything
of the others, since JAX starts no backend before the fork.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOR_TRAINING = (
    *("numpy", "jax", "flax.linen", "optax", "orbax.checkpoint"),
    *("boltax", "boltax.data", "boltax.tune", "boltax.testing"),
)
"""What most programs that train import; none of these starts a JAX backend."""
QUICK_TO_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
if (
    importlib.metadata.version("jax") < "0.12"
):  # an older way of making fusions takes 2/3 of the time
    QUICK_TO_COMPILE["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
    )
"""For programs that are to run, and whose speed and last bits nobody looks at."""
SERVER = """
import importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
answers = os.fdopen(os.dup(1), "w")
while line := os.read(0, 2**16):
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
else:
    os._exit(0)
answers.close()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(output, 1)
os.dup2(output, 2)
os.chdir(asked["folder"])
os.environ.update(asked["environment"])
sys.argv[:] = [asked["script"], *asked["arguments"]]
sys.path[0] = os.path.dirname(asked["script"])
# The rest is what Python itself does with a script, its end included.
runpy.run_path(asked["script"], run_name="__main__")
"""
"""Reads what to run from its input, a line each, and answers with the exit codes."""


class Done(NamedTuple):
    """How a program ended: its exit code, and all that it printed."""

    returncode: int
    output: str


class WarmPython:
    """Runs scripts, one after the other, each in a process of its own.

    Args:
        modules: what is imported before; those that are not installed may not be among them.
        options: of the interpreter, such as ``-W error``.
        **environment: variables beside those of this process.
    """

    def __init__(
        self, modules: Sequence[str], options: Sequence[str] = (), **environment: str
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *options, "-c", SERVER, *modules],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: Path, *arguments: str, folder: Path, **environment: str) -> Done:
        """Runs a script in a folder, until it has ended.

        Args:
            script: the file.
            *arguments: what it finds in `sys.argv`.
            folder: where it runs.
            **environment: variables of its own.
        """
        output = folder / f"{script.stem}.printed"
        asked: dict[str, Any] = {
            "script": str(script),
            "arguments": arguments,
            "folder": str(folder),
            "output": str(output),
            "environment": environment,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline()
        assert code, "the interpreter that imports and forks has ended"
        return Done(int(code), output.read_text(errors="replace"))

    def close(self) -> None:
        """Ends the interpreter."""
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=60) == 0
