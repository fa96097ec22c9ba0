"""An ensemble: what the best models of members predict."""

import numpy as np
import pytest

from boltax.errors import TrainingError
from boltax.tune import Population
from dummies import Plain, classifier, loader
from tune_dummies import MEMBERS, SGD, train_loader


def test_the_best_models_predict_side_by_side(tmp_path):
    params = {"log_dir": str(tmp_path), "logger_type": "none"}
    options = {"model_class": Plain, "optimizer_hparams": SGD, "logger_params": params}
    population = Population(classifier("unused", **options), MEMBERS, members_per_step=2)
    with pytest.raises(TrainingError, match="train_model first"):
        population.predict(loader(20, 8))
    population.train_model(train_loader(), loader(32, 8), num_epochs=2)
    found = population.predict(loader(20, 8))
    assert (found.members, found.outputs.shape) == ((0, 1, 2), (3, 20, 3))
    member = population.member(1)
    member.load_model()
    np.testing.assert_allclose(found.outputs[1], member.predict_model(loader(20, 8)), atol=1e-6)
    np.testing.assert_allclose(found.mean(), found.outputs.sum(0) / 3, rtol=1e-5)
    squares = ((found.outputs - found.mean()) ** 2).sum(0) / 3
    np.testing.assert_allclose(found.spread(), np.sqrt(squares), rtol=1e-4, atol=1e-6)
