"""PyTorch loaders beyond the table in test_source.py: order, samplers, and errors of workers."""

import os
import subprocess
import sys

import numpy as np
import pytest

from boltax.data._source import as_source

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset  # noqa: E402

DATASET = TensorDataset(torch.arange(10))


def values(source, epoch):
    return [int(value) for (batch,), _ in source.epoch(epoch) for value in batch]


def test_order_is_that_of_the_generator():
    options = {"batch_size": 4, "shuffle": True}
    loader = DataLoader(DATASET, generator=torch.Generator().manual_seed(1), **options)
    same = DataLoader(DATASET, generator=torch.Generator().manual_seed(1), **options)
    source = as_source(loader)
    for epoch in (1, 2):
        assert values(source, epoch) == [int(value) for (batch,) in same for value in batch]


def test_distributed_sampler_is_told_the_epoch():
    sampler = DistributedSampler(DATASET, num_replicas=1, rank=0, shuffle=True)
    source = as_source(DataLoader(DATASET, batch_size=4, sampler=sampler))
    first, second = values(source, 1), values(source, 2)
    assert first != second
    assert values(source, 1) == first
    assert sorted(first) == list(range(10))


def test_batches_of_workers_and_stacked_ones_are_new_memory():
    assert as_source(DataLoader(DATASET)).owns_batches
    assert as_source(DataLoader(DATASET, num_workers=1)).owns_batches
    assert not as_source(DataLoader(DATASET, batch_size=None)).owns_batches
    assert not as_source(DataLoader(DATASET, collate_fn=lambda batch: batch[0])).owns_batches


def test_exception_in_a_worker_keeps_its_type():
    examples = [{"x": np.zeros(2)}, {"y": np.zeros(2)}]
    source = as_source(DataLoader(examples, batch_size=2, num_workers=1))
    with pytest.raises(KeyError, match="worker process 0") as caught:
        next(source.epoch(1))
    assert "raised in train_loader (epoch 1, batch 1)" in caught.value.__notes__


SCRIPT = """
import jax, numpy as np
from torch.utils.data import DataLoader
from boltax.data._source import as_source

class Squares:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        return np.float32(index ** 2)

def main():
    jax.block_until_ready(jax.numpy.ones(3))  # JAX's threads are there
    source = as_source(DataLoader(Squares(), batch_size=4, num_workers=2))
    print([batch.tolist() for epoch in (1, 2) for batch, _ in source.epoch(epoch)])
"""
GUARDED = SCRIPT + "\nif __name__ == '__main__':\n    main()\n"


def python(*arguments):
    """Runs Python, and kills it where it hangs."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
        check=False,
    )


@pytest.mark.slow
def test_workers_of_a_script_read_its_own_data_set(tmp_path):
    (tmp_path / "guarded.py").write_text(GUARDED)
    result = python("guarded.py")
    assert result.returncode == 0, result.stderr
    epoch = "[0.0, 1.0, 4.0, 9.0], [16.0, 25.0, 36.0, 49.0]"
    assert result.stdout.strip() == f"[{epoch}, {epoch}]"


@pytest.mark.slow
def test_script_without_main_guard_ends_and_says_what_to_write(tmp_path):
    (tmp_path / "unguarded.py").write_text(SCRIPT + "\nmain()\n")
    result = python("unguarded.py")
    assert result.returncode != 0
    assert "exited unexpectedly" in result.stderr
    assert 'put what it does under `if __name__ == "__main__":`' in result.stderr


def test_data_set_of_an_interactive_session_is_refused():
    result = python("-c", GUARDED)
    assert result.returncode != 0
    assert "Squares is defined in a notebook or interactive session" in result.stderr
    assert "num_workers=0" in result.stderr
