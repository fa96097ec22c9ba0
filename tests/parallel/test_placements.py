"""The contract of placements: each passes what one device passes, on two devices of this process.

A new placement is a row. What needs more devices is in `test_eight_devices.py`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import boltax as bx
from boltax.checkpoint._report import describe_checkpoint
from boltax.errors import ConfigurationError, NonFiniteError, TrainingError
from boltax.parallel._table import bytes_on_each
from dummies import Classifier, Mlp, classes, loader, to_host
from learned_weights import write_all

PLACEMENTS: dict[str, Any] = {
    "data": "data",
    "fsdp": bx.Parallel(fsdp="data", min_shard_bytes=0),
    "data x model": bx.Parallel(
        mesh={"data": 1, "model": 2},
        rules=[("Dense_0/kernel$", (None, "model")), ("Dense_1/kernel$", ("model",))],
    ),
}
DIVIDED = {"data": P(), "fsdp": P(None, "data"), "data x model": P(None, "model")}
EXAMPLES, BATCH = 39, 16
"""Two batches of 16, and one of 7, which no two devices share evenly."""
CLOSE = 3e-6
"""Parameters after six steps of SGD, whose BatchNorm sees down to three examples at a time."""


class Trained(NamedTuple):
    trainer: Any
    metrics: dict[str, Any]
    leaves: list[np.ndarray]


def trainer(parallel: Any, folder: str, **loop: Any) -> Classifier:
    return Classifier(
        Mlp,
        {},
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "constant"},
        exmp_input=classes(3),
        logger_params={"log_dir": folder, "logger_type": "none"},
        enable_progress_bar=False,
        loop=bx.LoopOptions(log_every=2, sanity_check=False, **loop),
        parallel=parallel,
    )


def train(one: Classifier, **options: Any) -> Trained:
    data = loader(EXAMPLES, BATCH, shuffle=True)
    with jax.transfer_guard("disallow"):
        metrics = one.train_model(data, loader(21, 8), num_epochs=2, **options)
    return Trained(one, metrics, leaves_of(one))


def leaves_of(one: Classifier) -> list[np.ndarray]:
    state = one.state
    return jax.tree.leaves(to_host((state.params, state.opt_state, state.batch_stats, state.ema)))


def furthest(one: Classifier, other: Classifier) -> float:
    kept = (
        {"params": o.state.params, "ema": o.state.ema, "rest": o.state.batch_stats}
        for o in (one, other)
    )
    pairs = zip(*map(jax.tree.leaves, map(to_host, kept)), strict=True)
    return max(float(np.max(np.abs(a.astype(float) - b.astype(float)))) for a, b in pairs)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Trained:
    """The run on one device."""
    folder = str(tmp_path_factory.mktemp("alone"))
    return train(trainer(None, folder, ema=0.9, microbatches=2, steps_per_execution=1))


@pytest.fixture(scope="module", params=PLACEMENTS)
def spread(request, tmp_path_factory) -> tuple[str, Trained]:
    """The same run with a placement, step by step."""
    folder = str(tmp_path_factory.mktemp("spread"))
    one = trainer(PLACEMENTS[request.param], folder, ema=0.9, microbatches=2, steps_per_execution=1)
    return request.param, train(one)


def test_the_run_equals_that_of_one_device(alone, spread):
    _, run = spread
    assert furthest(alone.trainer, run.trainer) < CLOSE
    assert run.metrics["train/loss"] == pytest.approx(alone.metrics["train/loss"], abs=1e-6)
    assert run.metrics["val/loss"] == pytest.approx(alone.metrics["val/loss"], abs=1e-6)
    assert run.metrics["val/acc"] == alone.metrics["val/acc"]  # of 21 examples, in batches of 8


def test_each_array_lies_as_it_was_said(spread):
    name, run = spread
    state = run.trainer.state
    kernel, momentum = state.params["Dense_0"]["kernel"], state.opt_state
    lies = [leaf.sharding.spec for leaf in jax.tree.leaves(momentum) if leaf.shape == kernel.shape]
    assert kernel.sharding.spec == DIVIDED[name]
    assert lies == [DIVIDED[name]]
    assert (
        run.trainer.state.ema.variables["params"]["Dense_0"]["kernel"].sharding == kernel.sharding
    )
    is_divided = DIVIDED[name] != P()
    assert bytes_on_each(kernel) == kernel.nbytes // (2 if is_divided else 1)


def test_the_memory_of_the_whole_state_is_reused(spread):
    _, run = spread
    (program,) = [p for p in run.trainer._made.steps.train.programs.values() if p._known]
    compiled = next(iter(program._known.values()))
    compiled = compiled.result() if hasattr(compiled, "result") else compiled
    state = bytes_on_each(jax.tree.leaves(run.trainer.state))
    assert compiled.memory_analysis().alias_size_in_bytes >= state


def test_fused_and_resumed_equals_unfused_and_uninterrupted(spread, tmp_path):
    name, run = spread
    options = {"ema": 0.9, "microbatches": 2, "steps_per_execution": 2}
    train(trainer(PLACEMENTS[name], str(tmp_path), **options), max_steps=4)
    resumed = train(trainer(PLACEMENTS[name], str(tmp_path), **options), resume=True)
    for left, right in zip(run.leaves, resumed.leaves, strict=True):
        np.testing.assert_array_equal(left, right)
    assert resumed.metrics["train/loss"] == run.metrics["train/loss"]


def test_checkpoints_restore_on_other_devices(spread, caplog):
    name, run = spread
    alone = Classifier.load_from_checkpoint(run.trainer.log_dir, parallel=None)
    spread_again = Classifier.load_from_checkpoint(
        run.trainer.log_dir, parallel=PLACEMENTS["fsdp" if name == "data" else "data"]
    )
    data = loader(21, 8)
    assert all(
        leaf.sharding.device_set == {jax.devices()[0]}
        for leaf in jax.tree.leaves(alone.state.params)
    )
    one, two = (to_host(each.state.params) for each in (alone, spread_again))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    np.testing.assert_allclose(
        alone.predict_model(data), spread_again.predict_model(data), atol=1e-6
    )


def test_a_run_goes_on_elsewhere_with_the_same_examples(alone, spread, tmp_path, caplog):
    name, _ = spread
    options = {"ema": 0.9, "microbatches": 2, "steps_per_execution": 1}
    train(trainer(PLACEMENTS[name], str(tmp_path), **options), max_steps=4)
    gone_on = train(trainer(None, str(tmp_path), **options), resume=True)
    assert furthest(alone.trainer, gone_on.trainer) < CLOSE
    assert "parallel: " in caplog.text
    assert "the last bits of sums may differ" in caplog.text


def test_predictions_come_in_order(alone, spread):
    _, run = spread
    data = loader(21, 8)
    with jax.transfer_guard("disallow"):
        found = run.trainer.predict_model(data)
    np.testing.assert_allclose(found, alone.trainer.predict_model(data), atol=1e-5)


class Named(nn.Module):
    """Names its axes, of one layer in its own words, of the other in those of the mesh."""

    @nn.compact
    def __call__(self, x):
        init = nn.initializers.lecun_normal()
        up, down = nn.with_logical_partitioning, nn.with_partitioning
        x = nn.relu(nn.Dense(8, kernel_init=up(init, ("embed", "mlp")), name="up")(x))
        return nn.Dense(3, kernel_init=down(init, ("model", None)), name="down")(x)


class NamedNnx(nnx.Module):
    """The same in NNX."""

    def __init__(self, *, rngs: nnx.Rngs):
        init, named = nnx.initializers.lecun_normal(), nnx.with_partitioning
        self.up = nnx.Linear(4, 8, kernel_init=named(init, ("embed", "mlp")), rngs=rngs)
        self.down = nnx.Linear(8, 3, kernel_init=named(init, ("model", None)), rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.relu(self.up(x)))


@pytest.mark.parametrize("model", [Named, NamedNnx])
def test_the_names_that_a_model_gives_its_axes_are_followed(tmp_path, model):
    axes = {"embed": None, "mlp": "model"}
    kernels = []
    for parallel in (None, bx.Parallel(mesh={"data": 1, "model": 2}, logical_axes=axes)):
        one = Classifier(
            model,
            {},
            {"optimizer": "sgd", "lr": 0.1},
            exmp_input=classes(3),
            logger_params={"log_dir": str(tmp_path / str(parallel is None)), "logger_type": "none"},
            enable_progress_bar=False,
            checkpoint=bx.CheckpointOptions(keep_last=0),
            parallel=parallel,
        )
        one.train_model(loader(16, 16), num_epochs=1)
        kernels.append([one.state.params[name]["kernel"] for name in ("up", "down")])
    assert [kernel.sharding.spec for kernel in kernels[1]] == [P(None, "model"), P("model", None)]
    for alone, spread in zip(*kernels, strict=True):
        np.testing.assert_allclose(alone, spread, atol=1e-6)


@pytest.fixture
def pair(tmp_path):
    """A trainer on two devices that has not trained."""
    return trainer("fsdp", str(tmp_path), on_nonfinite="stop")


def test_data_on_the_devices_train_alike(alone, tmp_path):
    one = trainer("data", str(tmp_path), ema=0.9, microbatches=2)
    data = loader(EXAMPLES, BATCH, shuffle=True, device_resident=True)
    with jax.transfer_guard("disallow"):
        one.train_model(data, loader(21, 8, device_resident=True), num_epochs=2)
    assert furthest(alone.trainer, one) < CLOSE


def test_a_step_that_is_not_finite_is_named(pair):
    inputs, labels = classes(EXAMPLES)
    inputs[20] = np.nan
    data = bx.data.ArrayLoader((inputs, labels), BATCH)
    with pytest.raises(NonFiniteError, match=r"at step 2 \(epoch 1, batch 2\)"):
        pair.train_model(data, num_epochs=1)
    assert int(pair.state.step) == 1


def test_batches_that_do_not_divide_are_refused_before_the_first_step(pair):
    with pytest.raises(ConfigurationError, match="batch_size=14 or 16"):
        pair.train_model(loader(30, 15), num_epochs=1)
    assert int(pair.state.step) == 0


def test_a_state_that_was_moved_by_hand_is_named(tmp_path):
    class Moving(Classifier):
        def on_training_start(self):
            self.state = jax.device_put(self.state, jax.sharding.NamedSharding(mesh, P()))

    mesh = jax.make_mesh((2,), ("own",), axis_types=(jax.sharding.AxisType.Auto,))
    one = Moving(
        Mlp,
        {},
        {"lr": 0.1},
        exmp_input=classes(3),
        logger_params={"log_dir": str(tmp_path), "logger_type": "none"},
        enable_progress_bar=False,
    )
    with pytest.raises(TrainingError, match=r"\.state.*for the train step, which lies as Named"):
        one.train_model(loader(32, 16), num_epochs=1)


def test_memory_is_that_of_each_device(pair):
    found = pair.preflight(classes(16))
    state = pair.state
    assert found.devices == 2
    assert found.parameters.count == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert found.batch.nbytes == 8 * (4 + 1) * 4
    assert "on 2 x cpu; memory is that of each" in str(found)
    assert pair.find_batch_size(classes(16), limit=10**9, largest=33) == 32


def test_a_learning_rate_is_found(pair):
    assert pair.lr_find(loader(EXAMPLES, BATCH), num_steps=10).losses.size


def test_the_summary_says_how_the_model_lies(capsys, tmp_path):
    trainer(PLACEMENTS["fsdp"], str(tmp_path))
    assert "Dense_0/kernel" in (text := (tmp_path / "model.txt").read_text())
    assert "On 2 devices (cpu), data=2; batches in 2 parts." in text


def test_what_boltax_does_not_compile_is_not_spread(tmp_path):
    class Own(Classifier):
        def create_jitted_functions(self):
            self.train_step, self.eval_step = self.create_functions()

    for kind, options in ((Own, {}), (Classifier, {"debug": True})):
        with pytest.raises(ConfigurationError, match="whose steps boltax does not compile"):
            kind(Mlp, {}, {}, exmp_input=classes(3), parallel="data", **options)


def test_members_of_a_population_are_not_spread_twice(pair):
    with pytest.raises(ConfigurationError, match="one device, since it is the members"):
        bx.tune.Population(pair, [{"lr": 0.1}, {"lr": 0.2}])


def test_what_lies_where_is_shown_with_a_resume_checkpoint(spread):
    name, run = spread
    folder = max(Path(run.trainer.log_dir, "checkpoints", "resume").iterdir())
    text = describe_checkpoint(folder, verify=False, width=200).text
    kernel = next(line for line in text.splitlines() if "state/params/Dense_0/kernel " in line)
    if name == "data":
        assert "divided by" not in text
    else:
        assert kernel.endswith({"fsdp": "-, data", "data x model": "-, model"}[name])
        momentum = [row for row in text.splitlines() if "opt_state" in row and "0/kernel" in row]
        assert [row.split("  ")[-1] for row in momentum] == [kernel.split("  ")[-1]]
    mesh = {"data x model": "data=1 x model=2"}.get(name, "data=2")
    assert f"devices of the run: {mesh}\n" in text


PARTS = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant"}
OPTIMIZERS: dict[str, Any] = {
    "by name": {
        "optimizers": {
            "Dense_0": PARTS,
            "Dense_1": {**PARTS, "momentum": 0.9},
            "BatchNorm_0": {**PARTS, "lr": 0.01},
        }
    },
    "learned": {"optimizer": "celo"},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_several_optimizers_and_learned_ones_give_the_numbers_of_one_device(tmp_path, optimizer):
    hparams = OPTIMIZERS[optimizer]
    if optimizer == "learned":
        hparams = {**hparams, "weights": write_all(tmp_path)["celo"]}
    runs = []
    for name in (None, "fsdp"):
        one = Classifier(
            Mlp,
            {},
            hparams,
            exmp_input=classes(3),
            logger_params={"log_dir": str(tmp_path / f"{name}"), "logger_type": "none"},
            enable_progress_bar=False,
            loop=bx.LoopOptions(sanity_check=False, steps_per_execution=1),
            checkpoint=bx.CheckpointOptions(keep_last=0),
            parallel=None if name is None else PLACEMENTS[name],
        )
        one.train_model(loader(BATCH * 2, BATCH), num_epochs=1)
        runs.append(one)
    assert runs[1].state.params["Dense_0"]["kernel"].sharding.spec == P(None, "data")
    alone, other = (jax.tree.leaves(to_host(one.state.params)) for one in runs)
    for left, right in zip(alone, other, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
