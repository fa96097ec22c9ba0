"""A trainer in a few words: in a notebook, in a terminal, in the message of an exception."""

import html
from typing import Any

import jax

from boltax._build._place import shown


def facts(trainer: Any) -> dict[str, str]:
    """What there is to say of a trainer, as it is now: name to text."""
    known = vars(trainer)
    found: dict[str, str] = {}
    if (config := known.get("config")) and "model_class" in config:
        hparams = ", ".join(f"{name}={value!r}" for name, value in trainer.model_hparams.items())
        found["model"] = f"{config['model_class']}({hparams})"
    state = trainer._made.live.state if "_made" in known else None
    if (params := getattr(state, "params", None)) is not None:
        number = sum(leaf.size for leaf in jax.tree.leaves(params))
        found["parameters"] = f"{number:,}"
    if folder := known.get("log_dir"):
        found["folder"] = shown(folder)
    run = known.get("run")
    if run is None:
        return found
    found["trained"] = f"{run.epoch} epochs, {run.step} steps"
    if run.history:
        row = run.history[-1]
        found["last"] = _numbers({n: v for n, v in row.items() if n.startswith(("train/", "val/"))})
    if run.best:
        found["best"] = _numbers({n: v for n, v in run.best.items() if n.startswith("val/")})
    return {name: text for name, text in found.items() if text}


def _numbers(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{n} {v:.4g}" for n, v in metrics.items() if isinstance(v, int | float))


def as_text(trainer: Any) -> str:
    """One line: ``Classifier(model=..., parameters=..., ...)``."""
    parts = (f"{name}: {text}" for name, text in facts(trainer).items())
    return f"<{type(trainer).__name__} {'; '.join(parts)}>"


def as_html(trainer: Any) -> str:
    """A small table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in facts(trainer).items()
    )
    return f"<b>{html.escape(type(trainer).__name__)}</b><table>{rows}</table>"
