"""What a preflight found, as a value and as a table for people."""

from dataclasses import dataclass, field

from boltax.parallel._collectives import shown as shown_collectives


@dataclass(frozen=True)
class Arrays:
    """The size of a tree of arrays.

    Attributes:
        count: numbers in it.
        nbytes: bytes in it.
    """

    count: int
    nbytes: int


@dataclass(frozen=True)
class Preflight:
    """What training with batches of one size needs. ``print`` it for a table.

    On several devices memory is that of each of them, numbers and operations are those of all.

    Attributes:
        trainer: the name of the trainer.
        batch_size: examples in a batch.
        parameters: the model's parameters.
        collections: its other variables, BatchNorm statistics say.
        optimizer: the optimizer's state.
        batch: one batch.
        temporaries: bytes of activations, gradients and workspace.
        peak: bytes while a step runs: arguments, results that take no argument's memory, and
            temporaries. The old and the new state share their memory and count once.
        ahead: bytes of the batches that wait for their step, at most.
        saving: bytes of the copy of the state that is written to disk while training goes on.
        flops: floating point operations of matrix products and convolutions in a step.
        has_open_loops: whether loops of unknown length counted as one round in `flops`.
        compile_seconds: what it took to trace and compile the step, or to find it in the cache.
        device: the device's kind.
        memory: its bytes, of a CPU those that are available now; None when unknown.
        peak_flops: the operations that the device can do in a second; None when unknown.
        devices: how many share the work.
        collectives: what they send to each other in a step: places in the program, by kind.

    Example:
        >>> found = Preflight(
        ...     "Classifier", 32, Arrays(1000, 4000), Arrays(0, 0), Arrays(2000, 8000),
        ...     Arrays(320, 1280), temporaries=5000, peak=18_300, ahead=2560, saving=12_012,
        ...     flops=192_000, has_open_loops=False, compile_seconds=1.5, device="cpu",
        ...     memory=8_000_000_000, peak_flops=None,
        ... )
        >>> found.needed, found.fits, found.flops_per_example
        (32872, True, 6000.0)
    """

    trainer: str
    batch_size: int
    parameters: Arrays
    collections: Arrays
    optimizer: Arrays
    batch: Arrays
    temporaries: int
    peak: int
    ahead: int
    saving: int
    flops: int
    has_open_loops: bool
    compile_seconds: float
    device: str
    memory: int | None
    peak_flops: float | None
    devices: int = 1
    collectives: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def needed(self) -> int:
        """Bytes that training takes: the peak, batches that wait, and the copy for saving."""
        return self.peak + self.ahead + self.saving

    @property
    def fits(self) -> bool | None:
        """Whether that is no more than the device has; None when nobody knows."""
        return None if self.memory is None else self.needed <= self.memory

    @property
    def flops_per_example(self) -> float:
        """Operations of a step for each example."""
        return self.flops / self.batch_size

    def __str__(self) -> str:
        return table(self)


def table(found: Preflight) -> str:
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
    where = f"{found.devices} x {found.device}; memory is that of each"
    where = where if found.devices > 1 else found.device
    head = f"{found.trainer}, batches of {found.batch_size:,}, on {where}"
    return "\n".join([head, "", *lines, "", _verdict(found), *_operations(found)])


def _verdict(found: Preflight) -> str:
    if found.memory is None:
        return "fits: unknown, as the device does not tell its memory"
    share = 100 * found.needed / max(found.memory, 1)
    whole = f"{share:.2g} % of {shown_bytes(found.memory)}"
    return f"fits: {whole}" if found.fits else f"DOES NOT FIT: {whole}"


def _operations(found: Preflight) -> list[str]:
    least = "at least " if found.has_open_loops else ""
    whole, each = scaled(found.flops), scaled(found.flops_per_example)
    lines = [f"a step: {least}{whole}FLOP in products and convolutions, {each}FLOP an example"]
    if found.has_open_loops:
        lines.append("  loops whose length only the run will show count as one round")
    if found.devices > 1:
        lines.append(f"collectives in a step: {shown_collectives(found.collectives)}")
    if found.peak_flops:
        fastest = 1e3 * found.flops / (found.peak_flops * found.devices)
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
