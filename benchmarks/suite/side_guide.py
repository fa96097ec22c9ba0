"""A trainer in the style that tutorials teach: jitted steps, metrics added up in Python per step.

Nothing is donated, nothing waits within an epoch, and a progress bar goes around the loader.
"""

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import jax
from flax.training import train_state
from tqdm import tqdm

from suite.batches import passes
from suite.linen_models import make_model, make_optimizer, per_example
from suite.rounds import Rounds
from suite.tasks import Task, make_data


class TrainState(train_state.TrainState):
    batch_stats: Any = None


def run(task: Task, rounds: Rounds, data: str, _folder: Path) -> None:
    """Trains and evaluates once for each round."""
    train_data, eval_data = make_data(task)
    train_batches = passes(train_data, data, task.batch, shuffle=True)
    eval_batches = passes(eval_data, data, task.batch, shuffle=False)
    state = _start(task, train_data[0][: task.batch])
    train_step, eval_step = jax.jit(_train_step), jax.jit(_eval_step)
    for _ in range(rounds.number):
        rounds.begin()
        metrics: dict[str, Any] = defaultdict(float)
        batches = islice(train_batches(), rounds.max_steps)
        for batch in tqdm(batches, total=task.steps, desc="Training", leave=False):
            state, step_metrics = train_step(state, batch)
            for name, value in step_metrics.items():
                metrics[name] += value / task.steps
        found = {name: value.item() for name, value in metrics.items()}
        jax.block_until_ready(state)
        rounds.trained(**found, steps=task.steps)
        metrics, seen = defaultdict(float), 0
        for batch in eval_batches():
            size = len(batch[0])
            for name, value in eval_step(state, batch).items():
                metrics[name] += value * size
            seen += size
        rounds.evaluated(**{f"eval_{name}": (m / seen).item() for name, m in metrics.items()})


def _start(task: Task, inputs: Any) -> TrainState:
    model = make_model(task)
    variables = jax.jit(model.init)(jax.random.key(0), inputs)
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables.get("batch_stats"),
        tx=make_optimizer(),
    )


def _train_step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    inputs, labels = batch

    def loss_of(params: Any) -> tuple[Any, Any]:
        logits, changed = state.apply_fn(
            _variables(params, state), inputs, train=True, mutable=["batch_stats"]
        )
        loss, hits = per_example(logits, labels)
        return loss.mean(), (hits.mean(), changed)

    (loss, (acc, changed)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=changed.get("batch_stats"))
    return state, {"loss": loss, "acc": acc}


def _eval_step(state: TrainState, batch: Any) -> dict[str, jax.Array]:
    logits = state.apply_fn(_variables(state.params, state), batch[0])
    loss, hits = per_example(logits, batch[1])
    return {"loss": loss.mean(), "acc": hits.mean()}


def _variables(params: Any, state: TrainState) -> dict[str, Any]:
    if state.batch_stats is None:
        return {"params": params}
    return {"params": params, "batch_stats": state.batch_stats}
