"""The frame of a run: one writer in its folder, and an end that says how it came."""

import threading

import numpy as np
import pytest

from boltax.errors import RunDirectoryError
from dummies import Classifier, classifier, loader
from tune_dummies import arrays


def trained(folder, trainer_class=Classifier):
    trainer = classifier(folder, trainer_class)
    trainer.train_model(loader(32, 8), loader(16, 8), num_epochs=3)
    return trainer


class Again(Classifier):
    """Starts a second training from a hook of the first."""

    refused = 0

    def on_training_epoch_end(self, epoch_idx):
        with pytest.raises(RunDirectoryError):
            self.train_model(loader(32, 8), num_epochs=1)
        self.refused += 1


class Beside(Classifier):
    """Starts a second training in another thread."""

    refused = 0

    def on_training_epoch_end(self, epoch_idx):
        thread = threading.Thread(target=self._again)
        thread.start()
        thread.join()

    def _again(self):
        with pytest.raises(RunDirectoryError):
            self.train_model(loader(32, 8), num_epochs=1)
        self.refused += 1


@pytest.mark.parametrize("trainer_class", [Again, Beside])
def test_a_training_that_is_refused_touches_nothing(tmp_path, trainer_class):
    alone, disturbed = trained(tmp_path / "alone"), trained(tmp_path / "other", trainer_class)
    assert disturbed.refused == 3
    np.testing.assert_equal(arrays(disturbed), arrays(alone))
    assert [row["val/loss"] for row in disturbed.run.history] == [
        row["val/loss"] for row in alone.run.history
    ]
    assert not disturbed.run.is_active
