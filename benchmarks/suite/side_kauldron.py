"""Kauldron with data in memory; it computes losses and metrics every so many steps only.

It has no epochs: an evaluator that runs every `task.steps` steps stops the clocks of a round, and
the checkpoint saved after it ends the round. Its loss of a round is the mean over the batches that
it logged, each 50th or, in short rounds, each eighth of a round. All else is as it comes, but for
the profile that it takes of three seconds after ten steps: short rounds would consist of that.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from kauldron import kd, kontext

from suite.linen_models import MODELS, make_optimizer
from suite.rounds import NotOfferedError, Rounds
from suite.tasks import Task, make_data

LOGITS, LABELS = "preds", "batch.labels"


class Model(nn.Module):
    """The task's model, wired to the batch."""

    kind: str
    sizes: tuple[int, ...]
    inputs: kontext.Key = "batch.inputs"
    is_training = kd.nn.train_property()

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        return MODELS[self.kind](self.sizes)(inputs, train=self.is_training)


@dataclasses.dataclass(frozen=True, eq=True, kw_only=True)
class Recorder(kd.train.metric_writer.KDMetricWriter):
    """The usual writer, which also notes the losses of training."""

    losses: list[float] = dataclasses.field(default_factory=list, compare=False)

    def write_scalars(self, step: int, scalars: Any) -> None:
        super().write_scalars(step, scalars)
        if self.collection == "train":
            self.losses.extend(float(v) for name, v in scalars.items() if name == "losses/xent")


class Clock(kd.evals.Evaluator):
    """Stops the clock of the training, evaluates, and stops that of the evaluation."""

    rounds: Any = None
    logged: Any = None
    steps: int = 0

    def evaluate(self, state: Any, step: int) -> Any:
        jax.block_until_ready(state)
        if not step:
            return None
        self.rounds.trained(steps=self.steps)
        result = super().evaluate(state, step)
        values = result.compute(flatten=False)
        self.rounds.evaluated(eval_loss=float(jax.device_get(values.loss_values["xent"])))
        self.rounds.note(loss=statistics.fmean(self.logged))
        self.logged.clear()
        return result


@dataclasses.dataclass(frozen=True, eq=True, kw_only=True)
class Saver(kd.ckpts.Checkpointer):
    """Saves after each evaluation, ends the round with that, and waits for the next."""

    rounds: Any = None

    def save(self, *args: Any, step: int, **kwargs: Any) -> Any:
        is_saved = super().save(*args, step=step, **kwargs)
        if step < self.save_interval_steps * self.rounds.number:
            self.rounds.begin()
        else:
            self.rounds.finish()
        return is_saved


def run(task: Task, rounds: Rounds, data: str, folder: Path) -> None:
    """Trains all rounds in one go."""
    if data != "memory":
        raise NotOfferedError("reads arrays only")
    if rounds.max_steps:
        raise NotOfferedError("has no epoch that ends after its first step")
    train, val = make_data(task)
    losses: list[float] = []
    kd.train.Trainer(
        workdir=folder / "run",
        train_ds=_pipeline(task, train, shuffle=True),
        eval_ds=_pipeline(task, val, shuffle=False),
        model=Model(task.kind, task.sizes),
        optimizer=make_optimizer(),
        num_train_steps=task.steps * rounds.number,
        log_metrics_every=min(50, max(1, task.steps // 8)),
        train_losses={
            "xent": kd.losses.SoftmaxCrossEntropyWithIntLabels(logits=LOGITS, labels=LABELS)
        },
        train_metrics={"acc": kd.metrics.Accuracy(logits=LOGITS, labels=LABELS)},
        writer=Recorder(losses=losses),
        checkpointer=Saver(save_interval_steps=task.steps, rounds=rounds),
        profiler=kd.inspect.Profiler(first_profile=None, every_secs=None),
        evals={
            "eval": Clock(
                run=kd.evals.EveryNSteps(task.steps),
                rounds=rounds,
                logged=losses,
                steps=task.steps,
            )
        },
    ).train()


def _pipeline(task: Task, arrays: Any, *, shuffle: bool) -> Any:
    examples = {"inputs": arrays[0], "labels": arrays[1][..., None]}
    return kd.data.InMemoryPipeline(
        loader=lambda: examples,
        batch_size=task.batch,
        shuffle=shuffle,
        num_epochs=None if shuffle else 1,
        seed=0,
    )
