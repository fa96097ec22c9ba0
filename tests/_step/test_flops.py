"""Operations are counted like on paper, and like XLA does where that has no loops to miss."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from boltax._step._flops import PEAKS, count_flops, flops_of, peak_of

X = jax.ShapeDtypeStruct((32, 64), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((16, 16), jnp.float32)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def by_xla(function, *args):
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def mlp(params, x):
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


def test_an_mlp_and_its_gradients_are_counted_as_on_paper():
    params = [shape(64, 128), shape(128, 10)]
    forward = 2 * 32 * (64 * 128 + 128 * 10)
    # Backward: twice that, without the gradient with respect to the inputs.
    backward = 2 * forward - 2 * 32 * 64 * 128
    assert flops_of(mlp, params, X) == forward
    assert flops_of(jax.grad(lambda p, x: mlp(p, x).sum()), params, X) == forward + backward


def test_attention_is_counted_as_on_paper():
    batch, length, heads, size = 2, 128, 4, 16
    q = shape(batch, length, heads, size)
    products = 2 * (2 * batch * heads * length * length * size)
    assert flops_of(jax.nn.dot_product_attention, q, q, q) == products


def convolution(x, w, **options):
    return lax.conv_general_dilated(
        x, w, **{"window_strides": (1, 1), "padding": "VALID", **options},
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def test_a_convolution_is_counted_as_on_paper():
    assert flops_of(convolution, shape(8, 28, 28, 3), shape(5, 5, 3, 16)) == (
        2 * 8 * 24 * 24 * 16 * 5 * 5 * 3
    )


CONVOLUTIONS = {
    "plain": {},
    "padded": {"padding": "SAME"},
    "strided": {"window_strides": (2, 3), "padding": "SAME"},
    "dilated": {"rhs_dilation": (2, 1), "padding": ((3, 0), (1, 2))},
    "transposed": {"lhs_dilation": (2, 2), "padding": ((2, 2), (1, 1))},
    "grouped": {"feature_group_count": 4, "window_strides": (2, 2)},
    "depthwise": {"feature_group_count": 8, "padding": "SAME"},
    "batch groups": {"batch_group_count": 2},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_and_their_gradients_are_counted_as_by_xla(options):
    x = shape(4, 15, 14, 8)
    w = shape(3, 3, 8 // options.get("feature_group_count", 1), 16)

    def forward(x, w):
        return convolution(x, w, **options)

    def both(x, w, cotangents):
        out, backward = jax.vjp(forward, x, w)
        return out, backward(cotangents)

    cotangents = jax.eval_shape(forward, x, w)
    assert flops_of(forward, x, w) == by_xla(forward, x, w)
    assert flops_of(both, x, w, cotangents) == by_xla(both, x, w, cotangents)


def test_a_network_of_convolutions_is_counted_as_by_xla():
    def net(params, x):
        first, second, last = params
        x = jax.nn.relu(convolution(x, first, window_strides=(2, 2), padding="SAME"))
        x = jax.nn.relu(convolution(x, second, padding="SAME"))
        return (x.reshape(x.shape[0], -1) @ last).sum()

    params = [shape(3, 3, 3, 32), shape(3, 3, 32, 64), shape(16 * 16 * 64, 10)]
    step = jax.grad(net)
    image = shape(8, 32, 32, 3)
    assert flops_of(step, params, image) == pytest.approx(by_xla(step, params, image), rel=0.05)


def layers(params, x):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params)[0]


def test_the_body_of_a_scan_counts_as_often_as_it_runs():
    one, seven = (flops_of(layers, shape(n, 16, 16), SQUARE) for n in (1, 7))
    assert seven == 7 * one == 7 * 2 * 16**3
    assert by_xla(layers, shape(7, 16, 16), SQUARE) < seven / 2  # why this is not left to XLA


def test_what_a_checkpoint_computes_again_counts_again():
    def loss(wrap, w, x):
        return wrap(lambda x: jnp.tanh(jnp.tanh(x @ w) @ w))(x).sum()

    plain, again = (
        flops_of(jax.grad(lambda w, x, wrap=wrap: loss(wrap, w, x)), SQUARE, SQUARE)
        for wrap in (lambda f: f, jax.checkpoint)
    )
    # Two products forward and three backward, and of those forward at least one a second time.
    assert plain == 5 * 2 * 16**3
    assert again in (6 * 2 * 16**3, 7 * 2 * 16**3)


def test_the_largest_branch_counts():
    def either(x):
        return lax.cond(x[0, 0] > 0, lambda x: x, lambda x: x @ x @ x, x)

    assert flops_of(either, SQUARE) == 2 * 2 * 16**3


@pytest.mark.parametrize(
    "loop",
    [
        lambda x: lax.fori_loop(2, 7, lambda _, x: x @ x, x),
        lambda x: lax.fori_loop(2, jnp.int32(7), lambda _, x: x @ x, x),
        lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 2, c[1] @ c[1]), (0, x)),
    ],
    ids=["fori_loop", "fori_loop with an array", "while_loop that counts"],
)
def test_a_loop_of_known_length_counts_as_often_as_it_runs(loop):
    counted = count_flops(jax.jit(loop), SQUARE)
    assert counted.total == 5 * 2 * 16**3
    assert not counted.open_loops


@pytest.mark.parametrize(
    "loop",
    [
        lambda x, n: lax.fori_loop(0, n, lambda _, x: x @ x, x),
        lambda x, n: lax.while_loop(lambda x: x[0, 0] < n, lambda x: x @ x, x),
        lambda x, n: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + n, c[1] @ c[1]), (0, x)),
        lambda x, n: lax.while_loop(
            lambda c: c[0] < c[1], lambda c: (c[0] + 1, c[1] + 1, c[2] @ c[2]), (0, 9, x)
        ),
    ],
    ids=["fori_loop", "condition on data", "step of unknown size", "end that moves"],
)
def test_a_loop_of_unknown_length_counts_once_and_is_told(loop):
    counted = count_flops(loop, SQUARE, 3)
    assert counted.total == 2 * 16**3
    assert counted.open_loops == 1


def test_a_loop_without_products_makes_no_number_uncertain():
    counted = count_flops(lambda x: jax.random.gamma(jax.random.key(0), x), SQUARE)
    assert (counted.total, counted.open_loops) == (0, 0)


def test_derivatives_of_the_users_own_are_counted():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert flops_of(product, SQUARE, SQUARE) == 2 * 16**3
    step = jax.grad(lambda x, w: product(x, w).sum(), argnums=(0, 1))
    assert flops_of(step, SQUARE, SQUARE) == 3 * 2 * 16**3


def test_products_of_experts_count_each_row_once():
    def experts(x, w):
        return lax.ragged_dot(x, w, jnp.array([4, 12])).sum()

    x, w = shape(16, 8), shape(2, 8, 32)
    once = 2 * 16 * 8 * 32
    assert flops_of(experts, x, w) == once
    assert flops_of(jax.grad(experts, argnums=(0, 1)), x, w) == 3 * once


def test_complex_products_count_four_real_ones():
    z = shape(16, 16, dtype=jnp.complex64)
    assert flops_of(lambda z: z @ z, z) == 4 * 2 * 16**3


def test_arrays_are_counted_like_their_shapes():
    x, w = np.ones((32, 64), np.float32), np.ones((64, 10), np.float32)
    assert flops_of(lambda x, w: x @ w, x, w) == 2 * 32 * 64 * 10


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("Tesla V100-PCIE-32GB", 112e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_kind(kind, peak):
    assert peak_of(SimpleNamespace(device_kind=kind)) == peak


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU"]
)
def test_a_device_that_is_not_in_the_table_has_no_peak(kind):
    assert peak_of(SimpleNamespace(device_kind=kind)) is None


def test_every_peak_is_found_by_its_own_name():
    assert all(peak_of(SimpleNamespace(device_kind=kind)) == PEAKS[kind] for kind in PEAKS)
