"""What is stored of a trainer has the names of the guide."""

import boltax as bx
from boltax._build._stored import config_of, name_of_model
from dummies import Mlp


def test_the_configuration_has_the_names_of_the_guide():
    config = config_of(
        model_class="Mlp",
        model_hparams={"features": 4},
        optimizer_hparams=bx.optim.build({"lr": 0.1}, 10).tx,
        hparams={"beta": 0.5},
        seed=3,
    )
    assert config == {
        "model_class": "Mlp",
        "model_hparams": {"features": 4},
        "optimizer_hparams": "an optax transformation",
        "seed": 3,
        "beta": 0.5,
    }


def test_a_model_is_named_by_its_class():
    assert name_of_model(Mlp) == name_of_model(Mlp()) == "Mlp"
