"""Guesses from which library a sentence of documentation is, letter by letter.

    python examples/ragged_text.py

The texts are the first paragraphs of docstrings in five packages that are installed here, of any
length. Each batch holds texts that are padded to one of three lengths: the step is compiled three
times, and little of it is padding. Ends with how often the recurrent network is right about unseen
texts, and with what it believes as it reads some (belief.png).
"""

import argparse
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import boltax as bx

LIBRARIES = {"numpy": "#4d77cf", "scipy": "#2e9e5b", "sklearn": "#f0943c"}
LIBRARIES |= {"matplotlib": "#d6455d", "jax": "#9b59b6"}
LENGTHS = (48, 80, 144)
FIRST_PARAGRAPH = r':\n\s+"""\s*(\w.*?)(?:\n\s*\n|""")'


# Data: texts as codes from 1; 0 is what they are padded with.
def read_texts(library, most):
    folder, found = Path(find_spec(library).origin).parent, {}
    for path in sorted(folder.rglob("*.py")):
        if "test" not in str(path.relative_to(folder)) and len(found) < 4 * most:
            for text in re.findall(FIRST_PARAGRAPH, path.read_text("utf8"), re.S):
                found[re.sub(r"\s+", " ", text)[: LENGTHS[-1]]] = None
    texts = [text for text in found if text.isascii() and text.isprintable() and len(text) > 15]
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:most]]


def padded(texts, labels, length):
    """Texts and labels as arrays, [texts, length] and [texts]."""
    codes = np.zeros((len(texts), length), np.int32)
    for row, text in zip(codes, texts, strict=True):
        row[: len(text)] = [ord(letter) - 31 for letter in text]
    return {"text": codes, "label": np.asarray(labels, np.int32)}


class Buckets:
    """Texts in batches of one length each: a `boltax.data.Source`, so a run resumes exactly."""

    owns_batches = True

    def __init__(self, texts, labels, batch_size):
        self.batch_size, self.parts = batch_size, []
        for shorter, length in pairwise((0, *LENGTHS)):
            rows = [row for row, text in enumerate(texts) if shorter < len(text) <= length]
            self.parts.append(padded([texts[r] for r in rows], [labels[r] for r in rows], length))
        self.num_batches = sum(len(part["label"]) // batch_size for part in self.parts)

    def epoch(self, epoch, after=None):
        rng, plan = np.random.default_rng(epoch), []
        for part in self.parts:
            order = rng.permutation(len(part["label"]))
            order = order[: len(order) // self.batch_size * self.batch_size]
            plan += [(part, rows) for rows in order.reshape(-1, self.batch_size)]
        start = after["batch"] if after and after["epoch"] == epoch else 0
        for number, place in enumerate(rng.permutation(len(plan))[start:], start + 1):
            part, rows = plan[place]
            batch = {name: array[rows] for name, array in part.items()}
            yield batch, {"epoch": epoch, "batch": number}

    def fingerprint(self):
        return {"kind": "Buckets", "texts": [len(part["label"]) for part in self.parts]}


class Reader(nn.Module):
    width: int = 128

    @nn.compact
    def __call__(self, text, train=True):
        """Logits [batch, letters, libraries]: what it believes after each letter."""
        x = nn.Embed(97, 48)(text)
        x = nn.RNN(nn.GRUCell(self.width))(x)
        return nn.Dense(len(LIBRARIES))(nn.Dropout(0.3, deterministic=not train)(x))


class Classifier(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        text, label = batch["text"], batch["label"]
        logits, is_letter = model(text), text > 0
        labels = jnp.broadcast_to(label[:, None], text.shape)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        last = jnp.take_along_axis(logits, is_letter.sum(1)[:, None, None] - 1, axis=1)[:, 0]
        return (losses.sum(where=is_letter), is_letter.sum()), {"acc": last.argmax(-1) == label}

    def predict_function(self, model, batch):
        return nn.softmax(model(batch["text"]))


def plot_belief(text, label, beliefs, path):
    """Each letter on the color of what it believes then, the paler the less sure it is."""
    figure = Figure(figsize=(0.1 * LENGTHS[1] + 1, 0.3 * len(text) + 0.4))
    axes = figure.add_axes((0.1, 0.02, 0.89, 0.86))
    colors, names = np.array([to_rgb(color) for color in LIBRARIES.values()]), list(LIBRARIES)
    for row, (codes, truth, belief) in enumerate(zip(text, label, beliefs, strict=True)):
        letters = [chr(code + 31) for code in codes if code]
        sure = np.clip((belief.max(-1) - 0.2) / 0.8, 0, 1)[: len(letters), None] * 0.8
        shade = sure * colors[belief.argmax(-1)[: len(letters)]] + 1 - sure
        axes.imshow(shade[None], extent=(0, len(letters), row + 0.95, row + 0.05), aspect="auto")
        for column, letter in enumerate(letters):
            axes.text(column + 0.5, row + 0.5, letter, size=7, ha="center", va="center")
        axes.text(-1, row + 0.5, names[truth], color=colors[truth], ha="right", va="center")
    for place, (name, color) in enumerate(LIBRARIES.items()):
        figure.text(0.1 + 0.12 * place, 0.93, name, color="white", backgroundcolor=color)
    axes.set(xlim=(0, LENGTHS[1]), ylim=(len(text), 0))
    axes.set_axis_off()
    figure.savefig(path, dpi=130)


def main(epochs, log_dir, width, texts):
    pairs = [(t, n) for n, library in enumerate(LIBRARIES) for t in read_texts(library, texts)]
    few = len(pairs) // 12
    parts = np.split(np.random.default_rng(0).permutation(len(pairs)), [-2 * few, -few])
    chosen = ([pairs[place] for place in part] for part in parts)
    train, val, test = (Buckets(*zip(*part, strict=True), batch_size=64) for part in chosen)
    trainer = Classifier(
        model_class=Reader,
        model_hparams={"width": width},
        optimizer_hparams={"lr": 3e-3, "weight_decay": 1e-2, "warmup": 0.1},
        exmp_input=next(train.epoch(1))[0],
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        loop=bx.LoopOptions(batch_shapes=2 * len(LENGTHS)),  # those of the test are others
    )
    metrics = trainer.train_model(train, val.parts, test.parts, num_epochs=epochs)  # a batch each
    shown = {name: array[:14] for name, array in test.parts[1].items()}
    path = Path(trainer.log_dir, "belief.png")
    plot_belief(**shown, beliefs=trainer.predict_model([shown]), path=path)
    print(f"Right about {metrics['test/acc']:.1%} of unseen texts, to their ends. Wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--texts", type=int, default=1200, help="of each library, at most")
    parser.add_argument("--width", type=int, default=128, help="of the network")
    main(**vars(parser.parse_args()))
