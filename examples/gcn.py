"""Tells who joins whom when a club splits, from its two leaders and who meets whom.

    python examples/gcn.py

Zachary's karate club has 34 members; after a quarrel it became two. A graph convolutional network
(Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017) is told
on which side the instructor and the president are, and nothing else about anybody. Ends with how
many of the others it gets right, and with what it thinks of everybody while it learns (club.png).
"""

import argparse
from pathlib import Path

import flax.linen as nn
import networkx as nx
import numpy as np
import optax
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import boltax as bx

LEADERS = [0, 33]


# Data: a batch is the whole graph; `counted` says whose labels are looked at.
def make_batches():
    graph = nx.karate_club_graph()
    label = np.array([graph.nodes[node]["club"] == "Officer" for node in graph], np.int32)
    joined = nx.to_numpy_array(graph, weight=None) + np.eye(len(graph))
    degree = joined.sum(1)
    spread = (joined / np.sqrt(np.outer(degree, degree))).astype(np.float32)
    is_leader = np.isin(np.arange(len(graph)), LEADERS)
    both = {"spread": spread, "label": label}
    return graph, {**both, "counted": is_leader}, {**both, "counted": ~is_leader}


class GCN(nn.Module):
    width: int = 16

    @nn.compact
    def __call__(self, spread):
        """Logits [nodes, 2]: each node knows nothing but who it is."""
        x = nn.Dense(self.width)(np.eye(len(spread), dtype=np.float32))
        return spread @ nn.Dense(2)(nn.tanh(spread @ x))


class NodeClassifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        logits = model(batch["spread"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        is_right = (logits.argmax(-1) == batch["label"]) & batch["counted"]
        number = batch["counted"].sum()
        return (losses.sum(where=batch["counted"]), number), {"acc": (is_right.sum(), number)}

    def predict_function(self, model, batch):
        return nn.softmax(model(batch["spread"]))[:, 1]

    def on_training_start(self):
        self.beliefs = {}

    def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
        self.beliefs[epoch_idx] = self.predict_batch(val_loader[0])


def plot_club(graph, label, beliefs, path):
    """Lines: who meets whom. Inside: what it thinks; around: where the member went."""
    places = nx.kamada_kawai_layout(graph)
    places = np.array([places[node] for node in graph])
    sizes = np.where(np.isin(np.arange(len(label)), LEADERS), 330, 120)
    edges = np.where(label == 1, "#c2571a", "#1f4f8f")
    figure = Figure(figsize=(3.6 * len(beliefs), 3.8), layout="constrained")
    grid = figure.subplots(1, len(beliefs), squeeze=False)[0]
    for axes, (epoch, belief) in zip(grid, beliefs.items(), strict=True):
        lines = [(places[one], places[other]) for one, other in graph.edges]
        axes.add_collection(LineCollection(lines, color="#cbd5e1", linewidths=0.7, zorder=1))
        style = {"cmap": "RdYlBu_r", "vmin": 0, "vmax": 1, "linewidths": 2.5, "zorder": 2}
        axes.scatter(*places.T, s=sizes, c=belief, edgecolors=edges, **style)
        for node in LEADERS:
            axes.annotate("★", places[node], color="white", ha="center", va="center", zorder=3)
        axes.set_title(f"epoch {epoch}", loc="left")
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def main(epochs, log_dir):
    graph, known, unknown = make_batches()
    trainer = NodeClassifier(
        model_class=GCN,
        optimizer_hparams={"optimizer": "adamw", "lr": 2e-2, "weight_decay": 5e-3},
        exmp_input=known,
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        check_val_every_n_epoch=max(1, epochs // 3),
        monitor=("train/loss", "min"),  # of the leaders alone: nobody else's label chooses
    )
    metrics = trainer.train_model([known], [unknown], [unknown], num_epochs=epochs)
    path = Path(trainer.log_dir, "club.png")
    plot_club(graph, known["label"], trainer.beliefs, path)
    others = len(graph) - len(LEADERS)
    right = round(metrics["test/acc"] * others)
    print(f"{right} of the {others} others are where it puts them. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.log_dir)
