"""ArrayLoader beside plain fancy indexing, on the arrays of MNIST and on small vectors.

    python benchmarks/array_loader.py

Both read whole shuffled epochs in one process, first one and then the other by turns. The ratio is
the median over the rounds; above 1, ArrayLoader is faster.
"""

import os
import statistics
import time

import numpy as np

from boltax.data import ArrayLoader

ROUNDS = 16
BATCH_SIZE = 128
EXAMPLES = 60_000
PIXELS = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 28, 28), np.uint8)
LABELS = PIXELS[:, 14, 14].astype(np.int32)
CASES = {
    "uint8 [60000, 28, 28]": PIXELS,
    "float32 [60000, 28, 28]": PIXELS.astype(np.float32),
    "float32 [60000, 64]": PIXELS.reshape(EXAMPLES, -1)[:, :64].astype(np.float32),
}


def plain_epoch(arrays, epoch):
    order = np.random.default_rng((0, epoch)).permutation(EXAMPLES)
    for first in range(0, EXAMPLES, BATCH_SIZE):
        indices = order[first : first + BATCH_SIZE]
        yield tuple(array[indices] for array in arrays)


def seconds(batches):
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def measure(arrays, loader, epoch):
    """Seconds of plain indexing and of the loader for one epoch; each is first in every other."""
    if epoch % 2:
        plain = seconds(plain_epoch(arrays, epoch))
        return plain, seconds(loader.epoch(epoch))
    ours = seconds(loader.epoch(epoch))
    return seconds(plain_epoch(arrays, epoch)), ours


def main():
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, batches of {BATCH_SIZE}")
    print(f"{'arrays, with int32 labels':28} {'plain':>12} {'ArrayLoader':>12} {'ratio':>6}")
    for name, images in CASES.items():
        arrays = (images, LABELS)
        loader = ArrayLoader(arrays, BATCH_SIZE, shuffle=True)
        rounds = [measure(arrays, loader, epoch) for epoch in range(1, ROUNDS + 1)]
        plain, ours = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        per_second = [f"{EXAMPLES / t / 1e6:8.2f} M/s" for t in (plain, ours)]
        print(f"{name:28} {per_second[0]:>12} {per_second[1]:>12} {ratio:6.2f}")


if __name__ == "__main__":
    main()
