"""The numbers that examples end with are what they say, by hand."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.models._adapter import adapt
from boltax.models._view import ModelView

FOLDER = Path(__file__).parent.parent / "examples"
KEY = jax.random.key(1)


def names_of(example, *packages):
    for package in packages:
        pytest.importorskip(package)
    return runpy.run_path(str(FOLDER / f"{example}.py"))


def view_of(model, variables, *, train=False):
    return ModelView(adapt(model, {}), variables, KEY, train=train)


def shaken(variables, scale):
    """Variables that are nowhere zero."""
    leaves, form = jax.tree.flatten(variables)
    keys = jax.random.split(KEY, len(leaves))
    new = [x + scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(form, new)


def test_bits_of_the_flow_are_those_of_its_jacobian_and_it_runs_back():
    names = names_of("normalizing_flow", "matplotlib", "sklearn")
    flow = names["Flow"](width=8, layers=2)
    image = np.random.default_rng(0).integers(0, 17, (1, 64)).astype(np.float32)
    variables = shaken(jax.jit(lambda x: flow.init(KEY, x, train=False))(image / 17), 0.2)
    view = view_of(flow, variables)
    losses, metrics = names["Density"].loss_function(None, view, image, False)
    spread = jax.random.uniform(view_of(flow, variables).rng("spread"), image.shape)
    values = (image + spread) / 17

    def of_one(x):
        return flow.apply(variables, x[None], train=False)[0][0]

    noise, jacobian = np.asarray(of_one(values[0])), np.asarray(jax.jacfwd(of_one)(values[0]))
    _, log_det = np.linalg.slogdet(jacobian.astype(np.float64))
    log_normal = -0.5 * (noise**2).sum() - 32 * np.log(2 * np.pi)
    # A place of 1/17 holds this density times 17**-64.
    bits = -(log_normal + log_det - 64 * np.log(17)) / (64 * np.log(2))
    np.testing.assert_allclose(metrics["bits"], [bits], rtol=1e-4)
    np.testing.assert_allclose(losses, [bits * 64 * np.log(2)], rtol=1e-4)
    stages = flow.apply(variables, noise[None], method="draw")
    np.testing.assert_allclose(stages[-1], values, rtol=1e-3, atol=1e-4)


def test_bits_of_the_autoencoder_are_of_a_distribution_and_its_closer_bound_is_an_average():
    names = names_of("vae", "matplotlib", "scipy", "sklearn")
    values = np.arange(17, dtype=np.float32)
    logs = [names["log_of_images"](values[:, None], 3.7, width) for width in (0.4, 2.0, 30.0)]
    np.testing.assert_allclose(np.exp(logs).sum(1), 1.0, atol=5e-5)
    model = names["VAE"](width=8)
    images = np.random.default_rng(0).integers(0, 17, (3, 64)).astype(np.float32)
    noise = np.zeros((3, 2), np.float32)
    variables = shaken(jax.jit(lambda x: model.init(KEY, x, noise))(images), 0.1)
    trainer = type("Trainer", (), {"model": model})
    _, metrics = names["Variational"].loss_function(trainer, view_of(model, variables), images, 0)
    noise = jax.random.normal(view_of(model, variables).rng("codes"), (3, 2))
    mean, log_std, places, widths = (np.asarray(x) for x in model.apply(variables, images, noise))
    std = np.exp(log_std)
    kl = 0.5 * (std**2 + mean**2 - 1 - np.log(std**2)).sum(1)

    def at_most(x):
        return 0.5 + 0.5 * np.tanh(0.5 * (x - places) / widths)

    upper = np.where(images == 16, 1.0, at_most(images + 0.5))
    lower = np.where(images == 0, 0.0, at_most(images - 0.5))
    bits = (kl - np.log(upper - lower + 1e-6).sum(1)) / (64 * np.log(2))
    np.testing.assert_allclose(metrics["bits"], bits, rtol=1e-3)
    closer = names["Variational"].predict_function(trainer, view_of(model, variables), images)
    assert (-closer / (64 * np.log(2)) < bits + 0.05).all()


def test_the_mixture_and_what_its_intervals_hold():
    names = names_of("ensemble", "matplotlib", "scipy", "sklearn")
    means, stds, y = np.array([[0.0, 1.0], [2.0, 1.0]]), np.ones((2, 2)), np.array([0.0, 3.0])
    losses, places = names["score"](means, stds, y)

    def density(x):
        return np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)

    np.testing.assert_allclose(losses[0], -np.log((density(0) + density(2)) / 2))
    np.testing.assert_allclose(losses[1], -np.log(density(2)))
    np.testing.assert_allclose(places, [(0.5 + 0.02275013) / 2, 0.97724987], rtol=1e-6)
    # in the central interval of 50 % lie places from 0.25 to 0.75
    held = names["covered"](np.array([0.26, 0.74, 0.1, 0.5]), np.array([0.5, 0.9, 0.0]))
    np.testing.assert_array_equal(held, [0.75, 1.0, 0.25])


def test_the_exact_wave_solves_the_equation():
    exact = names_of("pinn", "matplotlib")["exact"]
    x, t, h = np.array([-0.7, -0.2, 0.4, 0.9]), np.array([0.2, 0.3, 0.25, 0.9]), 1e-4
    u_t = (exact(x, t + h) - exact(x, t - h)) / (2 * h)
    u_x = (exact(x + h, t) - exact(x - h, t)) / (2 * h)
    u_xx = (exact(x + h, t) - 2 * exact(x, t) + exact(x - h, t)) / h**2
    np.testing.assert_allclose(u_t + exact(x, t) * u_x, 0.01 / np.pi * u_xx, atol=1e-4)
    np.testing.assert_allclose(exact(x, 0 * t + 1e-9), -np.sin(np.pi * x), atol=1e-6)


def test_advantages_are_those_of_a_plain_loop():
    names = names_of("actor_critic", "matplotlib")
    values = np.array([[3.0, 2.0, 5.0, 1.0], [1.0, 4.0, 2.0, 3.0]], np.float32)
    stands = np.array([[True, True, False, False], [True] * 4])
    expected = np.zeros((2, 4))
    for row in range(2):
        advantage = 0.0
        for time in reversed(range(4)):
            after = values[row, min(time + 1, 3)] if stands[row, time] else 0.0
            surprise = 1 + 0.99 * after - values[row, time]
            advantage = surprise + (0.99 * 0.95 * advantage if stands[row, time] else 0.0)
            expected[row, time] = advantage
    found = names["advantages_of"](jnp.asarray(values), jnp.asarray(stands))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_pole_moves_as_its_equations_say():
    move = names_of("actor_critic", "matplotlib")["move"]
    # mass of the cart 1, of the pole 0.1, half of its length 0.5, a push of 10
    speed, angle, turning = 0.3, 0.1, -0.5
    # Both accelerations follow from two linear equations: Newton's for all, and for the pole.
    sine, cosine = np.sin(angle), np.cos(angle)
    matrix = [[1.1, 0.05 * cosine], [0.05 * cosine, 4 / 3 * 0.1 * 0.25]]
    right = [-10 + 0.05 * turning**2 * sine, 0.1 * 9.8 * 0.5 * sine]
    linear, bend = np.linalg.solve(matrix, right)
    new = move(jnp.asarray([1.0, speed, angle, turning]), 0.0)
    expected = [1 + 0.02 * speed, speed + 0.02 * linear, angle + 0.02 * turning]
    np.testing.assert_allclose(new, [*expected, turning + 0.02 * bend], rtol=1e-5)


def test_the_contrastive_loss_is_that_of_each_view_among_all_others():
    names = names_of("simclr", "matplotlib", "sklearn")
    codes = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

    class Model:
        def rng(self, name):
            return KEY

        def __call__(self, views):
            return None, jnp.asarray(codes)

    images = np.zeros((3, 8, 8, 1), np.float32)
    losses, metrics = names["SimCLR"].loss_function(None, Model(), images, True)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    expected, found = np.zeros(6), np.zeros(6)
    for one in range(6):
        partner, others = (one + 3) % 6, [other for other in range(6) if other != one]
        scores = {other: unit[one] @ unit[other] / 0.2 for other in others}
        expected[one] = np.log(sum(np.exp(list(scores.values())))) - scores[partner]
        found[one] = max(scores, key=scores.get) == partner
    np.testing.assert_allclose(losses, (expected[:3] + expected[3:]) / 2, rtol=1e-4)
    np.testing.assert_allclose(metrics["found"], (found[:3] + found[3:]) / 2)


def test_buckets_hold_each_text_once_and_go_on_where_they_were():
    names = names_of("ragged_text", "matplotlib")
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ab c"), size)) for size in rng.integers(16, 145, 60)]
    buckets = names["Buckets"](texts, list(range(60)), batch_size=1)
    whole = list(buckets.epoch(2))
    assert sorted(int(batch["label"][0]) for batch, _ in whole) == list(range(60))
    for batch, _ in whole:
        row, text = batch["text"][0], texts[batch["label"][0]]
        assert "".join(chr(code + 31) for code in row if code) == text
        assert len(row) == min(length for length in names["LENGTHS"] if length >= len(text))
    rest = list(buckets.epoch(2, whole[24][1]))
    assert [cursor for _, cursor in rest] == [cursor for _, cursor in whole[25:]]
    for (one, _), (other, _) in zip(rest, whole[25:], strict=True):
        np.testing.assert_array_equal(one["text"], other["text"])
    assert len(buckets.parts) == len(names["LENGTHS"])
    assert names["Buckets"](texts, list(range(60)), batch_size=4).num_batches == sum(
        len(part["label"]) // 4 for part in buckets.parts
    )
