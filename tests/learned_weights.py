"""Weights of learned optimizers, made here in the published layout; and where reference data lie.

No trained weights are in this repository. Those made here go down the gradient, with some noise in
every array, so that a mistake in any of them shows.
"""

from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from boltax import optim
from boltax.optim._learned_weights import CELO, CELO_ADAM, VELO, Published, layout

REFERENCE = Path(__file__).parents[2] / "shared" / "data" / "lopt"
PUBLISHED = {"velo": VELO, "celo": CELO, "celo_adam": CELO_ADAM}
MAKERS = {"velo": optim.velo, "celo": optim.celo, "celo_adam": optim.celo_adam}
NAMES = sorted(MAKERS)


def arrays(published: Published, hidden: int = 8, bank: int = 4, step: float = 0.03) -> Any:
    """Arrays by path, with which a step is about `step` times the size of the tensor."""
    bank = bank if published.has_any_bank else published.bank
    rng = np.random.default_rng(0)
    found = {
        name: rng.normal(scale=0.01, size=shape).astype(np.float32)
        for name, shape in layout(published, hidden, bank).items()
    }
    of_scheduler = step / 0.001 if published is VELO else np.log(step / 0.001 / 0.1)
    found["rnn_params/step_size/b"] += np.float32(of_scheduler)
    if bank:
        network = {name: found[f"ff_mod_stack/~/{name}"] for name in ("w0__0", "w1", "w2")}
        network["w0__0"][:, 0] += np.asarray([1, -1, 0, 0], np.float32)
        network["w1"] += np.eye(4, dtype=np.float32)
        network["w2"][:, :2, 0] += np.asarray([1, -1], np.float32)
        found["rnn_params/rnn_to_controls/b"] += np.float32(0.01)
    return found


def nested(found: Any) -> Any:
    """The arrays as a file holds them."""
    theta: dict[str, Any] = {}
    for name, array in found.items():
        outer, _, rest = name.partition("/")
        if outer == "lstm_init_state":
            theta.setdefault(outer, {})[rest] = array
        else:
            middle, _, inner = rest.rpartition("/")
            theta.setdefault(outer, {}).setdefault(middle, {})[inner] = array
    return theta


def write(path: Path, found: Any, *, as_checkpoint: bool = False) -> str:
    """Writes arrays to a file; as VeLO's is, with generation and step beside them, or bare."""
    theta = nested(found)
    content = {"params": theta, "gen_id": "made", "step": 7} if as_checkpoint else theta
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serialization.msgpack_serialize(content))
    return str(path)


def write_all(folder: Path) -> dict[str, str]:
    """The weights of every learned optimizer under its usual name."""
    return {
        name: write(folder / published.files[0], arrays(published), as_checkpoint=name == "velo")
        for name, published in PUBLISHED.items()
    }
