"""Recognising values of packages that are not imported, and making arrays of them."""

import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from boltax.data._arrays import is_a, is_numeric, to_array


def test_class_is_recognised_by_package_and_name():
    class Tensor:
        __module__ = "torch.special"

    class Named(Tensor):
        __module__ = "tensors"

    assert is_a(Named(), "torch", "Tensor")
    assert not is_a(Named(), "tensorflow", "Tensor")
    assert not is_a(Tensor, "torch", "Tensor")


@pytest.mark.parametrize("leaf", [1, 2.5, True, 1j, np.float32(3), np.arange(3)])
def test_numbers_and_arrays_become_plain_arrays(leaf):
    array = to_array(leaf)
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, leaf)


@pytest.mark.parametrize("leaf", ["text", None, object(), np.ndarray, np.ma.masked_array([1])])
def test_what_has_no_array_form_comes_back(leaf):
    assert to_array(leaf) is leaf


def test_jax_arrays_come_back():
    array = jnp.ones(2)
    assert to_array(array) is array


def test_subclasses_become_plain_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "data", dtype=np.uint8, mode="w+", shape=3)
    assert type(to_array(mapped)) is np.ndarray


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "complex64", "bfloat16"])
def test_numbers_are_numeric(dtype):
    assert is_numeric(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", ["O", "U3", "S3", "datetime64[s]", "longdouble", "i4,f4"])
def test_others_are_not(dtype):
    assert not is_numeric(np.dtype(dtype))


def test_no_framework_is_imported_to_recognise_loaders():
    program = """
        import sys, numpy as np
        from boltax.data import ArrayLoader
        from boltax.data._source import as_source
        for loader in (ArrayLoader(np.zeros(3), 2), [np.zeros(2)], lambda: iter([np.zeros(2)])):
            list(as_source(loader).epoch(1))
        print({"torch", "tensorflow", "grain"} & set(sys.modules))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stdout.strip() == "set()"
