"""What a preflight found, as a table for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boltax._inspect._preflight import Preflight


def table(found: "Preflight") -> str:
    """The whole of it as text, in columns."""
    named = {
        "parameters": found.parameters,
        "other collections": found.collections,
        "optimizer state": found.optimizer,
        "batch": found.batch,
    }
    rest = found.peak - found.temporaries - sum(arrays.nbytes for arrays in named.values())
    rows = [(name, f"{arrays.count:,}", arrays.nbytes) for name, arrays in named.items()]
    rows += [
        ("activations and workspace", "", found.temporaries),
        ("random keys, metrics, counters", "", max(rest, 0)),
        ("peak of a step", "", found.peak),
        ("batches that wait, at most", "", found.ahead),
        ("copy of the state for saving", "", found.saving),
        ("needed", "", found.needed),
    ]
    shown = [("", "numbers", "memory"), *((a, b, shown_bytes(c)) for a, b, c in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in shown]
    head = f"{found.trainer}, batches of {found.batch_size:,}, on {found.device}"
    return "\n".join([head, "", *lines, "", _verdict(found), *_operations(found)])


def _verdict(found: "Preflight") -> str:
    if found.memory is None:
        return "fits: unknown, as the device does not tell its memory"
    share = 100 * found.needed / max(found.memory, 1)
    whole = f"{share:.2g} % of {shown_bytes(found.memory)}"
    return f"fits: {whole}" if found.fits else f"DOES NOT FIT: {whole}"


def _operations(found: "Preflight") -> list[str]:
    least = "at least " if found.has_open_loops else ""
    whole, each = scaled(found.flops), scaled(found.flops_per_example)
    lines = [f"a step: {least}{whole}FLOP in products and convolutions, {each}FLOP an example"]
    if found.has_open_loops:
        lines.append("  loops whose length only the run will show count as one round")
    if found.peak_flops:
        fastest = 1e3 * found.flops / found.peak_flops
        peak = f"{scaled(found.peak_flops)}FLOP/s in half precision"
        lines.append(f"  {fastest:.3g} ms at the device's peak of {peak}")
    return [*lines, f"compiled in {found.compile_seconds:.1f} s"]


def shown_bytes(number: float) -> str:
    """Bytes for people.

    Example:
        >>> shown_bytes(12_300_000)
        '12.3 MB'
    """
    return f"{scaled(number)}B"


def scaled(number: float) -> str:
    """Three digits and a prefix: ``12.3 G``."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
