"""The loop written by hand in PyTorch."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from suite.rounds import NotOfferedError, Rounds
from suite.tasks import LEARNING_RATE, Task, make_data
from suite.torch_models import loss_and_accuracy, make_model, tensors


def run(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """Trains and evaluates once for each round."""
    if data == "grain":
        raise NotOfferedError("reads arrays and DataLoader only")
    train, val = (tensors(task, arrays) for arrays in make_data(task))
    model = make_model(task)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for _ in range(rounds.number):
        rounds.begin()
        model.train()
        totals = torch.zeros(2)
        for inputs, labels in islice(_batches(train, data, task.batch, True), rounds.max_steps):
            optimizer.zero_grad()
            loss, hits = loss_and_accuracy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            totals += torch.stack((loss.detach(), hits))
        loss, hits = (totals / task.steps).tolist()
        rounds.trained(loss=loss, acc=hits, steps=task.steps)
        model.eval()
        totals = torch.zeros(2)
        with torch.inference_mode():
            for inputs, labels in _batches(val, data, task.batch, False):
                totals += torch.stack(loss_and_accuracy(model(inputs), labels))
        loss, hits = (totals / task.eval_batches).tolist()
        rounds.evaluated(eval_loss=loss, eval_acc=hits)


def _batches(arrays: Any, data: str, batch: int, shuffle: bool) -> Iterator[Any]:
    if data == "torch":
        yield from DataLoader(TensorDataset(*arrays), batch, shuffle=shuffle)
    elif shuffle:
        for rows in torch.randperm(len(arrays[0])).split(batch):
            yield tuple(array[rows] for array in arrays)
    else:
        yield from zip(*(array.split(batch) for array in arrays), strict=True)
