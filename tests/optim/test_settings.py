"""Tests of `boltax.optim._settings`: every mistake in the dict says what to write instead."""

from typing import Any

import numpy as np
import pytest

from boltax.errors import OptimizerError, UnknownNameError
from boltax.optim._settings import read


def test_defaults_are_those_of_the_guide() -> None:
    settings = read({})
    assert (settings.entry.name, settings.schedule, settings.warmup) == (
        "adamw",
        "warmup_cosine",
        0,
    )
    assert settings.entry.default_lr == 1e-3
    assert settings.clip == ("norm", 1.0)
    assert (settings.weight_decay, settings.l2_regularization) == (None, 0.0)


def test_the_dict_is_not_changed() -> None:
    hparams = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "gradient_clip": {"value": 1.0}}
    copy = {**hparams, "gradient_clip": {"value": 1.0}}
    read(hparams)
    assert hparams == copy


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, None),
        (0.5, ("norm", 0.5)),
        (2, ("norm", 2.0)),
        ({"norm": 0.5}, ("norm", 0.5)),
        ({"value": 0.5}, ("value", 0.5)),
        ({"adaptive": 0.01}, ("adaptive", 0.01)),
    ],
)
def test_clipping_has_three_kinds(clip: Any, expected: Any) -> None:
    assert read({"gradient_clip": clip}).clip == expected


def test_numbers_of_numpy_are_numbers() -> None:
    settings = read({"lr": np.float32(0.5), "warmup": np.int64(3)})
    assert (settings.lr, settings.warmup) == (0.5, 3)


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"optimizer": "adamm"}, "Received optimizer 'adamm'.*Did you mean 'adam'"),
        ({"weight_deca": 0.1}, "argument of optimizer 'adamw'.*Did you mean 'weight_decay'"),
        ({"optimizer": "sgd", "b1": 0.9}, "argument of optimizer 'sgd' 'b1'.*momentum"),
        ({"gradient_clip": {"nrom": 1.0}}, "kind of gradient_clip 'nrom'.*Did you mean 'norm'"),
    ],
)
def test_unknown_names_are_reported(hparams: dict[str, Any], match: str) -> None:
    with pytest.raises(UnknownNameError, match=match):
        read(hparams)


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"learning_rate": 0.1}, "Write 'lr' instead of 'learning_rate'"),
        ({"mask": None}, "Write 'decay_mask' instead of 'mask'"),
        ({"optimizer": "adafactor", "weight_decay_rate": 0.1}, "Write 'weight_decay' instead"),
        ({"optimizer": "muon", "adam_weight_decay": 0.1}, "Write 'weight_decay' instead"),
        ({"optimizer": "schedule_free_sgd", "warmup_steps": 5}, "Write 'warmup' instead"),
        ({"lr": -1e-3}, r"lr=-0\.001 \(float\); expected a finite number of at least 0"),
        ({"lr": "0.1"}, r"lr='0\.1' \(str\); expected a finite number"),
        ({"lr": True}, r"lr=True \(bool\); expected a finite number"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"weight_decay": -0.1}, r"weight_decay=-0\.1"),
        ({"l2_regularization": float("inf")}, "l2_regularization=inf"),
        ({"gradient_clip": 0}, "gradient_clip=0 .*above 0, or None"),
        ({"gradient_clip": {"norm": 1.0, "value": 1.0}}, "exactly one kind"),
        ({"gradient_clip": {}}, "exactly one kind"),
        ({"warmup": -1}, "warmup=-1.*Write for instance warmup=100"),
        ({"warmup": 1.5}, r"warmup=1\.5"),
        ({"warmup": True}, "warmup=True"),
        ({"warmup": None}, "warmup=None"),
        ({"decay_mask": "kernels"}, "without weight_decay.*Write weight_decay=0.01"),
        ({"weight_decay": 0.1, "decay_mask": "("}, "expected .all., .kernels."),
        ({"weight_decay": 0.1, "l2_regularization": 0.1}, "expected one of them"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "adam has none. Write optimizer='adamw'"),
        ({"optimizer": "nadam", "weight_decay": 0.1}, "Write optimizer='nadamw'"),
        ({"optimizer": "lars", "weight_decay": 0.1}, "L2 penalty. Write l2_regularization=0.1"),
        ({"optimizer": "prodigy", "weight_decay": 0.1, "decay_mask": "kernels"}, "acts on all"),
        ({"optimizer": "polyak_sgd", "lr": 0.1}, "no learning rate. Leave them out.*max_learning"),
        ({"optimizer": "polyak_sgd", "warmup": 5}, "no learning rate"),
        ({"optimizer": "rprop", "schedule": "cosine"}, "read only once.*Leave schedule"),
        ({"optimizer": "rprop", "warmup": 5}, "read only once"),
        ({"optimizer": "lbfgs", "schedule": "cosine"}, "line search"),
    ],
)
def test_contradictions_say_what_to_write(hparams: dict[str, Any], match: str) -> None:
    with pytest.raises(OptimizerError, match=match):
        read(hparams)


def test_no_strength_is_no_regularisation() -> None:
    settings = read({"optimizer": "adam", "weight_decay": 0.0, "l2_regularization": 0.0})
    assert settings.l2_regularization == 0.0


def test_weight_decay_of_zero_may_be_masked_and_varied() -> None:
    assert read({"weight_decay": 0.0, "decay_mask": "kernels"}).weight_decay == 0.0
