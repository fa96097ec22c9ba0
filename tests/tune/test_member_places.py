"""Members on parts of a mesh: whatever happens to them, they stay what they are in a run of two."""

import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import boltax as bx
from boltax.errors import ConfigurationError
from boltax.tune import Population, _search, optimize
from boltax.tune._member_places import at_most
from dummies import Mlp, classifier, loader
from tune_dummies import FIVE, SGD, Broken, Busy, assert_same, train_loader

DIVIDED = bx.Parallel(mesh={"members": 1, "data": 2}, fsdp="data", min_shard_bytes=0)


def population(folder, size, parallel, **options):
    trainer = classifier(
        folder,
        model_class=Mlp,
        optimizer_hparams={**SGD, "schedule": "constant", "warmup": 0},
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
        loop=bx.LoopOptions(prefetch=1, log_every=3, sanity_check=False),
    )
    options = {"scheduler": Busy(), **options}
    return Population(trainer, FIVE, members_per_step=size, parallel=parallel, **options)


def trained(folder, size, parallel, data=None, guard="disallow", **options):
    together = population(folder, size, parallel)
    with jax.transfer_guard(guard):
        together.train_model(data or train_loader(), loader(32, 8), num_epochs=3, **options)
    return together


@pytest.fixture(scope="module", params=[1, 2], ids="{} in a program".format)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def whole(size, tmp_path_factory):
    """Five members, stopped, replaced and overwritten, each on two devices; not interrupted."""
    return trained(tmp_path_factory.mktemp("whole"), size, DIVIDED)


@pytest.fixture(scope="module")
def broken(size, tmp_path_factory):
    """The folder of the same, interrupted in the second epoch behind a record."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    with pytest.raises(OSError, match="the disk is gone"):
        trained(folder, size, DIVIDED, Broken(2, 5))
    return folder


def test_they_go_on_bit_for_bit(size, whole, broken, tmp_path):
    folder = shutil.copytree(broken, tmp_path / "run")
    assert_same(whole, trained(folder, size, DIVIDED, resume=True))


def test_they_go_on_on_devices_of_their_own_with_the_same_numbers(
    size, whole, broken, tmp_path, caplog
):
    folder = shutil.copytree(broken, tmp_path / "run")
    where = bx.Parallel(mesh={"members": 2})
    alone = trained(folder, size, where, resume=True, guard="allow")
    for one, other in zip(alone.table.rows, whole.table.rows, strict=True):
        assert one["val/loss"] == pytest.approx(other["val/loss"], abs=1e-6)
        assert (one["status"], one["step"]) == (other["status"], other["step"])
    assert "of one device each, and were saved with {'data': 2}" in caplog.text


def test_a_member_is_a_trainer_that_lies_as_it_lay(size, whole):
    held = whole._trainees.states[0].params["Dense_0"]["kernel"]
    assert held.sharding.spec == (P(None, "data") if size == 1 else P(None, None, "data"))
    one = whole.member(3)
    assert one.state.params["Dense_0"]["kernel"].sharding.spec == P(None, "data")
    inputs = loader(32, 8)
    rows = whole.predict(inputs).outputs
    one.load_model()
    np.testing.assert_allclose(rows[3], one.predict_model(inputs), atol=1e-6)


REFUSED = {
    "too few members": ({"mesh": {"members": 2}}, 1, "members=2 for 1 members; expected at least"),
    "too few devices": ({"mesh": {"members": 2, "data": 2}}, 5, "members=2 x data=2 is larger"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mesh_that_does_not_fit_is_refused(tmp_path, case):
    arguments, number, told = REFUSED[case]
    with pytest.raises(ConfigurationError, match=told):
        Population(classifier(tmp_path), FIVE[:number], parallel=bx.Parallel(**arguments))


def test_what_says_it_twice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="devices=2 and parallel='data'; expected one"):
        Population(classifier(tmp_path), FIVE, devices=2, parallel="data")


def test_the_axis_is_one_of_populations(tmp_path):
    mesh = bx.Parallel(mesh={"members": 2})
    with pytest.raises(ConfigurationError, match=r"a single run with the mesh .*Population"):
        classifier(tmp_path, parallel=mesh)
    assert at_most(mesh, 1) == bx.Parallel(mesh={"members": 1})
    assert at_most(mesh, 9) == mesh
    assert at_most(None, 1) is None


def test_a_study_lies_on_a_mesh(tmp_path, monkeypatch):
    def make_trainer(lr):
        folder = {"base_log_dir": str(tmp_path), "logger_type": "none"}
        hparams = {"optimizer": "sgd", "lr": lr}
        return classifier(tmp_path, optimizer_hparams=hparams, logger_params=folder)

    def told(trainer, values, *, parallel, **_):
        raise RuntimeError(f"{len(values)} members on {parallel.mesh}")

    monkeypatch.setattr(_search, "Population", told)
    for population, mesh in ((2, {"members": 2}), (3, {"members": 1, "data": 2})):
        with pytest.raises(RuntimeError, match=f"{population} members on {mesh}"):
            optimize(
                make_trainer, {"lr": [0.01, 0.03]}, train_loader(), loader(32, 8), num_epochs=1,
                n_trials=3, population=population, enable_progress_bar=False,
                parallel=bx.Parallel(mesh=mesh),
            )  # fmt: skip
