"""A trained model as a folder: its numbers are those of `predict_model`, and it needs JAX alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import boltax as bx
import dummies
import functional_dummies
from boltax import cli
from boltax.errors import ConfigurationError, ModelError, RunDirectoryError, UnknownNameError
from boltax.models._vmap import Vmap
from equinox_dummies import EqxBatched, EqxNormDropout

pytest.importorskip("flatbuffers", reason="JAX stores exported programs in it")

INPUTS = dummies.classes(7)[0]
ALONE = """
import sys
class Forbidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("boltax", "flax", "optax", "orbax", "safetensors"):
            raise AssertionError(name)
sys.meta_path.insert(0, Forbidden())
sys.path.insert(0, sys.argv[1])
import numpy as np
from predict import load
predict = load()
inputs = np.load("inputs.npy")
np.save("outputs.npy", np.concatenate([predict(inputs[:4]), predict(inputs[4:])]))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with BatchNorm, dropout and a moving average, after some steps."""
    folder = tmp_path_factory.mktemp("runs")
    trainer = dummies.classifier(folder, loop=bx.LoopOptions(ema=0.9))
    trainer.train_model(dummies.loader(32), num_epochs=1)
    return trainer


def batches(inputs=INPUTS):
    return [(inputs[:4], np.zeros(4, np.int32)), (inputs[4:], np.zeros(3, np.int32))]


def called(folder, *arguments):
    program = jax.export.deserialize(bytearray((Path(folder) / "program.jax").read_bytes()))
    return jax.device_get(program.call(*arguments))


def test_it_runs_where_only_jax_is_with_the_numbers_of_predict_model(trained):
    trained.export("out")
    np.save("inputs.npy", INPUTS)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("outputs.npy"), trained.predict_model(batches()))


def test_the_weights_are_the_evaluated_ones_by_name(trained):
    trained.export("out")
    weights = load_file("out/weights.safetensors")
    assert {name.partition("/")[0] for name in weights} == {"params", "batch_stats"}
    average = np.asarray(trained.state.ema.variables["params"]["Dense_0"]["kernel"])
    np.testing.assert_array_equal(weights["params/Dense_0/kernel"], average)
    assert not np.array_equal(average, trained.state.params["Dense_0"]["kernel"])
    np.testing.assert_array_equal(
        called("out", weights, INPUTS[:4]), trained.predict_batch(batches()[0])
    )


def test_the_signature_says_what_goes_in_and_out(trained):
    trained.export("out", platforms=["cpu", "cuda"])
    signature = json.loads(Path("out/signature.json").read_text())
    assert signature["inputs"] == [{"name": "inputs", "shape": ["batch", 4], "dtype": "float32"}]
    assert signature["outputs"] == [{"name": "outputs", "shape": ["batch", 3], "dtype": "float32"}]
    assert signature["platforms"] == ["cpu", "cuda"]
    assert (signature["step"], signature["is_moving_average"]) == (2, True)
    assert not signature["draws_random_numbers"]
    assert len(Path("out/README.md").read_text().splitlines()) == 5


def test_weights_inside_give_the_same_numbers_up_to_folding(trained):
    trained.export("out", weights="inside")
    found = called("out", INPUTS)
    np.testing.assert_allclose(found, trained.predict_model(batches()), rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_size_is_the_only_one(trained):
    trained.export("out", batch_size=4)
    weights = load_file("out/weights.safetensors")
    np.testing.assert_array_equal(
        called("out", weights, INPUTS[:4]), trained.predict_batch(batches()[0])
    )
    with pytest.raises(ValueError, match="4"):
        called("out", weights, INPUTS)


def test_nnx_bf16_and_an_own_prediction(tmp_path):
    class Named(dummies.Classifier):
        def predict_function(self, model, batch):
            return {"logits": model(batch["x"]), "twice": 2 * batch["x"]}

        def loss_function(self, model, batch, train):
            return super().loss_function(model, (batch["x"], batch["y"]), train)

    inputs, labels = dummies.classes(7)
    trainer = dummies.classifier(
        tmp_path,
        Named,
        dummies.NnxMlp,
        exmp_input={"x": inputs, "y": labels},
        loop=bx.LoopOptions(precision="bf16"),
    )
    trainer.export("out")  # labels of the example batch are named as unused
    places = {e["name"]: e for e in json.loads(Path("out/signature.json").read_text())["inputs"]}
    assert places["inputs['y']"]["is_used"] is False
    assert "is_used" not in places["inputs['x']"]
    trainer.export("out", {"x": inputs})
    found = called("out", load_file("out/weights.safetensors"), {"x": inputs})
    want = trainer.predict_batch({"x": inputs})
    np.testing.assert_array_equal(found["logits"], want["logits"])
    np.testing.assert_array_equal(found["twice"], 2 * inputs)


KINDS = {
    "nnx": (dummies.NnxMlp, {}),
    "equinox": (Vmap(EqxNormDropout), {}),
    "equinox, in batches": (EqxBatched, {"size": 3}),
    "functions": (functional_dummies.NOISY, {}),
    "functions of one example": (Vmap(functional_dummies.NET), {}),
}


@pytest.mark.parametrize("model_class, hparams", KINDS.values(), ids=KINDS)
def test_every_kind_of_model_leaves_and_its_weights_come_back(tmp_path, model_class, hparams):
    def make(seed):
        settings = {"model_class": model_class, "model_hparams": hparams, "seed": seed}
        return dummies.classifier(tmp_path, **settings)

    trainer = make(1)
    trainer.export("out")
    found = called("out", load_file("out/weights.safetensors"), INPUTS)
    want = trainer.predict_batch((INPUTS, np.zeros(7, np.int32)))
    np.testing.assert_array_equal(found, want)
    other = make(2)
    assert not np.array_equal(other.predict_batch((INPUTS, np.zeros(7, np.int32))), want)
    other.load_weights("out/weights.safetensors")
    np.testing.assert_array_equal(other.predict_batch((INPUTS, np.zeros(7, np.int32))), want)


def test_draws_of_the_prediction_are_told(tmp_path):
    class Noisy(dummies.Classifier):
        def predict_function(self, model, batch):
            return batch + jax.random.normal(model.rng("noise"), batch.shape)

    trainer = dummies.classifier(tmp_path, Noisy, dummies.Plain)
    trainer.export("out", INPUTS)
    assert json.loads(Path("out/signature.json").read_text())["draws_random_numbers"] is True
    assert "same random numbers" in Path("out/README.md").read_text()
    found = called("out", load_file("out/weights.safetensors"), INPUTS)
    np.testing.assert_array_equal(found, trainer.predict_batch(INPUTS))


class Pair(NamedTuple):
    logits: Any


def halves(model, x):
    return model(x.reshape(2, -1, 4)).reshape(-1, 3)


def chosen(model, x):
    return model(x[jnp.nonzero(x[:, 0] > 0)[0]])


FAULTS = {
    "the size of the example": (lambda m, x: m(x.reshape(4, 4)), r"export\(folder, batch_size=4\)"),
    "an even number": (halves, "does not hold for every batch size"),
    "shapes of values": (chosen, "depend on values .*jnp.nonzero"),
    "no value per example": (lambda m, x: m(x).mean(0), r"expected outputs \[batch, ...\]"),
    "a class": (lambda m, x: Pair(m(x)), "containers of a class.* expected dicts"),
    "another error": (lambda m, x: m(x) + jnp.ones((1, 5)), "cannot be exported .TypeError"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    class Trainer(dummies.Classifier):
        prediction: Any = None

        def predict_function(self, model, batch):
            return self.prediction(model, batch)

    return dummies.classifier(tmp_path_factory.mktemp("runs"), Trainer, dummies.Plain)


@pytest.mark.parametrize("prediction, message", FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_exported_says_what_to_write(plain, prediction, message):
    plain.prediction = prediction
    with pytest.raises(ModelError, match=message):
        plain.export("out", INPUTS[:4])
    assert not Path("out").exists()
    assert not [*Path().glob(".out*")]


def test_a_size_that_only_some_have_is_exported_for_one(plain):
    plain.prediction = halves
    plain.export("out", INPUTS[:4], batch_size=4)
    found = called("out", load_file("out/weights.safetensors"), INPUTS[:4])
    np.testing.assert_array_equal(found, plain.predict_batch(INPUTS[:4]))


def test_axes_of_the_users_own_symbols(plain):
    plain.prediction = lambda model, x: model(x).mean(1)
    sizes = jax.export.symbolic_shape("b, time")
    plain.export("out", jax.ShapeDtypeStruct((*sizes, 4), jnp.float32))
    weights, x = load_file("out/weights.safetensors"), np.stack([INPUTS, INPUTS + 1])
    np.testing.assert_allclose(called("out", weights, x), plain.predict_batch(x), rtol=1e-6)


BAD = {
    "a platform": ({"platforms": "gpu"}, UnknownNameError, "expected one of: cpu, cuda"),
    "no platform": ({"platforms": ()}, ConfigurationError, "at least one"),
    "a place": ({"weights": "insde"}, UnknownNameError, "Did you mean 'inside'"),
    "no example": ({"batch_size": 0}, ConfigurationError, "batch_size"),
}


@pytest.mark.parametrize("options, kind, message", BAD.values(), ids=BAD)
def test_bad_arguments(trained, options, kind, message):
    with pytest.raises(kind, match=message):
        trained.export("out", **options)
    assert not Path("out").exists()


def test_an_earlier_export_is_replaced_and_nothing_else(trained):
    trained.export("out")
    Path("out/signature.json").touch()
    trained.export("out", batch_size=2)
    assert json.loads(Path("out/signature.json").read_text())["inputs"][0]["shape"] == [2, 4]
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("precious")
    with pytest.raises(RunDirectoryError, match="which holds something else"):
        trained.export("mine")
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_the_command_exports_the_best_model(trained, capsys):
    trainer_class = f"{dummies.__file__}:Classifier"
    arguments = ["export", trained.log_dir, "out", "--trainer", trainer_class]
    assert cli.main([*arguments, "--platforms", "cpu, cuda", "--batch-size", "7"]) == 0
    assert f"written to {Path('out').absolute()}" in capsys.readouterr().out
    found = called("out", load_file("out/weights.safetensors"), INPUTS)
    np.testing.assert_allclose(found, trained.predict_model(batches()), rtol=1e-6)
    assert cli.main([*arguments, "--platforms", "cpu,gpu"]) == 2
    assert "Received platform 'gpu'" in capsys.readouterr().err
