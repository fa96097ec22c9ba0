"""Hugging Face's `Trainer`, on the language model only."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from suite.rounds import NotOfferedError, Rounds
from suite.tasks import LEARNING_RATE, Task, make_data
from suite.torch_models import loss_and_accuracy, make_model, tensors


class Model(nn.Module):
    """The model with its loss, as the trainer wants it; adds up loss and accuracy on the way."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = make_model(task)
        self.totals, self.steps = torch.zeros(2), 0

    def forward(self, tokens: Any, labels: Any) -> dict[str, Any]:
        logits = self.model(tokens)
        loss, hits = loss_and_accuracy(logits, labels)
        self.totals += torch.stack((loss.detach(), hits))
        self.steps += 1
        return {"loss": loss, "logits": logits}

    def means(self, prefix: str) -> dict[str, float]:
        """Loss and accuracy since the last call."""
        loss, acc = (self.totals / self.steps).tolist()
        self.totals, self.steps = torch.zeros(2), 0
        return {f"{prefix}loss": loss, f"{prefix}acc": acc}


class Examples(torch.utils.data.Dataset):
    def __init__(self, tokens: torch.Tensor, labels: torch.Tensor) -> None:
        self.tokens, self.labels = tokens, labels

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"tokens": self.tokens[index], "labels": self.labels[index]}


class Clock(TrainerCallback):
    def __init__(self, rounds: Rounds, model: Model) -> None:
        self.rounds, self.model = rounds, model

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.rounds.begin()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        steps = self.model.steps
        self.rounds.trained(steps=steps, **self.model.means(""))

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.rounds.evaluated(**self.model.means("eval_"))


def run(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """One epoch for each round, with its evaluation; Adam as on the other sides."""
    if task.kind != "lm" or data == "grain":
        raise NotOfferedError("language model through a DataLoader only")
    model = Model(task)
    train, val = (Examples(*tensors(task, arrays)) for arrays in make_data(task))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=rounds.number,
        max_steps=rounds.max_steps or -1,
        per_device_train_batch_size=task.batch,
        per_device_eval_batch_size=task.batch,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        prediction_loss_only=True,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    Trainer(
        model, arguments, train_dataset=train, eval_dataset=val, callbacks=[Clock(rounds, model)]
    ).train()
