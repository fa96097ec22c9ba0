"""Folders of runs, made by hand."""

from pathlib import Path

import numpy as np

from boltax.checkpoint._end_file import End, write_end
from boltax.checkpoint._files import write_json
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.loggers._history import History
from boltax.loggers._images import as_images, grid, png

CURVES = {"train/loss": [4.0, 2.0, 1.0], "val/loss": [3.0, 2.5, 0.5], "val/acc": [0.1, 0.5, 0.75]}


def make_run(folder, *, lr=0.1, model="MLP", acc=0.75, how="finished", reason=None, **hparams):
    """A folder as a finished run leaves it."""
    folder = Path(folder)
    stored = {
        "model_class": model,
        "model_hparams": {"width": 8},
        "optimizer_hparams": {"lr": lr, "optimizer": "adam"},
        "seed": 0,
        "logger_params": {"log_dir": str(folder)},
        "constructor": {"named": {"monitor": {"__tuple__": ["val/acc", "max"]}}},
        **hparams,
    }
    write_json(folder / "hparams.json", stored)
    history = History(folder / "history.csv")
    for epoch in range(3):
        values = {name: curve[epoch] for name, curve in CURVES.items()}
        history.append({"epoch": epoch + 1, "step": 10 * epoch + 10, **values})
    write_json(
        folder / "metrics" / "best_eval.json", plain_metrics({"val/acc": acc, "val/loss": 0.5})
    )
    write_json(folder / "metrics" / "test.json", plain_metrics({"test/acc": acc / 2}))
    (folder / "model.txt").write_text("a <table> of layers")
    if how:
        write_end(folder, End(how, reason, 30, 3, {"device": 3.0, "compile": 1.0}))
    return folder


def add_picture(folder, name):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    path = Path(folder) / "images" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png(grid(as_images(pixels))))
    return path
