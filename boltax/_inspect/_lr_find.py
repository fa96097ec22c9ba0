"""A learning rate range test: training with a rate that grows from step to step, on a copy.

    for step in range(num_steps):  train with min_lr * (max_lr / min_lr) ** (step / (num_steps - 1))
    smooth the losses;  what follows a divergence does not count;  where do they fall most steeply?

The range test is that of Smith 2017, "Cyclical learning rates for training neural networks",
arXiv:1506.01186; the growth by a factor, the smoothing and the divergence are those of fastai.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from boltax._base._optional import import_optional
from boltax._base._trees import examples_or_one
from boltax._base._types import Batch, Cursor
from boltax._build._arguments import check_positive
from boltax._build._constructed import Constructed
from boltax._build._twin import twin_of
from boltax._step._programs import Compilations
from boltax._step._steps import compile_fused
from boltax.data._order import keeping_order
from boltax.data._prefetch import prefetch_to_device
from boltax.data._source import Source, as_source
from boltax.errors import ConfigurationError, OptimizerError, TrainingError
from boltax.metrics._accumulate import start
from boltax.optim._learning_rate import learning_rate, with_learning_rate
from boltax.optim._registry import lookup

LEAST_STEPS = 10
SMOOTHING = 0.9
"""The decay of the average that smooths the losses."""
RISE = 3.0
"""The loss has diverged where it lies above its best by so many times what it has fallen, or by so
many times its best: for losses above 0 that end near 0 about fastai's four times the best."""
_DOTS_PER_INCH = 150


@dataclass(frozen=True)
class LearningRateTest:
    """What a learning rate range test has found.

    Attributes:
        lr: the learning rates, float64 ``[steps]``, up to the last before the loss diverged.
        losses: the loss of each step, float64 ``[steps]``.
        smoothed: their average over the steps up to each, float64 ``[steps]``.
        suggestion: the learning rate at which the smoothed loss falls most steeply over the
            logarithm of the rate: one to begin with, as the peak of a schedule. None when it falls
            nowhere.

    Example:
        >>> rates = np.geomspace(1e-4, 10, 60)
        >>> test = result_of(rates, 2 - np.tanh(2 * np.log10(rates / 0.01)) + rates)
        >>> 0.005 < test.suggestion < 0.05
        True
    """

    lr: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggestion: float | None

    def plot(self, path: str | Path) -> None:
        """Writes the losses over the learning rate, and the suggestion, as a PNG file.

        Args:
            path: the file to write.

        Raises:
            MissingExtraError: without matplotlib.
        """
        purpose = "the plot of lr_find"
        figures: Any = import_optional("matplotlib.figure", extra="demo", purpose=purpose)
        agg: Any = import_optional("matplotlib.backends.backend_agg", extra="demo", purpose=purpose)
        figure = figures.Figure(figsize=(6.4, 4.0), layout="constrained")
        agg.FigureCanvasAgg(figure)
        _draw(figure.subplots(), self)
        figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)


def lr_find(
    trainer: Constructed, train_loader: Any, min_lr: float, max_lr: float, num_steps: int
) -> LearningRateTest:
    """Runs the test; see `TrainerModule.lr_find`."""
    _check_range(min_lr, max_lr, num_steps)
    if hasattr(train_loader, "__next__"):
        raise ConfigurationError(
            f"Received a loader of type {type(train_loader).__name__} that can be read only once; "
            "expected one that training can read again afterwards. Write a function that makes "
            "it: lr_find(lambda: batches())."
        )
    rates = np.geomspace(min_lr, max_lr, num_steps)
    with keeping_order(train_loader), trainer._made.progress.status("testing learning rates"):
        source = as_source(train_loader, name="train_loader")
        used, losses = _trained(trainer, source, _state(trainer, min_lr, num_steps), rates)
    if not np.allclose(used, rates, rtol=1e-3):
        raise _no_rate_error(trainer, "follows a schedule of its own")
    if not math.isfinite(losses[0]):
        raise TrainingError(
            f"Received a loss of {losses[0]} at the first step of lr_find, with a learning rate of "
            f"{min_lr:g}; expected a finite one. Look at the first batch and at the loss of it, or "
            f"write a lower min_lr."
        )
    return result_of(rates, losses)


def result_of(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> LearningRateTest:
    """Smooths the losses, cuts them where they diverge, and finds the steepest descent.

    Args:
        rates: the learning rates, ``[steps]``, in equal ratios.
        losses: the loss of each step.
    """
    finite = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses)
    smoothed = _smoothed(losses[:finite])
    best = np.minimum.accumulate(smoothed)
    allowed = best + RISE * np.maximum(np.abs(best), smoothed[0] - best)
    diverged = np.flatnonzero(smoothed > allowed)
    count = int(diverged[0]) if diverged.size else finite
    smoothed, suggestion = smoothed[:count], None
    if count >= LEAST_STEPS:
        slopes = np.gradient(smoothed)
        # At first the average has few losses behind it, and behind its lowest point it falls only
        # from where a loss too high has taken it: both are noise.
        first = count // LEAST_STEPS
        last = max(int(np.argmin(smoothed)), first)
        steepest = first + int(np.argmin(slopes[first : last + 1]))
        suggestion = float(rates[steepest]) if slopes[steepest] < 0 else None
    return LearningRateTest(rates[:count], losses[:count], smoothed, suggestion)


def _trained(
    trainer: Constructed, source: Source, state: Any, rates: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The learning rate and the loss of each step."""
    placement = trainer._made.placement
    step = compile_fused(
        _body(placement.dividing(trainer.create_functions()[0])),
        "learning rate test",
        compilations=Compilations(trainer._made.progress.status),
        wanted=trainer.loop.steps_per_execution,
        placement=placement,
        check=partial(placement.check_batch, microbatches=trainer.loop.parts),
    )
    count = len(rates)
    constants: Any = placement.put(np.asarray(rates, np.float32))
    carry: Any = state, placement.put(np.int32(0))
    stream = prefetch_to_device(
        _endless(source),
        lambda drawn: step.plan(count - drawn, count - drawn),
        limit=count,
        depth=trainer.loop.prefetch,
        copy=not source.owns_batches,
        is_compiled=step.is_compiled,
        placement=placement,
    )
    found: list[Any] = []
    for chunk in stream:
        carry, outputs = step(constants, carry, chunk)
        found.append((outputs, chunk.steps))
    parts = [
        np.asarray([np.atleast_1d(part)[:steps] for part in jax.device_get(outputs)], np.float64)
        for outputs, steps in found
    ]
    used, losses = np.concatenate(parts, axis=1)
    return used, losses


def _body(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with the learning rate of its number, which gives that rate and the loss."""

    def body(rates: jax.Array, carry: Any, batch: Batch) -> tuple[Any, Any]:
        state, index = carry
        state = state.replace(opt_state=with_learning_rate(state.opt_state, rates[index]))
        new, metrics = train_step(state, batch)
        if "loss" not in metrics:
            raise ConfigurationError(
                f"Received metrics {sorted(metrics)} from train_step; expected 'loss' among them, "
                'by which lr_find judges. Write return state, {"loss": loss, ...}.'
            )
        loss = start({"loss": metrics["loss"]}, examples_or_one(batch)).values["loss"]
        return (new, index + 1), (learning_rate(new.opt_state), loss.rounded().astype(jnp.float32))

    return body


def _endless(source: Source) -> Iterator[tuple[Batch, Cursor]]:
    """The batches of one epoch after the other; those of another size than the first left out."""
    size = None
    for epoch in itertools.count(1):
        for batch, cursor in source.epoch(epoch):
            size = size or examples_or_one(batch)
            if examples_or_one(batch) == size:
                yield batch, cursor
        if size is None:
            return


def _state(trainer: Constructed, min_lr: float, num_steps: int) -> Any:
    """A copy of the trainer's state with its optimizer anew, whose learning rate can be set."""
    hparams: Any = trainer.optimizer_hparams
    if isinstance(hparams, Mapping):
        entry = lookup(hparams.get("optimizer", "adamw"))
        if not entry.has_lr or entry.lr_is_fixed:
            why = "is read only once" if entry.has_lr else "does not exist"
            raise _no_rate_error(trainer, why)
        others = {name: value for name, value in hparams.items() if name != "warmup"}
        hparams = {**others, "lr": min_lr, "schedule": "constant"}
    copy = trainer._made.copies.copy(trainer.state)
    twin = twin_of(trainer, optimizer_hparams=hparams, state=copy)
    twin.init_optimizer(1, num_steps)
    if learning_rate(twin.state.opt_state) is None:
        raise _no_rate_error(trainer, "is not in the optimizer's state")
    return twin.state


def _no_rate_error(trainer: Constructed, why: str) -> OptimizerError:
    given: Any = trainer.optimizer_hparams
    shown = given if isinstance(given, Mapping) else type(given).__name__
    return OptimizerError(
        f"Received optimizer_hparams={shown!r}, whose learning rate {why}; expected one that "
        "lr_find can set at each step. Write a dict with an optimizer that has a learning rate, "
        "or optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)."
    )


def _check_range(min_lr: float, max_lr: float, num_steps: int) -> None:
    check_positive(num_steps=num_steps)
    if not 0 < min_lr < max_lr < math.inf:
        raise ConfigurationError(
            f"Received min_lr={min_lr!r} and max_lr={max_lr!r}; expected positive numbers, the "
            "second one larger. Write for instance min_lr=1e-7, max_lr=10.0."
        )
    if num_steps < LEAST_STEPS:
        raise ConfigurationError(
            f"Received num_steps={num_steps}; expected at least {LEAST_STEPS}, from which a slope "
            "can be read. Write num_steps=100; a shorter loader is repeated."
        )


def _smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Their moving average, without the zero that it starts from."""
    mean, smoothed = 0.0, np.empty_like(losses)
    for step, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed[step] = mean / (1 - SMOOTHING ** (step + 1))
    return smoothed


def _draw(axes: Any, test: LearningRateTest) -> None:
    axes.semilogx(test.lr, test.losses, color="#9db8d9", linewidth=1, label="loss of each step")
    axes.semilogx(test.lr, test.smoothed, color="#2f6db3", linewidth=2, label="smoothed")
    if test.suggestion is not None:
        height = float(np.interp(test.suggestion, test.lr, test.smoothed))
        label = f"steepest descent: {test.suggestion:.2g}"
        axes.plot(test.suggestion, height, "o", color="#c0392b", markersize=7, label=label)
        axes.axvline(test.suggestion, color="#c0392b", linewidth=1, linestyle=":")
    low, high = test.smoothed.min(), test.smoothed.max()
    margin = 0.15 * (high - low) or 0.1
    axes.set_ylim(min(low, test.losses.min()) - margin, high + 2 * margin)
    axes.set_title("Learning rate range test", loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
