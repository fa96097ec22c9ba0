"""The published weights of learned optimizers: where they are looked for, how they are read.

The files are msgpack as flax writes it: nested dicts of arrays, nothing that could be executed.
Every array is checked before any is used.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from flax import serialization
from msgpack.exceptions import UnpackException

from boltax._base._trees import describe_leaf
from boltax._process._user_cache import user_cache
from boltax.errors import OptimizerError

VARIABLE = "BOLTAX_LOPT_WEIGHTS"

Weights: TypeAlias = Mapping[str, np.ndarray]
"""The arrays of a file by their path in it, such as ``"rnn_params/step_size/w"``."""

# The width of each input of the per-parameter network, in the order of the file's names `w0__<k>`.
CHANNELS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
_WIDTH, _OUTPUTS = 4, 3


@dataclass(frozen=True)
class Published:
    """What is known of an optimizer's published weights.

    Attributes:
        optimizer: its name.
        files: the names under which they are looked for in a folder.
        origin: where they come from.
        features: numbers that the scheduler sees.
        hidden: width of the scheduler as it was published.
        bank: per-parameter networks in the bank as it was published; 0 where there is none.
        has_any_bank: whether the bank may have another size.
    """

    optimizer: str
    files: tuple[str, ...]
    origin: str
    features: int
    hidden: int
    bank: int
    has_any_bank: bool = False


VELO = Published(
    optimizer="velo",
    files=("velo.params", "aug12_continue_on_bigger_2xbs_200kstep_bigproblem_v2_5620/params"),
    origin=(
        "The project google/learned_optimization publishes them as "
        "aug12_continue_on_bigger_2xbs_200kstep_bigproblem_v2_5620/params, in the storage that its "
        "module research/general_lopt/pretrained_optimizers names"
    ),
    features=30,
    hidden=512,
    bank=256,
    has_any_bank=True,
)


def _of_celo(optimizer: str, bank: int) -> Published:
    return Published(
        optimizer=optimizer,
        files=(f"{optimizer}.theta.state", f"{optimizer}/theta.state"),
        origin=(
            "The project amoudgl/celo on GitHub has them as "
            f"algoperf/submissions/{optimizer}/theta.state"
        ),
        features=18,
        hidden=64,
        bank=bank,
    )


CELO = _of_celo("celo", bank=1)
CELO_ADAM = _of_celo("celo_adam", bank=0)


def load_weights(published: Published, weights: str | os.PathLike[str] | None) -> Weights:
    """The arrays of a file of weights, all of them of the right shape.

    Args:
        published: whose weights.
        weights: the file, or a folder in which it has one of its usual names; None to look for it
            in the folder that the environment variable names and in the user's cache.

    Raises:
        OptimizerError: when there is no such file, or it holds something else.
    """
    path = _locate(published, weights)
    found = dict(_flat(_theta(_read(path, published))))
    _check(found, published, path)
    return found


def _locate(published: Published, weights: str | os.PathLike[str] | None) -> Path:
    folders = _folders() if weights is None else [Path(weights).expanduser()]
    if weights is not None and folders[0].is_file():
        return folders[0]
    for folder in folders:
        for name in published.files:
            if (folder / name).is_file():
                return folder / name
    received = "no weights" if weights is None else f"weights={os.fspath(weights)!r}"
    looked = " or ".join(str(folder) for folder in folders)
    files = " or ".join(published.files)
    raise OptimizerError(
        f"Received {received} for optimizer {published.optimizer!r}; expected its trained weights, "
        f"and there is no file {files} in {looked}. {published.origin}. Put the file there, write "
        f"weights=PATH, or set the environment variable {VARIABLE} to the folder that holds it."
    )


def _folders() -> list[Path]:
    """Where weights are looked for when no path is given."""
    named = os.environ.get(VARIABLE, "").strip()
    return [*([Path(named).expanduser()] if named else []), user_cache("learned_optimizers")]


def _read(path: Path, published: Published) -> Any:
    try:
        return serialization.msgpack_restore(path.read_bytes())
    except (
        *(AttributeError, KeyError, OSError, TypeError, ValueError),
        UnpackException,
    ) as error:
        raise OptimizerError(
            f"Received weights={str(path)!r} for optimizer {published.optimizer!r}, which cannot "
            f"be read ({type(error).__name__}: {error}); expected msgpack as flax writes it. "
            f"{published.origin}; write weights=PATH of a whole copy."
        ) from error


def _theta(content: Any) -> Any:
    """The weights in a file's content: VeLO's file has the generation and step beside them."""
    if isinstance(content, Mapping) and {"params", "gen_id", "step"} <= content.keys():
        return content["params"]
    return content


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield path or "(top)", tree
        return
    for name, branch in tree.items():
        yield from _flat(branch, f"{path}/{name}" if path else str(name))


def _check(found: Mapping[str, Any], published: Published, path: Path) -> None:
    wanted = {
        name: f"float32[{', '.join(map(str, shape))}]"
        for name, shape in layout(published, *_sizes(found, published)).items()
    }
    have = {name: describe_leaf(array) for name, array in found.items()}
    differing = [name for name in {**wanted, **have} if wanted.get(name) != have.get(name)]
    if not differing:
        return
    rows = [("array", "found", "expected")]
    rows += [(name, have.get(name, "-"), wanted.get(name, "-")) for name in differing]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    table = "\n".join(f"  {line}" for line in lines)
    raise OptimizerError(
        f"Received weights={str(path)!r} for optimizer {published.optimizer!r}, whose arrays are "
        f"others; expected those below. {published.origin}; write weights=PATH of that file, or "
        f"choose the optimizer that this one belongs to.\n{table}"
    )


def _sizes(found: Mapping[str, Any], published: Published) -> tuple[int, int]:
    """Width of the scheduler and size of the bank in a file; as published where it is no clue."""
    hidden = getattr(found.get("lstm_init_state/hidden"), "shape", ())
    bank = getattr(found.get("rnn_params/rnn_to_controls/b"), "shape", ())
    return (
        hidden[1] if len(hidden) == 2 else published.hidden,
        bank[0] if len(bank) == 1 and published.has_any_bank else published.bank,
    )


def layout(published: Published, hidden: int, bank: int) -> dict[str, tuple[int, ...]]:
    """The shape of every array in a file of weights, by its path there."""
    shapes: dict[str, tuple[int, ...]] = {
        "lstm_init_state/hidden": (1, hidden),
        "lstm_init_state/cell": (1, hidden),
    }
    layers = {
        "linear": (published.features, hidden),  # in every file, and used by none of the methods
        "linear_1": (published.features, hidden),
        "linear_2": (published.features, hidden),
        "rnn/linear": (2 * hidden, 4 * hidden),
        "step_size": (hidden, 1),
    }
    if bank:
        layers["rnn_to_controls"] = (hidden, bank)
        networks: dict[str, tuple[int, ...]] = {
            f"w0__{k}": (bank, width, _WIDTH) for k, width in enumerate(CHANNELS)
        }
        networks |= {"b0": (bank, _WIDTH), "w1": (bank, _WIDTH, _WIDTH), "b1": (bank, _WIDTH)}
        networks |= {"w2": (bank, _WIDTH, _OUTPUTS), "b2": (bank, _OUTPUTS)}
        shapes |= {f"ff_mod_stack/~/{name}": shape for name, shape in networks.items()}
    for name, (inputs, outputs) in layers.items():
        shapes[f"rnn_params/{name}/w"] = (inputs, outputs)
        shapes[f"rnn_params/{name}/b"] = (outputs,)
    return shapes
