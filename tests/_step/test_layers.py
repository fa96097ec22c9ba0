"""Norms and histograms of each layer: those of the step of the record, and of no other."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._loop._layers import as_histogram
from boltax._step._layers import Watched, layer_metrics
from boltax.errors import ConfigurationError
from boltax.loggers._foreign import ForeignLogger
from boltax.tune import Population
from compile_counts import STEPS, compiled
from dummies import Classifier, GuideRegressor, Linear, Plain, classes, classifier, line, to_host

EVERY = 3
DATA = [classes(8, seed) for seed in range(5)]


class Kept(bx.loggers.NoLogger):
    """Keeps what it is given."""

    def __init__(self):
        self.numbers, self.histograms = {}, {}

    def log_metrics(self, metrics, step=None):
        self.numbers.setdefault(step, {}).update(metrics)

    def log_histogram(self, key, values, step=None):
        self.histograms.setdefault(step, {})[key] = values


def make(folder, logger="none", cls=Classifier, **loop):
    options = {"log_every": EVERY, "log_norms": "histograms", "steps_per_execution": 1}
    return classifier(
        folder,
        cls,
        model_class=Plain,
        loop=bx.LoopOptions(**{**options, **loop}),
        logger_params={"base_log_dir": str(folder), "logger_type": logger},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    logger = Kept()
    trainer = make(tmp_path_factory.mktemp("layers"), logger)
    trainer.train_model(DATA, num_epochs=1)
    return logger, trainer


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """Parameters, gradients and updates of the third step, with `trainer.gradients`."""
    trainer = make(tmp_path_factory.mktemp("by_hand"))
    trainer.init_optimizer(1, len(DATA))
    for batch in DATA[: EVERY - 1]:
        trainer.state, _ = trainer.train_step(trainer.state, jax.device_put(batch))
    before = to_host(trainer.state.params)
    gradients = trainer.gradients(DATA[EVERY - 1])[1]
    trainer.state, _ = trainer.train_step(trainer.state, jax.device_put(DATA[EVERY - 1]))
    after = to_host(trainer.state.params)
    updates = jax.tree.map(np.subtract, after, before)
    return {"params": after, "gradients": gradients, "updates": updates}


def flat(layer):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(layer)])


def test_norms_are_those_of_the_layers_at_the_step_of_the_record(run, by_hand):
    record = run[0].numbers[EVERY]
    for layer in ("Dense_0", "Dense_1"):
        norms = {kind: np.linalg.norm(flat(tree[layer])) for kind, tree in by_hand.items()}
        prefix = "train/step/layers/"
        assert record[f"{prefix}param_norm/{layer}"] == pytest.approx(norms["params"], rel=1e-5)
        assert record[f"{prefix}grad_norm/{layer}"] == pytest.approx(norms["gradients"], rel=1e-4)
        assert record[f"{prefix}update_norm/{layer}"] == pytest.approx(norms["updates"], rel=1e-4)
        ratio = norms["updates"] / norms["params"]
        assert record[f"{prefix}update_ratio/{layer}"] == pytest.approx(ratio, rel=1e-4)


def test_histograms_count_as_numpy_does(run, by_hand):
    histograms = run[0].histograms[EVERY]
    assert len(histograms) == 2 * 3
    for kind, tree in by_hand.items():
        values = flat(tree["Dense_0"]).astype(np.float64)
        found = histograms[f"train/step/layers/{kind}/Dense_0"]
        counts, _ = np.histogram(values, found.edges)
        # a value at a limit may fall on either side of it
        assert np.abs(np.cumsum(counts) - np.cumsum(found.counts)).max() <= 1
        assert found.counts.sum() == values.size
        assert (found.minimum, found.maximum) == pytest.approx((values.min(), values.max()))
        assert found.total == pytest.approx(values.sum(), abs=1e-4)
        assert found.squares == pytest.approx((values**2).sum(), rel=1e-4)


def test_an_epoch_has_no_step_to_tell_of(run):
    logger, trainer = run
    assert not [name for name in trainer.run.history[-1] if "layers" in name]
    assert not [name for name in logger.numbers[len(DATA)] if "layers" in name]


def test_values_that_are_not_finite_or_all_the_same_have_a_histogram_too():
    state = bx.TrainState(np.int32(0), None, {"a": np.float32([1, 1])}, None, None)
    odd = {"a": np.float32([np.nan, np.inf])}
    found = jax.jit(lambda: layer_metrics(Watched(1, True), state, state, odd, {}))()
    same, none = (found[f"layers/histograms/{kind}/a"] for kind in ("params", "gradients"))
    assert as_histogram(none[0]) is None
    histogram = as_histogram(same[0])
    assert (histogram.edges[0], histogram.edges[-1], histogram.counts.sum()) == (0.5, 1.5, 2)
    assert np.isnan(found["layers/grad_norm/a"][0])


def test_a_branch_is_a_branch_in_populations_too_and_compiles_nothing_more(tmp_path):
    trainer = make(tmp_path)
    trainer.init_optimizer(1, 1)
    members = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), trainer.state)
    step = jax.vmap(trainer._made.loss_steps.train_step, in_axes=(0, None))
    assert "cond[" in str(jax.make_jaxpr(step)(members, DATA[0]))
    counts = []
    for log_norms in (False, "histograms"):
        before = compiled.copy()
        make(tmp_path, log_norms=log_norms).train_model(DATA, num_epochs=1)
        counts.append({name: n for name, n in (compiled - before).items() if name in STEPS})
    assert counts[0] == counts[1] != {}


def test_a_member_has_the_record_of_its_single_run(tmp_path, run):
    logger = Kept()
    Population(make(tmp_path, logger), [{"lr": 1e-2}, {"lr": 3e-2}]).train_model(DATA, num_epochs=1)
    own, single = logger.numbers[EVERY], run[0].numbers[EVERY]
    names = [name for name in single if "layers" in name]
    assert len(names) == 8
    for name in names:
        assert own[f"member_000/{name}"] == pytest.approx(single[name], rel=1e-4)
    assert len(logger.histograms[EVERY]) == 2 * 6


def test_they_reach_tensorboard_and_a_table(tmp_path):
    values_in = pytest.importorskip("boltax.loggers._event_file").values_in
    trainer = make(tmp_path, ["TensorBoard", "csv"])
    trainer.train_model(DATA, num_epochs=1)
    folder = bx.checkpoint.RunDirectory(trainer.log_dir).path
    values = [value for step, value in values_in(folder.glob("events*")) if step == EVERY]
    found = {value.tag: value.histo for value in values if value.HasField("histo")}
    size = sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params["Dense_0"]))
    assert found["train/step/layers/gradients/Dense_0"].num == size
    with (folder / "metrics.csv").open() as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    assert float(rows[str(EVERY)]["train/step/layers/update_ratio/Dense_1"]) > 0


def test_a_logger_that_counts_itself_gets_values():
    given = {}

    class Other:
        def log_metrics(self, metrics, step):
            raise AssertionError

        def log_histogram(self, key, values, step):
            given[key] = values

    numbers = np.float32([*[3.0] * 10, *range(54), 5.0, 0.0, 7.0, 9.0])
    ForeignLogger(Other()).log_histogram("a", as_histogram(numbers), 1)
    assert given["a"].size == numbers[:64].sum()


def test_what_is_no_choice_and_own_steps_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"log_norms.*Did you mean 'layers'"):
        bx.LoopOptions(log_norms="layer")
    with pytest.raises(ConfigurationError, match=r"log_norms='layers'.*create_functions"):
        classifier(
            tmp_path,
            GuideRegressor,
            model_class=Linear,
            exmp_input=[line()[0][:4]],
            loop=bx.LoopOptions(log_norms="layers"),
        )
