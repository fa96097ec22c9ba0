"""Mappings and lists of other libraries work wherever a dict does, and are stored as plain data."""

import json
from collections import OrderedDict
from collections.abc import MutableMapping, MutableSequence
from pathlib import Path
from types import MappingProxyType

import flax
import numpy as np
import pytest
from flax.core import FrozenDict

from boltax._base._containers import is_mapping, plain_containers
from boltax.errors import ConfigurationError
from dummies import Classifier, classifier, loader


class ConfigDict:
    """Behaves as that of ml_collections: no `Mapping`, attributes for keys, `to_dict`."""

    def __init__(self, values):
        self._fields = {k: self._own(v) for k, v in values.items()}

    @classmethod
    def _own(cls, value):
        return cls(value) if isinstance(value, dict) else value

    def __getattr__(self, name):
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key):
        return self._fields[key]

    def __iter__(self):
        return iter(self._fields)

    def __len__(self):
        return len(self._fields)

    def keys(self):
        return list(self._fields)

    def items(self):
        return list(self._fields.items())

    def to_dict(self):
        return plain_containers(self._fields)


class DictConfig(MutableMapping):
    """Behaves as that of OmegaConf: a mapping that gives lists of its own."""

    def __init__(self, values):
        self._values = values

    def __getitem__(self, key):
        value = self._values[key]
        if isinstance(value, dict):
            return DictConfig(value)
        return ListConfig(value) if isinstance(value, list) else value

    def __setitem__(self, key, value):
        self._values[key] = value

    def __delitem__(self, key):
        del self._values[key]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


class ListConfig(MutableSequence):
    """Behaves as that of OmegaConf: a sequence that is no list."""

    def __init__(self, values):
        self._values = values

    def __getitem__(self, index):
        value = self._values[index]
        return DictConfig(value) if isinstance(value, dict) else value

    def __setitem__(self, index, value):
        self._values[index] = value

    def __delitem__(self, index):
        del self._values[index]

    def __len__(self):
        return len(self._values)

    def insert(self, index, value):
        self._values.insert(index, value)


KINDS = [dict, ConfigDict, DictConfig, FrozenDict, MappingProxyType, OrderedDict]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapping_becomes_a_dict_at_every_level(kind):
    plain = plain_containers(kind({"a": {"b": 1}, "c": [{"d": (2, 3)}]}))
    assert plain == {"a": {"b": 1}, "c": [{"d": (2, 3)}]}
    assert (type(plain), type(plain["a"]), type(plain["c"])) == (dict, dict, list)


def test_what_is_no_mapping_stays_as_it_is():
    state = flax.struct.dataclass(type("State", (), {"__annotations__": {"x": int}, "x": 1}))()
    for value in (np.ones(2), state, "text", 3, ConfigDict, range(3)):
        assert plain_containers(value) is value
        assert not is_mapping(value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dict_of_a_trainer_may_be_one_and_comes_back(tmp_path, kind):
    trainer = classifier(
        tmp_path,
        model_hparams=kind({"features": 4}),
        optimizer_hparams=kind({"optimizer": "sgd", "lr": 0.05, "schedule": "constant"}),
        logger_params=kind({"base_log_dir": str(tmp_path), "logger_type": ["csv"]}),
        weights=kind({"first": [1, 2], "second": {"third": 0.5}}),
    )
    trainer.train_model(loader(), loader(), num_epochs=1)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert again.model.features == 4
    assert again.optimizer_hparams == {"optimizer": "sgd", "lr": 0.05, "schedule": "constant"}
    assert again.hparams["weights"] == {"first": [1, 2], "second": {"third": 0.5}}
    assert type(again.hparams["weights"]) is type(trainer.hparams["weights"]) is dict
    stored = json.loads((Path(trainer.log_dir) / "hparams.json").read_text())
    assert stored["logger_params"] == {"base_log_dir": str(tmp_path), "logger_type": ["csv"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logger_params": "TensorBoard"}, r'Write logger_params=\{"logger_type": "TensorBoard"\}'),
        ({"logger_params": ["csv"]}, r"logger_params=\['csv'\] \(list\); expected a dict"),
        ({"model_hparams": 64}, r"model_hparams=64 \(int\); expected a dict"),
    ],
)
def test_what_is_no_dict_is_refused_with_what_to_write(tmp_path, options, message):
    with pytest.raises(ConfigurationError, match=message):
        classifier(tmp_path, **options)
