"""Batches whose leaves do not agree on their first axis, and numbers and text in batches."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.data._source import as_source
from boltax.errors import BoltaxError, DataError
from dummies import Mlp, NnxMlp, classifier

rng = np.random.default_rng(0)


def graph(number, nodes=6, edges=9):
    """A graph: nodes with features, edges as pairs of them, a mask of the nodes that are real."""
    made = np.random.default_rng(number)
    return {
        "nodes": made.normal(size=(nodes, 3)).astype(np.float32),
        "edges": made.integers(0, nodes, (2, edges)).astype(np.int32),
        "mask": np.arange(nodes) < nodes - number % 3,
        "y": made.normal(size=nodes).astype(np.float32),
    }


GRAPHS = [graph(number) for number in range(4)]


class Gnn(nn.Module):
    """One round of messages, with fixed weights."""

    @nn.compact
    def __call__(self, batch):
        source, target = batch["edges"]
        h = nn.Dense(1, kernel_init=nn.initializers.ones)(batch["nodes"])[:, 0]
        return h + jnp.zeros(h.shape, h.dtype).at[target].add(h[source])


def errors_by_hand(batch):
    """Squared errors of the nodes with the first weights, which are ones."""
    h = batch["nodes"].sum(1)
    messages = np.zeros_like(h)
    np.add.at(messages, batch["edges"][1], h[batch["edges"][0]])
    return (h + messages - batch["y"]) ** 2


class Pairs(bx.TrainerModule):
    """The loss is a sum over the real nodes, and their number."""

    def loss_function(self, model, batch, train):
        errors = jnp.where(batch["mask"], (model(batch) - batch["y"]) ** 2, 0.0)
        return (errors.sum(), batch["mask"].sum()), {}

    def predict_function(self, model, batch):
        return model(batch)


class ByNodes(bx.TrainerModule):
    """One value for each node."""

    def loss_function(self, model, batch, train):
        errors = (model(batch) - batch["y"]) ** 2
        return errors, {"far": errors > 1}

    def batch_size_of(self, batch):
        return batch["nodes"].shape[0]


def made(cls=Pairs, batch=GRAPHS[0], **options):
    options.setdefault("optimizer_hparams", {"lr": 0.0, "schedule": "constant"})
    return cls(
        model_class=Gnn,
        model_hparams={},
        exmp_input=batch,
        enable_progress_bar=False,
        logger_params={"base_log_dir": "runs"},
        **options,
    )


@pytest.mark.parametrize("options", [{}, {"debug": True}], ids=["compiled", "debug"])
@pytest.mark.parametrize("steps", [1, 2, "auto"])
def test_a_loss_that_counts_by_itself_trains_on_graphs(options, steps):
    trainer = made(loop=bx.LoopOptions(steps_per_execution=steps, log_every=4), **options)
    metrics = trainer.train_model(GRAPHS, GRAPHS, num_epochs=1)
    total = sum(errors_by_hand(g)[g["mask"]].sum() for g in GRAPHS)
    wanted = total / sum(g["mask"].sum() for g in GRAPHS)
    np.testing.assert_allclose(metrics["val/loss"], wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["train/loss"], wanted, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"debug": True}], ids=["compiled", "debug"])
def test_batch_size_of_says_how_examples_are_counted(options):
    graphs = [graph(0), graph(1, nodes=8, edges=5), graph(2, nodes=7)]
    trainer = made(ByNodes, loop=bx.LoopOptions(batch_shapes=3), **options)
    metrics = trainer.train_model(graphs, graphs, num_epochs=1)
    errors = np.concatenate([errors_by_hand(g) for g in graphs])
    np.testing.assert_allclose(metrics["val/loss"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["train/loss"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["val/far"], (errors > 1).mean(), rtol=1e-6)
    assert trainer.run.metrics.examples == 21


def test_predictions_of_all_nodes_come_in_order():
    outputs = made().predict_model(GRAPHS)
    assert outputs.shape == (24,)


def test_a_loss_without_a_count_says_what_to_write():
    class Mean(Pairs):
        def loss_function(self, model, batch, train):
            return ((model(batch) - batch["y"]) ** 2).mean(), {}

    with pytest.raises(BoltaxError, match=r"pair \(total, count\), or write def batch_size_of"):
        made(Mean)


def test_a_metric_without_a_count_says_what_to_write():
    class Mean(Pairs):
        def loss_function(self, model, batch, train):
            return super().loss_function(model, batch, train)[0], {"mean": batch["y"].mean()}

    with pytest.raises(DataError, match=r"pair \(total, count\), or write def batch_size_of"):
        made(Mean).train_model(GRAPHS, num_epochs=1)


def test_batch_size_of_must_be_a_number_of_the_host():
    class Traced(ByNodes):
        def batch_size_of(self, batch):
            return batch["mask"].sum()

    with pytest.raises(BoltaxError, match=r"from batch_size_of of Traced; expected a whole number"):
        made(Traced).train_model(GRAPHS, num_epochs=1)


@pytest.mark.parametrize("cls", [Pairs, ByNodes])
def test_preflight_takes_a_graph(cls):
    report = made(cls).preflight(GRAPHS[0])
    assert report.batch_size == (1 if cls is Pairs else 6)


def test_graphs_are_not_divided():
    with pytest.raises(DataError, match="agree on their first axis"):
        made(loop=bx.LoopOptions(microbatches=2)).train_model(GRAPHS, num_epochs=1)


@dataclasses.dataclass
class Sized:
    """A batch with a number that is no array."""

    x: np.ndarray
    size: int
    note: object = None


class Weighted(bx.TrainerModule):
    """Uses the number."""

    def loss_function(self, model, batch, train):
        total = ((model(batch.x)[:, 0]) ** 2).sum()
        return (total, batch.size), {"size": (batch.size, 1)}


class Layer(nn.Module):
    """One layer with fixed weights."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1, kernel_init=nn.initializers.ones)(x)


def sized(note=None):
    return [Sized(rng.normal(size=(4, 3)).astype(np.float32), size, note) for size in (4, 3, 2)]


def weighted(batches):
    return Weighted(
        model_class=Layer,
        model_hparams={},
        exmp_input=batches[0],
        enable_progress_bar=False,
        optimizer_hparams={"lr": 0.0, "schedule": "constant"},
        logger_params={"base_log_dir": "runs"},
    )


def test_numbers_that_change_from_batch_to_batch_pass_through():
    batches = sized()
    trainer = weighted(batches)
    metrics = trainer.train_model(batches, batches, num_epochs=1)
    total = sum((batch.x.sum(1) ** 2).sum() for batch in batches)
    np.testing.assert_allclose(metrics["val/loss"], total / 9, rtol=1e-5)
    assert metrics["val/size"] == 3


def test_text_is_named_with_what_to_write():
    batches = sized(note="a")
    with pytest.raises(BoltaxError, match=r"batch\.note: str.*static"):
        weighted(sized()).train_model(batches, num_epochs=1)


def test_numbers_without_a_name_are_refused():
    with pytest.raises(DataError, match="lists and tuples are containers in JAX"):
        list(as_source([(np.zeros((2, 3)), [1, 2])]).epoch(1))


def test_static_fields_that_change_are_named():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Static:
        x: np.ndarray
        kind: str = dataclasses.field(metadata={"static": True})

    batches = [Static(np.zeros((2, 3)), kind) for kind in "ab"]
    source = as_source(batches)
    with pytest.raises(DataError, match=r"static fields in them, changed from .*'a'.* to .*'b'"):
        list(source.epoch(1))


@pytest.mark.parametrize("model", [Mlp, NnxMlp])
def test_a_loader_whose_features_differ_from_the_examples_is_told(tmp_path, model):
    trainer = classifier(tmp_path, model_class=model)
    batch = (np.ones((4, 5), np.float32), np.zeros(4, np.int32))
    message = r"batch\[0\]: float32\[4, 5\] and not float32\[\d+, 4\], the shape of exmp_input"
    with pytest.raises(DataError, match=message):
        trainer.train_model([batch], num_epochs=1)
