"""Lightning with its defaults: progress bar, logger, a checkpoint for each epoch.

It reads a PyTorch `DataLoader`, as its users do, so `memory` and `torch` are the same to it.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from suite.rounds import NotOfferedError, Rounds
from suite.tasks import LEARNING_RATE, Task, make_data
from suite.torch_models import loss_and_accuracy, make_model, tensors


class Module(LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = make_model(task)

    def training_step(self, batch: Any, index: int) -> Any:
        return self._step(batch, "")

    def validation_step(self, batch: Any, index: int) -> Any:
        return self._step(batch, "eval_")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), LEARNING_RATE)

    def _step(self, batch: Any, prefix: str) -> Any:
        loss, acc = loss_and_accuracy(self.model(batch[0]), batch[1])
        self.log_dict({f"{prefix}loss": loss, f"{prefix}acc": acc}, on_step=False, on_epoch=True)
        return loss


class Clock(Callback):
    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.steps_before = 0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.steps_before = trainer.global_step
        self.rounds.begin()

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.rounds.trained(steps=trainer.global_step - self.steps_before)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.rounds.evaluated()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.rounds.note(**{name: float(v) for name, v in trainer.callback_metrics.items()})


def run(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """One epoch for each round, with its validation."""
    if data == "grain":
        raise NotOfferedError("reads a DataLoader only")
    train, val = (TensorDataset(*tensors(task, arrays)) for arrays in make_data(task))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=rounds.number,
        max_steps=rounds.max_steps or -1,
        default_root_dir=folder,
        callbacks=[Clock(rounds)],
    )
    loaders = DataLoader(train, task.batch, shuffle=True), DataLoader(val, task.batch)
    trainer.fit(Module(task), *loaders)
