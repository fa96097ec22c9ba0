"""boltax with the NNX model, whose import is one of a program's imports, as in a user's script."""

from pathlib import Path

from suite import nnx_models
from suite.rounds import Rounds
from suite.side_boltax import train
from suite.tasks import Task


def run(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """Like `side_boltax.linen`."""
    hparams = {"shape": task.shape, "sizes": task.sizes}
    train(nnx_models.MODELS[task.kind], hparams, task, rounds, data, folder)
