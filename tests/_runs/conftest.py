"""A run that a trainer made."""

import numpy as np
import pytest

import boltax as bx
import dummies


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run of two epochs, with records of steps and a picture in TensorBoard's file."""

    class Drawing(dummies.Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            self.logger.log_image("samples", np.zeros((4, 4, 3), np.uint8), self.run.step)

    params = {"base_log_dir": str(tmp_path_factory.mktemp("runs")), "logger_type": "TensorBoard"}
    trainer = dummies.classifier(
        "unused", Drawing, dummies.Plain, logger_params=params, loop=bx.LoopOptions(log_every=1)
    )
    trainer.train_model(dummies.loader(32), dummies.loader(16), num_epochs=2)
    return trainer
