"""Trains a small GPT, character by character, and shows what it finds surprising.

    python examples/char_gpt.py                  # on the reference that comes with Python
    python examples/char_gpt.py --text book.txt  # on a text of your own

Ends with the bits for each character of a text that it has not seen, a passage of it in which each
character is shaded by its bits (surprise.png), and a continuation of its own.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure

import boltax as bx

CONTEXT, HEADS = 64, 4


# Data: windows of the text, each with the character that follows as an example's last target.
def read_text(path):
    if path:
        return Path(path).read_text()
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics))


def make_loaders(text, alphabet, batch_size=32):
    codes = np.searchsorted(alphabet, np.array(list(text))).astype(np.int32)
    starts = np.arange(0, len(codes) - CONTEXT, CONTEXT)
    windows = codes[starts[:, None] + np.arange(CONTEXT + 1)]
    held_out = len(windows) // 20
    parts = windows[: -2 * held_out], windows[-2 * held_out : -held_out], windows[-held_out:]
    train, val, test = ({"text": part} for part in parts)
    return (
        bx.data.ArrayLoader(train, batch_size, shuffle=True, drop_last=True),
        bx.data.ArrayLoader(val, batch_size),
        bx.data.ArrayLoader(test, batch_size),
    )


# Model: an ordinary NNX module; its `rngs` come from the trainer's seed.
class Block(nnx.Module):
    def __init__(self, width, dropout, *, rngs):
        self.before = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, width, decode=False, rngs=rngs)
        self.between = nnx.LayerNorm(width, rngs=rngs)
        self.wide = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        causal = nnx.make_causal_mask(x[..., 0])
        x = x + self.dropout(self.attention(self.before(x), mask=causal))
        return x + self.dropout(self.narrow(nnx.gelu(self.wide(self.between(x)))))


class GPT(nnx.Module):
    def __init__(self, characters, width, layers, dropout, *, rngs):
        self.characters = nnx.Embed(characters, width, rngs=rngs)
        self.places = nnx.Embed(CONTEXT, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, dropout, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, characters, rngs=rngs)

    def __call__(self, text):
        x = self.characters(text) + self.places(jnp.arange(text.shape[1]))[None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LanguageModel(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        losses = bits(model, batch["text"]) * np.log(2)
        return losses, {"bits": losses / np.log(2)}  # [batch, characters]: means over all of them

    def predict_function(self, model, batch):
        return bits(model, batch["text"])


def bits(model, text):
    logits = model(text[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:]) / np.log(2)


def continuation(model, window, length, seed=0):
    """So many characters after a window, each drawn from what the model expects."""

    def one(window, key):
        new = jax.random.categorical(key, model(window[None])[0, -1] / 0.8).astype(window.dtype)
        return jnp.append(window[1:], new), new

    keys = jax.random.split(jax.random.key(seed), length)
    return jax.jit(lambda window: jax.lax.scan(one, window, keys)[1])(jnp.asarray(window))


def plot_surprise(text, found, path, columns=64):
    rows = -(-len(text) // columns)
    figure = Figure(figsize=(9.6, 0.27 * rows + 0.4), layout="constrained")
    axes = figure.subplots()
    grid = np.zeros((rows, columns))
    grid.flat[: len(found)] = found
    image = axes.imshow(grid, cmap="Oranges", vmin=0, vmax=8, aspect="auto")
    for place, character in enumerate(text):
        row, column = divmod(place, columns)
        axes.text(column, row, character, ha="center", va="center", family="monospace", size=8)
    axes.set_axis_off()
    figure.colorbar(image, label="bits", pad=0.01)
    figure.savefig(path, dpi=150)


def main(epochs, log_dir, text, layers):
    text = read_text(text)
    alphabet = np.unique(np.array(list(text)))
    train_loader, val_loader, test_loader = make_loaders(text, alphabet)
    trainer = LanguageModel(
        model_class=GPT,
        model_hparams={"characters": len(alphabet), "width": 128, "layers": layers, "dropout": 0.1},
        optimizer_hparams={"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.1, "warmup": 0.05},
        exmp_input=next(iter(train_loader)),
        logger_params={"base_log_dir": log_dir, "logger_type": ["TensorBoard", "csv"]},
        monitor=("val/bits", "min"),
    )
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=epochs)

    windows = test_loader.arrays["text"][:12]
    found = trainer.predict_model([{"text": windows}])
    passage = "".join(alphabet[windows[:, 1:].ravel()]).replace("\n", "¶")
    plot_surprise(passage, found.ravel(), Path(trainer.log_dir, "surprise.png"))
    print(f"{metrics['test/bits']:.2f} bits a character. Wrote {trainer.log_dir}/surprise.png")
    written = continuation(trainer.bind_model(), windows[0, 1:], 400)
    print(f"After {passage[: CONTEXT // 2]!r}... it writes:\n{''.join(alphabet[written])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--log-dir", default="runs", help="folder of all runs")
    parser.add_argument("--text", help="a file to learn from")
    parser.add_argument("--layers", type=int, default=3)
    main(**vars(parser.parse_args()))
