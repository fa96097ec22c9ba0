"""Small models, data and trainers that the tests share."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct

import boltax as bx


class Mlp(nn.Module):
    """Dense layers with BatchNorm and dropout."""

    features: int = 8
    num_classes: int = 3
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(self.features)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes)(x)


class Plain(nn.Module):
    """Two layers without BatchNorm and dropout, so that examples know nothing of each other."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(6)(x)))


class NnxMlp(nnx.Module):
    """The same in NNX."""

    def __init__(
        self, features: int = 8, num_classes: int = 3, dropout: float = 0.1, *, rngs: nnx.Rngs
    ):
        self.first = nnx.Linear(4, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.last = nnx.Linear(features, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


class EqxMlp(eqx.Module):
    """The same in Equinox, for one example."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(
        self,
        features: int = 8,
        num_classes: int = 3,
        dropout: float = 0.1,
        mode: str = "ema",
        *,
        key,
    ):
        first, last = jax.random.split(key)
        self.first = eqx.nn.Linear(4, features, key=first)
        self.norm = eqx.nn.BatchNorm(features, "batch", mode=mode)
        self.drop = eqx.nn.Dropout(dropout)
        self.last = eqx.nn.Linear(features, num_classes, key=last)

    def __call__(self, x, state, *, key):
        x, state = self.norm(self.first(x), state)
        return self.last(self.drop(jax.nn.relu(x), key=key)), state


class Classifier(bx.TrainerModule):
    """A classifier at the level of `loss_function`."""

    def loss_function(self, model, batch, train):
        inputs, labels = batch
        logits = model(inputs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, {"acc": logits.argmax(-1) == labels}


@struct.dataclass
class Lowest:
    """The lowest value; that of no value would be infinity."""

    value: jax.Array

    def merge(self, other):
        return type(self)(jnp.minimum(self.value, other.value))

    def compute(self):
        return self.value


class Low(Classifier):
    """With a metric whose empty state is no zero: the lowest loss."""

    metric = Lowest

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {**metrics, "lowest": self.metric(loss.mean())}


class GuideRegressor(bx.TrainerModule):
    """A regression at the level of `create_functions`."""

    def create_functions(self):
        import jax

        def mse(params, state, batch):
            inputs, targets = batch
            return ((state.apply_fn({"params": params}, inputs) - targets) ** 2).mean()

        def train_step(state, batch):
            loss, grads = jax.value_and_grad(mse)(state.params, state, batch)
            return state.apply_gradients(grads=grads), {"loss": loss}

        def eval_step(state, batch):
            return {"loss": mse(state.params, state, batch)}

        return train_step, eval_step


class Linear(nn.Module):
    """One dense layer that takes no `train`."""

    features: int = 1

    @nn.compact
    def __call__(self, x, **kwargs):
        return nn.Dense(self.features)(x)


class ActorCritic(nn.Module):
    """Two parts, whose outputs are added."""

    def setup(self):
        self.actor, self.critic = nn.Dense(1), nn.Dense(1)

    def __call__(self, x, train=True):
        return self.actor(x) + self.critic(x)


class OneByOne(bx.TrainerModule):
    """Updates the critic twice and the actor once in each step."""

    def create_functions(self):
        import jax

        def loss_of(part, state, batch):
            inputs, targets = batch
            outputs = state.apply_fn({"params": {**state.params, **part}}, inputs)
            return ((outputs - targets) ** 2).mean()

        def train_step(state, batch):
            for name in ("critic", "critic", "actor"):
                part = {name: state.params[name]}
                loss, grads = jax.value_and_grad(loss_of)(part, state, batch)
                state = state.apply_gradients(grads=grads, loss=loss)
            return state, {"loss": loss, "seen_step": state.step.astype(jnp.float32)}

        def eval_step(state, batch):
            return {"loss": loss_of({}, state, batch)}

        return train_step, eval_step


def classes(num_examples: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three separable classes of points in four dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_examples).astype(np.int32)
    centres = np.eye(3, 4, dtype=np.float32) * 3
    return (centres[labels] + rng.normal(size=(num_examples, 4)).astype(np.float32)), labels


def line(num_examples: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Points on a plane, without noise."""
    inputs = np.random.default_rng(0).normal(size=(num_examples, 4)).astype(np.float32)
    return inputs, inputs.sum(-1, keepdims=True)


def loader(num_examples: int = 50, batch_size: int = 16, **options: Any) -> bx.data.ArrayLoader:
    """`classes` in batches; the last one is ragged."""
    return bx.data.ArrayLoader(classes(num_examples), batch_size, **options)


def classifier(
    folder: Any, trainer_class: type = Classifier, model_class: Any = Mlp, **options: Any
):
    """A quiet classifier that writes under `folder`."""
    settings = {
        "model_class": model_class,
        "model_hparams": {},
        "optimizer_hparams": {"lr": 1e-2, "schedule": "constant"},
        "exmp_input": classes(4),
        "logger_params": {"base_log_dir": str(folder), "logger_type": "csv"},
        "enable_progress_bar": False,
    }
    return trainer_class(**{**settings, **options})


def to_host(tree: Any) -> Any:
    """A copy of a state's variables that outlives donation."""
    import jax

    return jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, jnp.ndarray) else leaf, tree
    )
