"""Every method of the contract is a real override point: each test overrides one and sees it."""

import json
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.checkpoint._rundir import RunDirectory
from dummies import Classifier, classes, classifier, loader


def train(folder, trainer_class, **options):
    trainer = classifier(folder, trainer_class, **options)
    trainer.result = trainer.train_model(loader(), loader(), loader(), num_epochs=2)
    return trainer


def test_init_logger(tmp_path):
    class Own(Classifier):
        def init_logger(self, logger_params):
            super().init_logger({**logger_params, "logger_name": "mine"})

    assert Path(train(tmp_path, Own).log_dir) == tmp_path / "Mlp" / "mine" / "version_0"


def test_init_logger_with_an_object_of_the_users(tmp_path):
    class Memory:
        log_dir = str(tmp_path / "own")
        rows: ClassVar[list] = []

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, dict(metrics)))

    class Own(Classifier):
        def init_logger(self, logger_params):
            Path(Memory.log_dir).mkdir()
            self.logger = Memory()
            self.log_dir = Memory.log_dir

    trainer = train(tmp_path, Own)
    assert trainer.log_dir == Memory.log_dir
    assert any("val/acc" in row for _, row in Memory.rows)


def test_init_model(tmp_path):
    class Own(Classifier):
        def init_model(self, exmp_input):
            super().init_model(exmp_input)
            self.state = self.state.replace(params=jax.tree.map(jnp.zeros_like, self.state.params))

    assert not np.any(classifier(tmp_path, Own).state.params["Dense_0"]["kernel"])


def test_run_model_init(tmp_path):
    class Own(Classifier):
        def run_model_init(self, exmp_input, init_rng):
            keys = dict(zip(["params", "dropout"], jax.random.split(init_rng), strict=True))
            variables = self.model.init(keys, exmp_input[0], train=True)
            return jax.tree.map(lambda leaf: leaf + 1, variables)

    assert float(train(tmp_path, Own).run.step) == 8
    np.testing.assert_array_equal(
        classifier(tmp_path, Own).state.batch_stats["BatchNorm_0"]["mean"], 1.0
    )


def test_print_tabulate(tmp_path, capsys):
    class Own(Classifier):
        def print_tabulate(self, exmp_input):
            print("my table of", exmp_input[0].shape)

    classifier(tmp_path, Own)
    assert "my table of (4, 4)" in capsys.readouterr().out


def test_init_optimizer(tmp_path):
    class Own(Classifier):
        asked = None

        def init_optimizer(self, num_epochs, num_steps_per_epoch):
            Own.asked = (num_epochs, num_steps_per_epoch)
            tx = optax.sgd(0.0)
            self.state = self.state.replace(tx=tx, opt_state=tx.init(self.state.params))

    before = np.asarray(classifier(tmp_path, Own).state.params["Dense_0"]["kernel"])
    np.testing.assert_array_equal(train(tmp_path, Own).state.params["Dense_0"]["kernel"], before)
    assert Own.asked == (2, 4)


def test_loss_function(tmp_path):
    class Own(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return loss * 0 + 7.0, metrics

    assert train(tmp_path, Own).result["test/loss"] == pytest.approx(7.0)


def test_predict_function(tmp_path):
    class Own(Classifier):
        def predict_function(self, model, batch):
            return jax.nn.softmax(model(batch[0]))

    np.testing.assert_allclose(
        classifier(tmp_path, Own).predict_model(loader()).sum(-1), 1.0, rtol=1e-5
    )


def test_create_functions(tmp_path):
    class Own(Classifier):
        def create_functions(self):
            train_step, eval_step = super().create_functions()
            return train_step, lambda state, batch: {
                **eval_step(state, batch),
                "constant": jnp.float32(3),
            }

    assert train(tmp_path, Own).result["test/constant"] == 3.0


def test_create_jitted_functions(tmp_path):
    calls = []

    class Own(Classifier):
        def create_jitted_functions(self):
            super().create_jitted_functions()
            compiled = self.train_step
            self.train_step = lambda state, batch: (calls.append(1), compiled(state, batch))[1]

    assert train(tmp_path, Own).result["test/acc"] > 0
    assert len(calls) == 8


def test_train_epoch(tmp_path):
    class Own(Classifier):
        def train_epoch(self, train_loader):
            return {**super().train_epoch(train_loader), "train/extra": 5.0}

    trainer = train(tmp_path, Own)
    assert [row["train/extra"] for row in trainer.run.history] == [5.0, 5.0]


def test_train_epoch_written_as_in_the_guide(tmp_path):
    class Own(Classifier):
        def train_epoch(self, train_loader):
            total = 0.0
            for batch in self.tracker(train_loader, desc="Training", leave=False):
                self.state, metrics = self.train_step(self.state, batch)
                total += metrics["loss"].mean() / len(train_loader)
            return {"train/loss": total.item()}

    trainer = train(tmp_path, Own)
    assert int(trainer.state.step) == 8
    assert trainer.run.history[1]["train/loss"] < trainer.run.history[0]["train/loss"]


def test_eval_model(tmp_path):
    class Own(Classifier):
        def eval_model(self, loader, log_prefix=""):
            return {f"{log_prefix}acc": 0.5, f"{log_prefix}other": 2.0}

    result = train(tmp_path, Own).result
    assert {n: v for n, v in result.items() if not n.startswith("train/")} == {
        "val/acc": 0.5,
        "val/other": 2.0,
        "test/acc": 0.5,
        "test/other": 2.0,
    }


def test_predict_model(tmp_path):
    class Own(Classifier):
        def predict_model(self, loader):
            return super().predict_model(loader).argmax(-1)

    assert classifier(tmp_path, Own).predict_model(loader()).shape == (50,)


@pytest.mark.parametrize("prefer", ["first", "last"])
def test_is_new_model_better(tmp_path, prefer):
    class Own(Classifier):
        def is_new_model_better(self, new, old):
            return old is None or prefer == "last"

    steps = [
        int(p.name)
        for p in RunDirectory(train(tmp_path, Own).log_dir).best.iterdir()
        if p.name.isdigit()
    ]
    assert steps == [4 if prefer == "first" else 8]


def test_hooks_see_the_live_state(tmp_path):
    seen = []

    class Own(Classifier):
        def on_training_start(self):
            seen.append(("start", int(self.state.step)))

        def on_training_epoch_end(self, epoch_idx):
            seen.append((epoch_idx, int(self.state.step)))

        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            assert self.eval_model(val_loader, "val/")["val/acc"] == eval_metrics["val/acc"]
            eval_metrics["val/mine"] = 1.5

        def on_training_end(self):
            seen.append(("end", int(self.state.step)))

    trainer = train(tmp_path, Own)
    assert seen == [("start", 0), (1, 4), (2, 8), ("end", 8)]
    assert trainer.result["val/mine"] == 1.5


def test_tracker(tmp_path):
    seen = []

    class Own(Classifier):
        def tracker(self, iterator, **kwargs):
            seen.append(kwargs["desc"])
            return iterator

    train(tmp_path, Own)
    assert seen == ["Epochs", "Training", "Validation", "Training", "Validation", "Test"]


def test_tracker_gives_the_iterator_itself_without_progress_bar(tmp_path):
    items = iter([1])
    assert classifier(tmp_path).tracker(items, desc="Epochs") is items


def test_save_metrics(tmp_path):
    saved = {}

    class Own(Classifier):
        def save_metrics(self, filename, metrics):
            saved[filename] = metrics

    train(tmp_path, Own)
    assert set(saved) == {"eval_epoch_001", "eval_epoch_002", "best_eval", "test"}


def test_save_model_and_load_model(tmp_path):
    class Own(Classifier):
        def save_model(self, step=0):
            self.kept = (step, jax.device_get(self.state.params))

        def load_model(self):
            self.state = self.state.replace(params=jax.tree.map(jnp.zeros_like, self.state.params))

    trainer = train(tmp_path, Own)
    assert trainer.kept[0] in (4, 8)
    assert not np.any(trainer.state.params["Dense_0"]["kernel"])


def test_bind_model(tmp_path):
    class Own(Classifier):
        def bind_model(self):
            model = super().bind_model()
            return lambda x: model(x).argmax(-1)

    assert classifier(tmp_path, Own).bind_model()(classes(6)[0]).shape == (6,)


def test_log_of_an_optuna_like_prune_ends_the_run_cleanly(tmp_path):
    class TrialPruned(Exception):
        pass

    class Own(Classifier):
        def on_validation_epoch_end(self, epoch_idx, eval_metrics, val_loader):
            raise TrialPruned

    trainer = classifier(tmp_path, Own)
    with pytest.raises(TrialPruned):
        trainer.train_model(loader(), loader(), num_epochs=3)
    rows = Path(trainer.log_dir, "metrics.csv").read_text().splitlines()
    assert any("train/loss" in row for row in rows[:1])
    assert trainer.eval_model(loader())["acc"] >= 0


def test_metrics_files_are_json_that_reads_back(tmp_path):
    trainer = train(tmp_path, Classifier)
    best = json.loads(Path(trainer.log_dir, "metrics/best_eval.json").read_text())
    assert best["val/acc"] == trainer.result["val/acc"]
