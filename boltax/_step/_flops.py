"""Counts the floating point operations of a function from its trace, and knows what devices can do.

    flops_of(lambda x, w: x @ w, x, w)        # 2 * m * n * k

XLA's own analysis of a program counts the body of a loop once, so it is far too low for layers in a
`lax.scan`. Here loops are walked as often as they run. Traces only: nothing is compiled or run.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.extend.core import Literal

from boltax._base._types import Number, PyTree

Jaxpr: TypeAlias = Any
"""A program as JAX has traced it; its classes differ between versions of JAX."""

Equation: TypeAlias = Any
"""An equation of such a program."""

Variable: TypeAlias = Any
"""A variable or a literal of such a program."""

PEAKS: Mapping[str, float] = {
    "V100": 125e12,
    "V100-PCIE": 112e12,
    "T4": 65e12,
    "A10": 125e12,
    "A30": 165e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
"""Floating point operations in a second, by a part of ``device.device_kind``.

The vendor's figure for dense matrices in half precision (bfloat16, or float16 where there is no
bfloat16), added up in float32; without the doubling that vendors quote for sparse ones. Of a TPU v2
or v3 it is that of one core, which is what JAX calls a device.
"""
# A part of a card, or one that runs at other clocks than its name says.
_NOT_WHOLE = re.compile(r"\b(MIG|Laptop|Max-Q|RTX 3090 Ti|RTX 4090 D|TPU v4 lite)\b", re.IGNORECASE)


def peak_of(device: Any) -> float | None:
    """The peak of a device in operations per second, as `PEAKS` has it; None when unknown.

    Args:
        device: a `jax.Device`.

    Example:
        >>> from types import SimpleNamespace
        >>> peak_of(SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3"))
        989000000000000.0
    """
    return _peak_of_kind(device.device_kind)


@lru_cache
def _peak_of_kind(kind: str) -> float | None:
    if _NOT_WHOLE.search(kind):
        return None
    found = [name for name in PEAKS if re.search(rf"\b{name}\b", kind, re.IGNORECASE)]
    return PEAKS[max(found, key=len)] if found else None


@dataclass(frozen=True)
class Flops:
    """Operations that were counted.

    Attributes:
        total: floating point operations.
        open_loops: loops with operations to count whose number of rounds only the run will show.
            They count as one round, so the total is a lower bound when there are any.
    """

    total: int = 0
    open_loops: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.total + other.total, self.open_loops + other.open_loops)

    def times(self, count: int) -> "Flops":
        """The count of so many rounds; the loops within are the same ones each time."""
        return Flops(self.total * count, self.open_loops if count else 0)


def flops_of(function: Callable[..., Any], *args: PyTree) -> int:
    """The floating point operations of a function's matrix products and convolutions.

    See `count_flops`, which also tells whether the number is exact.

    Args:
        function: any function that JAX can trace, compiled or not.
        *args: its arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`.

    Example:
        >>> import jax.numpy as jnp
        >>> flops_of(lambda x, w: jnp.tanh(x @ w), jnp.ones((32, 64)), jnp.ones((64, 10)))
        40960
    """
    return count_flops(function, *args).total


def count_flops(function: Callable[..., Any], *args: PyTree) -> Flops:
    """The floating point operations of a function, and whether a loop of unknown length is in it.

    A multiplication with its addition counts as two, a complex one as eight. Only matrix products
    and convolutions count: what padding or dilation makes zero does not, nor does what goes element
    by element. What `jax.checkpoint` computes a second time counts twice. Of the branches of a
    `lax.cond` the one with most operations counts, a `lax.scan` as often as it runs, and so does a
    `lax.while_loop` that counts up by constants.

    Args:
        function: any function that JAX can trace, compiled or not.
        *args: its arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`.
    """
    return flops_in(jax.make_jaxpr(function)(*args))


def flops_in(jaxpr: Jaxpr) -> Flops:
    """The operations of a program that JAX has traced, see `count_flops`."""
    return sum((_in_equation(equation) for equation in jaxpr.eqns), Flops())


def value_bytes(jaxpr: Jaxpr) -> int:
    """Bytes of all values that a program which JAX has traced makes, those of a loop's body once.

    Example:
        >>> value_bytes(jax.make_jaxpr(lambda x: x + x)(np.zeros(8, np.float32)).jaxpr)
        32
    """
    return sum(
        sum(value_bytes(inner) for inner in inners)
        if (inners := list(_jaxprs(equation.params)))
        else sum(_bytes_of(variable.aval) for variable in equation.outvars)
        for equation in jaxpr.eqns
    )


def _bytes_of(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ())) * getattr(
        getattr(aval, "dtype", None), "itemsize", 0
    )


def has_primitive(jaxpr: Jaxpr, name: str) -> bool:
    """Whether a primitive of this name is anywhere in a program that JAX has traced."""
    return any(
        equation.primitive.name == name
        or any(has_primitive(inner, name) for inner in _jaxprs(equation.params))
        for equation in jaxpr.eqns
    )


def _in_equation(equation: Equation) -> Flops:
    name, params = equation.primitive.name, equation.params
    if name in _COUNTED:
        kind = np.dtype(equation.outvars[0].aval.dtype).kind
        return Flops(_COUNTED[name](equation) * (8 if kind == "c" else 2))
    if name == "cond":
        return max(map(flops_in, params["branches"]), key=lambda flops: flops.total)
    if name == "while":
        return _in_while(equation)
    return sum(map(flops_in, _jaxprs(params)), Flops()).times(_rounds(name, params))


def _jaxprs(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """The programs within a primitive, whatever it calls them."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(part, "eqns"):
                yield part


def _rounds(name: str, params: Mapping[str, Any]) -> int:
    """How often a primitive runs the programs within it."""
    if name == "scan":
        return int(params["length"])
    if name == "pallas_call":
        return math.prod(n for n in params["grid_mapping"].grid if isinstance(n, int))
    if name == "shard_map":  # the program of one device
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return 1


def _in_while(equation: Equation) -> Flops:
    once = sum(map(flops_in, _jaxprs(equation.params)), Flops())
    if not once.total:
        return once
    rounds = _counted_rounds(equation)
    return once + Flops(0, 1) if rounds is None else once.times(rounds)


def _counted_rounds(equation: Equation) -> int | None:
    """The rounds of a loop ``while i < end: i += step`` with constants; None for any other.

    The condition's own operations count as often as the body's: they are next to nothing.
    """
    params = equation.params
    condition, body = params["cond_jaxpr"], params["body_jaxpr"]
    if [e.primitive.name for e in condition.eqns] != ["lt"]:
        return None
    inner, outer = (getattr(jaxpr, "jaxpr", jaxpr) for jaxpr in (condition, body))
    given, skipped = equation.invars, params["cond_nconsts"]
    before = outer.invars[params["body_nconsts"] :]
    starts = given[skipped + params["body_nconsts"] :]

    def place(variable: Variable) -> int:
        """The place among what the loop carries; negative for a constant of the condition."""
        return inner.invars.index(variable) - skipped

    def constant(variable: Variable) -> Number:
        if isinstance(variable, Literal):
            return variable.val
        at = place(variable)
        if at >= 0 and outer.outvars[at] is not before[at]:
            return None
        value = starts[at] if at >= 0 else given[at + skipped]
        return value.val if isinstance(value, Literal) else None

    counter, end = condition.eqns[0].invars
    if isinstance(counter, Literal) or (at := place(counter)) < 0:
        return None
    step = _step_of(outer, before[at], outer.outvars[at])
    start, limit = starts[at], constant(end)
    if step is None or limit is None or not isinstance(start, Literal):
        return None
    return max(0, math.ceil((limit - start.val) / step))


def _step_of(body: Jaxpr, before: Variable, after: Variable) -> Number:
    """The positive constant by which a round adds to a variable; None when it does not."""
    for equation in body.eqns:
        if equation.primitive.name == "add" and equation.outvars[0] is after:
            left, right = equation.invars
            if left is before and isinstance(right, Literal) and right.val > 0:
                return right.val
    return None


def _dot_general(equation: Equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _ragged_dot_general(equation: Equation) -> int:
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    left, _, sizes = (variable.aval.shape for variable in equation.invars[:3])
    products = math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    # Groups that cut what is summed over share it; others have all of it.
    is_shared = set(numbers.lhs_ragged_dimensions) <= set(contracted)
    return products // sizes[-1] if is_shared else products


def _conv_general_dilated(equation: Equation) -> int:
    params, out = equation.params, equation.outvars[0].aval.shape
    left, right = (variable.aval.shape for variable in equation.invars)
    numbers = params["dimension_numbers"]
    places = zip(
        (left[i] for i in numbers.lhs_spec[2:]),
        (right[i] for i in numbers.rhs_spec[2:]),
        (out[i] for i in numbers.out_spec[2:]),
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    channels = out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    return out[numbers.out_spec[0]] * channels * math.prod(_products(*place) for place in places)


@lru_cache(maxsize=1024)
def _products(
    size: int,
    window: int,
    out: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    window_dilation: int,
) -> int:
    """How often, along one axis, the window meets an element that neither pads nor dilates."""
    lengths, steps = (out, window), (stride, window_dilation)
    short, long = (0, 1) if out < window else (1, 0)  # gradients have long windows
    places = np.arange(lengths[long]) * steps[long] - padding[0]
    count = 0
    for offset in range(0, lengths[short] * steps[short], steps[short]):
        at = places + offset
        is_met = (at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)
        count += int(np.count_nonzero(is_met))
    return count


_COUNTED: Mapping[str, Callable[[Equation], int]] = {
    "dot_general": _dot_general,
    "ragged_dot_general": _ragged_dot_general,
    "conv_general_dilated": _conv_general_dilated,
}
"""The multiplications of a primitive, each with an addition."""
