"""The models of `linen_models` in PyTorch, with Linen's distributions of initial weights."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from suite.tasks import Arrays, Task

TRUNCATION = 0.87962566103423978
"""Standard deviation of a normal distribution that is cut off at two of its own."""


class Cnn(nn.Module):
    def __init__(self, channels: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for pair, stride in zip(
            itertools.pairwise((channels, *sizes[:-1])), (1, 2, 2), strict=True
        ):
            layers += [nn.Conv2d(*pair, 3, stride, 1), nn.BatchNorm2d(pair[1]), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(*sizes[-2:])

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=1e-6) for _ in range(2)])
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        batch, time, width = x.shape
        split = self.qkv(self.norms[0](x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.narrow(functional.gelu(self.widen(self.norms[1](x)), approximate="tanh"))


class Lm(nn.Module):
    def __init__(self, time: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        vocabulary, width, layers, heads = sizes
        self.embed = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(time, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, vocabulary)

    def forward(self, tokens: Any) -> Any:
        return self.head(self.norm(self.blocks(self.embed(tokens) + self.positions)))


def make_model(task: Task) -> nn.Module:
    """The task's model, initialised as the others are."""
    torch.manual_seed(0)
    if task.kind == "mlp":
        pairs = itertools.pairwise((*task.shape, *task.sizes))
        layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
        model: nn.Module = nn.Sequential(*layers[:-1])
    elif task.kind == "cnn":
        model = Cnn(task.shape[-1], task.sizes)
    else:
        model = Lm(task.shape[0], task.sizes)
    return model.apply(_initialise)


def tensors(task: Task, arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    """Data as PyTorch wants them: channels before pixels, whole numbers of 64 bits."""
    inputs, labels = arrays
    if task.kind == "cnn":
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    if task.kind == "lm":
        inputs = inputs.astype(np.int64)
    return torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64))


def loss_and_accuracy(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Means over the batch; the accuracy without gradient."""
    loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
    return loss, (logits.detach().argmax(-1) == labels).float().mean()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        std = (module.weight[0].numel() ** -0.5) / TRUNCATION
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
