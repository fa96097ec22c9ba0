"""Members on several devices: the numbers of one, whatever happens to them."""

import jax
import numpy as np
import pytest

import boltax as bx
from boltax.errors import ConfigurationError
from boltax.tune import Population, _measure, _trainees
from boltax.tune._member_rows import MemberRows
from dummies import Mlp, classifier, loader
from tune_dummies import FIVE, SGD, Broken, Busy, assert_same, train_loader


def population(folder, size, devices, scheduler=None, **options):
    trainer = classifier(
        folder,
        model_class=Mlp,
        optimizer_hparams=SGD,
        logger_params={"log_dir": str(folder), "logger_type": "csv"},
        **options,
    )
    return Population(trainer, FIVE, members_per_step=size, devices=devices, scheduler=scheduler)


def trained(folder, size, devices, *, num_epochs=4, scheduler=None, data=None, **options):
    together = population(folder, size, devices, scheduler or Busy(), **options)
    together.train_model(data or train_loader(), loader(32, 8), num_epochs=num_epochs)
    return together


@pytest.mark.parametrize("size", [1, 2])
def test_members_on_two_devices_are_bit_for_bit_those_on_one(tmp_path, size):
    one = trained(tmp_path / "one", size, 1)
    two = trained(tmp_path / "two", size, jax.local_devices())
    assert two._trainees.used == tuple(jax.local_devices())
    assert_same(one, two)


@pytest.mark.parametrize(("size", "before", "after"), [(1, 2, 1), (2, 2, 1), (2, 1, 2)])
def test_it_goes_on_bit_for_bit_with_another_number_of_devices(tmp_path, size, before, after):
    loop = bx.LoopOptions(prefetch=1)
    whole = trained(tmp_path / "whole", size, 1, num_epochs=3, loop=loop)
    data, folder = Broken(2, 5), tmp_path / "parts"
    with pytest.raises(OSError, match="the disk is gone"):
        trained(folder, size, before, num_epochs=3, data=data, loop=loop)
    last = population(folder, size, after, Busy(), loop=loop)
    last.train_model(data, loader(32, 8), num_epochs=3, resume=True)
    assert last._trainees.layout.devices == after
    assert_same(whole, last)


@pytest.mark.parametrize("size", [1, 2])
def test_members_side_by_side_are_bit_for_bit_those_one_by_one(tmp_path, monkeypatch, size):
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 1)
    one = trained(tmp_path / "one", size, 1)
    monkeypatch.setattr(_measure, "most_lanes", lambda _: 3)
    several = trained(tmp_path / "several", size, 1)
    assert (one._trainees.layout.lanes, several._trainees.layout.lanes) == (1, 3)
    assert_same(one, several)


def test_a_data_set_on_a_device_goes_to_the_others(tmp_path):
    inputs, labels = (np.asarray(x) for x in next(iter(loader(64, 64))))
    data = bx.data.ArrayLoader((inputs, labels), 8, shuffle=True, device_resident=True)
    one = trained(tmp_path / "one", 2, 1, num_epochs=1, data=data)
    two = trained(tmp_path / "two", 2, 2, num_epochs=1, data=data)
    other = trained(tmp_path / "other", 2, jax.local_devices()[1:], num_epochs=1, data=data)
    assert_same(one, two)
    assert_same(one, other)


def test_nothing_is_moved_unasked_with_several_steps_in_a_dispatch(tmp_path, monkeypatch):
    def guarded(function):
        def call(*arguments):
            with jax.transfer_guard("disallow"):
                return function(*arguments)

        return call

    loop = bx.LoopOptions(steps_per_execution=4)
    one = trained(tmp_path / "one", 2, 1, num_epochs=3, loop=loop)
    for name in ("run_epoch", "validate_members", "shrink"):
        monkeypatch.setattr(_trainees, name, guarded(getattr(_trainees, name)))
    two = trained(tmp_path / "two", 2, 2, num_epochs=3, loop=loop)
    assert_same(one, two)


@pytest.mark.parametrize("devices", [0, 3, True, "all", [], [0, 1]])
def test_devices_that_there_are_not(tmp_path, devices):
    with pytest.raises(ConfigurationError, match=r"devices=.*a number of them from 1 to 2"):
        population(tmp_path, 1, devices)


def test_groups_lie_on_the_devices_one_after_the_other():
    devices, rows = jax.local_devices(), MemberRows()
    alone = [jax.device_put({"x": np.float32(number)}, devices[0]) for number in range(5)]
    groups = rows.rearranged(alone, 1, [4, 3, 2, 1, 0], 2, devices)
    assert [group["x"].devices() for group in groups] == [{devices[i]} for i in (0, 1, 0)]
    again = rows.rearranged(groups, 2, [1, 0, 4, 6], 2, devices[::-1], fresh=alone[3:4])
    assert [group["x"].devices() for group in again] == [{devices[1]}, {devices[0]}]
    assert [group["x"].tolist() for group in again] == [[3.0, 4.0], [0.0, 3.0]]
