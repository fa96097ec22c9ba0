"""`boltax preflight`: what a training step needs."""

import argparse
import math
import os
from typing import TYPE_CHECKING

from boltax._commands._arguments import DOES_NOT_FIT, add_traceback, positive, whole

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_preflight(commands: "Commands") -> None:
    preflight = commands.add_parser(
        "preflight",
        help="memory and operations of a training step, and whether it fits",
        description=(
            "Compiles the training step from shapes alone and says what it needs. Nothing is "
            "initialised or run. The exit status is 1 when it does not fit."
        ),
    )
    preflight.add_argument(
        "file",
        metavar="FILE.py:FUNCTION",
        help="a function without arguments that returns a trainer, or a trainer and a batch",
    )
    size = preflight.add_mutually_exclusive_group()
    size.add_argument(
        "--batch-size", metavar="N", type=whole(1), help="default: that of the example batch"
    )
    size.add_argument(
        "--find-batch-size",
        dest="is_search",
        action="store_true",
        help="look for the largest that fits",
    )
    preflight.add_argument(
        "--ways",
        dest="has_ways",
        action="store_true",
        help="also compile ways to take less memory: batches in parts, layers computed again",
    )
    preflight.add_argument(
        "--memory",
        metavar="GB",
        type=positive,
        help="of the device that is asked about (default: this one's)",
    )
    preflight.add_argument(
        "--mesh",
        metavar="AXIS=N,...",
        type=_mesh,
        help=(
            "devices that this machine need not have, as data=8,model=4: compiled for so many of a "
            "CPU's, with the rules of the trainer's parallel"
        ),
    )
    add_traceback(preflight)
    preflight.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    from boltax._inspect._preflight_file import preflight_file

    if options.mesh is not None:
        _provide(math.prod(options.mesh.values()))
    memory = None if options.memory is None else int(options.memory * 1e9)
    text, does_fit = preflight_file(
        options.file,
        batch_size=options.batch_size,
        memory=memory,
        is_search=options.is_search,
        has_ways=options.has_ways,
        mesh=options.mesh,
    )
    print(text)
    return 0 if does_fit else DOES_NOT_FIT


def _mesh(text: str) -> dict[str, int]:
    """The axes of a mesh with their sizes: ``data=8,model=4``."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not name.strip() or not size.strip().isdecimal() or not int(size):
            raise argparse.ArgumentTypeError(
                f"Received {text!r}; expected axes with their sizes. Write --mesh data=8,model=4"
            )
        found[name.strip()] = int(size)
    return found


def _provide(number: int) -> None:
    """Has a CPU show so many devices; before JAX's backend starts, which reads it once."""
    import jax

    flag = f"--xla_force_host_platform_device_count={number}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    jax.config.update("jax_platforms", "cpu")
