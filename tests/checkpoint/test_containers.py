"""Containers of other libraries among hyperparameters: stored as plain data, loaded again."""

import types
from collections import UserDict, UserList
from collections.abc import MutableSequence

import flax.core
import numpy as np
import pytest

from boltax.checkpoint._constructor_call import ConstructorCall, read_call
from boltax.checkpoint._decode import decode
from boltax.checkpoint._encode import encode
from boltax.checkpoint._files import write_json
from boltax.checkpoint._names import Lookup
from boltax.checkpoint._plain import plain
from boltax.errors import HyperparameterError
from boltax.loggers._values import flatten
from dummies import classes, classifier


class ConfigDict:
    """As that of ml_collections: a mapping in all but name."""

    def __init__(self, values):
        self._values = {
            key: ConfigDict(value) if isinstance(value, dict) else value
            for key, value in values.items()
        }

    def __getitem__(self, key):
        return self._values[key]

    def __getattr__(self, name):
        try:
            return vars(self)["_values"][name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __iter__(self):
        return iter(self._values)

    def keys(self):
        return self._values.keys()

    def items(self):
        return self._values.items()


class ListConfig(MutableSequence):
    """As that of OmegaConf: a list in all but name."""

    def __init__(self, values):
        self._values = list(values)

    def __getitem__(self, index):
        if self._values[index] == "???":
            raise ValueError("Missing mandatory value")
        return self._values[index]

    def __len__(self):
        return len(self._values)

    def __setitem__(self, index, value):
        raise TypeError("read only")

    def __delitem__(self, index):
        raise TypeError("read only")

    def insert(self, index, value):
        raise TypeError("read only")


PLAIN = {"lr": 0.1, "sizes": [3, 3], "inner": {"name": "adam", "flags": (True, None)}}
CONTAINERS = {
    "ConfigDict": ConfigDict(PLAIN),
    "a ConfigDict with a ListConfig": ConfigDict({**PLAIN, "sizes": ListConfig([3, 3])}),
    "FrozenDict": flax.core.freeze(PLAIN),
    "MappingProxyType": types.MappingProxyType(PLAIN),
    "UserDict": UserDict({**PLAIN, "sizes": UserList([3, 3])}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_stored_as_plain_data_and_comes_back(name):
    lookup = Lookup(None)
    stored = encode(CONTAINERS[name], "model_hparams", lookup)
    assert stored == encode(PLAIN, "model_hparams", lookup)
    assert decode(stored, lookup) == PLAIN


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_shown_as_plain_data(name):
    readable = {"lr": 0.1, "sizes": [3, 3], "inner": {"name": "adam", "flags": [True, None]}}
    assert plain(CONTAINERS[name]) == readable
    assert flatten(CONTAINERS[name])["inner/name"] == "adam"


def test_an_ml_collections_config_dict_is_stored():
    ml_collections = pytest.importorskip("ml_collections")
    config = ml_collections.ConfigDict({"lr": 0.1, "inner": {"sizes": (3, 3)}})
    config.copy_of_lr = config.get_ref("lr")
    stored = encode(config, "model_hparams", Lookup(None))
    expected = {"lr": 0.1, "inner": {"sizes": (3, 3)}, "copy_of_lr": 0.1}
    assert decode(stored, Lookup(None)) == expected


def test_what_hydra_composes_trains_is_stored_and_comes_back(tmp_path):
    hydra = pytest.importorskip("hydra")
    (tmp_path / "conf.yaml").write_text(
        "lr: 0.1\nmodel: {features: 5}\n"
        "optimizer: {optimizer: sgd, lr: '${lr}', schedule: constant}\n"
        "logger: {base_log_dir: runs, logger_type: csv}\nsizes: [1, {deep: 2}]\n"
    )
    with hydra.initialize_config_dir(str(tmp_path), version_base=None):
        config = hydra.compose("conf", ["lr=0.02"])
    trainer = classifier(
        "runs",
        model_hparams=config.model,
        optimizer_hparams=config.optimizer,
        logger_params=config.logger,
        sizes=config.sizes,
    )
    trainer.train_model([classes(12)], num_epochs=1)
    again = type(trainer).load_from_checkpoint(trainer.log_dir)
    assert again.model_hparams == {"features": 5}
    assert again.optimizer_hparams == {"optimizer": "sgd", "lr": 0.02, "schedule": "constant"}
    assert again.hparams == {"sizes": [1, {"deep": 2}]}


def test_a_value_that_is_missing_in_a_container_is_told():
    with pytest.raises(HyperparameterError, match=r"sizes'\].*Missing mandatory value"):
        encode({"sizes": ListConfig(["???"])}, "model_hparams", Lookup(None))


class Trainer:
    def __init__(self, model_hparams=None, logger_params=None, seed=42):
        pass


def test_a_config_dict_of_logger_params_trains_and_loads(tmp_path):
    params = ConfigDict({"base_log_dir": "runs", "logger_type": "csv"})
    call = ConstructorCall.of(Trainer, (), {"logger_params": params})
    write_json(tmp_path / "hparams.json", call.to_json(np.ones(3)))
    _, keywords = read_call(tmp_path, Trainer).arguments(exmp_input=None, given={})
    assert keywords["logger_params"] == {
        "base_log_dir": "runs",
        "logger_type": "csv",
        "log_dir": str(tmp_path),
    }


@pytest.mark.parametrize("stored", [{"__not_stored__": "ConfigDict"}, None, [1], "csv"])
def test_logger_params_that_could_not_be_stored_are_only_the_folder(tmp_path, stored):
    """As an earlier version wrote them."""
    call = ConstructorCall.of(Trainer, (), {"logger_params": {}}).to_json(np.ones(3))
    call["constructor"]["named"]["logger_params"] = stored
    write_json(tmp_path / "hparams.json", call)
    _, keywords = read_call(tmp_path, Trainer).arguments(exmp_input=None, given={})
    assert keywords["logger_params"] == {"log_dir": str(tmp_path)}


@pytest.mark.parametrize("number", [2**80, -(2**80), 2**1000])
def test_a_large_whole_number_is_stored_and_comes_back(tmp_path, number):
    call = ConstructorCall.of(Trainer, (), {"model_hparams": {"n": number}})
    write_json(tmp_path / "hparams.json", call.to_json(np.ones(3)))
    assert read_call(tmp_path, Trainer).named["model_hparams"] == {"n": number}
