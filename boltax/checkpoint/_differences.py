"""What differs between the arrays of a checkpoint and those of a model, as a table for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from boltax.checkpoint._leaf import Names, is_array

_MOST_ROWS = 40


@dataclass(frozen=True)
class Difference:
    """One array, or other part, that is not the same on both sides.

    Attributes:
        kind: ``"missing"`` from the checkpoint, ``"unexpected"`` in it, or what differs:
            ``"shape"``, ``"dtype"``, ``"shape, dtype"``, ``"kind"`` (an array against a container).
        names: its place, from the outermost container inwards.
        saved: what the checkpoint has, ``"float32[3, 4]"``; ``"-"`` for nothing.
        wanted: what the model has.
    """

    kind: str
    names: Names
    saved: str
    wanted: str

    def __str__(self) -> str:
        return f"{'/'.join(self.names)}: {self.kind}, saved {self.saved}, model {self.wanted}"


def compare(saved: Mapping[Names, str], wanted: Mapping[Names, str]) -> list[Difference]:
    """Everything that keeps a checkpoint from being loaded as it is.

    Args:
        saved: the parts of the checkpoint by name, as `walk` yields them.
        wanted: those of the model.

    Returns:
        The differences, in the order of the model and then of the checkpoint; none when it fits.
    """
    found: list[Difference] = []
    for names in {**wanted, **saved}:
        old, new = saved.get(names), wanted.get(names)
        if old != new:
            found.append(Difference(_kind(old, new), names, old or "-", new or "-"))
    return found


def table(found: list[Difference], saved: str = "saved", wanted: str = "model") -> str:
    """The differences as aligned rows: what, where, and the two sides, with these titles."""
    rows = [("", "array", saved, wanted)]
    rows += [(d.kind, "/".join(d.names) or "(top)", d.saved, d.wanted) for d in found[:_MOST_ROWS]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(found) > _MOST_ROWS:
        lines.append(f"... and {len(found) - _MOST_ROWS} more")
    return "\n".join("  " + line for line in lines)


def _kind(saved: str | None, wanted: str | None) -> str:
    if saved is None:
        return "missing"
    if wanted is None:
        return "unexpected"
    if not (is_array(saved) and is_array(wanted)):
        return "kind"
    (saved_dtype, _, saved_shape), (dtype, _, shape) = saved.partition("["), wanted.partition("[")
    differing = [
        name
        for name, differs in (("shape", saved_shape != shape), ("dtype", saved_dtype != dtype))
        if differs
    ]
    return ", ".join(differing)
