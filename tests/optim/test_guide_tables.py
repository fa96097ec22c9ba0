"""The tables of the guide to optimizers say what the registry knows, row for row."""

from collections.abc import Iterable
from pathlib import Path

from boltax import optim
from boltax.optim._registry import Entry

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "optimizers.md"
DECAYS = {
    "argument": "yes",
    "appended": "yes",
    "coupled": "`l2_regularization` instead",
    "none": "no",
}


def optimizer_row(entry: Entry) -> list[str]:
    lr = "none" if entry.default_lr is None else f"{entry.default_lr:g}"
    decay = DECAYS[entry.decay]
    if entry.has_decay and not entry.takes_mask:
        decay = "on all parameters"
    return [
        f"`{entry.name}`",
        lr,
        f"`{entry.schedule}`",
        "none" if entry.clip is None else f"{entry.clip:g}",
        decay,
        "no" if entry.lr_is_whole else "yes",
        ", ".join(f"`{need}`" for need in entry.needs).replace("obj_fn", "value_fn"),
    ]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def optimizer_table() -> str:
    head = ["optimizer", "`lr`", "`schedule`", "`gradient_clip`", "`weight_decay`", "`lr_scale`"]
    return table([*head, "needs"], map(optimizer_row, optim.optimizers().values()))


def reason_table() -> str:
    rows = [[f"`{name}`", reason] for name, reason in optim.NOT_BY_NAME.items()]
    return table(["not by name", "because"], rows)


def test_every_optimizer_has_its_row() -> None:
    assert optimizer_table() in GUIDE.read_text(), f"write:\n{optimizer_table()}"


def test_what_has_no_name_has_its_reason() -> None:
    assert reason_table() in GUIDE.read_text(), f"write:\n{reason_table()}"


def test_every_schedule_is_named() -> None:
    text = GUIDE.read_text()
    assert not [name for name in optim.schedules() if f"`{name}`" not in text]
