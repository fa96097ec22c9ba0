"""Members with several optimizers by name are their single runs."""

import jax
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.errors import ConfigurationError, OptimizerError, UnknownNameError
from boltax.tune import Population, PopulationBasedTraining, optimize
from compile_counts import STEPS, compiled
from dummies import ActorCritic, OneByOne, Plain, classifier, line, loader
from tune_dummies import arrays, train_loader

PARTS = {
    "actor": {"optimizer": "adam", "lr": 0.05},
    "critic": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "warmup": 2},
}
MEMBERS = [
    {"seed": 1, "actor.lr": 0.02},
    {"actor.lr": 0.1, "actor.b1": 0.8, "critic.weight_decay": 0.1, "critic.gradient_clip": 0.3},
]


def one_by_one(folder, **options):
    options = {"optimizer_hparams": {"optimizers": PARTS}, **options}
    return classifier(folder, OneByOne, ActorCritic, exmp_input=[line(4)[0]], **options)


def lines():
    return bx.data.ArrayLoader(line(32), 8)


@pytest.mark.parametrize("size", [1, 2])
def test_each_optimizer_has_its_own_numbers_in_each_member(tmp_path, size):
    together = Population(one_by_one(tmp_path), MEMBERS, members_per_step=size)
    table = together.train_model(lines(), lines(), num_epochs=2)
    actor = {**PARTS["actor"], "lr": 0.1, "b1": 0.8}
    critic = {**PARTS["critic"], "weight_decay": 0.1, "gradient_clip": 0.3}
    hparams = {"optimizers": {"actor": actor, "critic": critic}}
    alone = one_by_one(tmp_path, optimizer_hparams=hparams)
    metrics = alone.train_model(lines(), lines(), num_epochs=2)
    member = together.member(1)
    assert member.optimizer_hparams == hparams
    assert int(member.state.step) == 8
    # The betas of Adam as values are rounded to float32 first.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        arrays(member)["params"],
        arrays(alone)["params"],
    )
    assert table[1]["val/loss"] == pytest.approx(metrics["val/loss"], rel=1e-4)
    assert (table[0]["critic.weight_decay"], table[1]["actor.b1"]) == (0.0, 0.8)


def test_learning_rates_of_parts_in_turn_are_those_of_single_runs_bit_for_bit(tmp_path):
    members = [{"actor.lr": 0.02, "critic.lr": 0.2}, {"actor.lr": 0.03, "critic.lr": 0.3}]
    together = Population(one_by_one(tmp_path), members, members_per_step=1)
    together.train_model(lines(), num_epochs=2)
    parts = {"actor": {**PARTS["actor"], "lr": 0.03}, "critic": {**PARTS["critic"], "lr": 0.3}}
    alone = one_by_one(tmp_path, optimizer_hparams={"optimizers": parts})
    alone.train_model(lines(), num_epochs=2)
    jax.tree.map(np.testing.assert_array_equal, arrays(together.member(1)), arrays(alone))


def test_parts_may_be_transformations_and_functions(tmp_path):
    def parts(lr):
        own = optax.inject_hyperparams(optax.sgd)(learning_rate=lr)
        return {"Dense_0": own, "Dense_1": lambda total_steps: optax.adam(1.0 / total_steps)}

    options = {"model_class": Plain}
    trainer = classifier(tmp_path, optimizer_hparams={"optimizers": parts(0.1)}, **options)
    members = [{"Dense_0.lr": 0.01}, {"Dense_0.lr": 0.3}]
    together = Population(trainer, members, members_per_step=2)
    together.train_model(train_loader(), num_epochs=1)
    alone = classifier(tmp_path, optimizer_hparams={"optimizers": parts(0.3)}, **options)
    alone.train_model(train_loader(), num_epochs=1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6),
        arrays(together.member(1))["params"],
        arrays(alone)["params"],
    )


def test_learning_rates_of_parts_evolve(tmp_path):
    evolve = PopulationBasedTraining(("val/loss", "min"), {"actor.lr": (1e-3, 1.0)})
    together = Population(one_by_one(tmp_path), MEMBERS, members_per_step=2, scheduler=evolve)
    together.train_model(lines(), lines(), num_epochs=2)
    (copied,) = (member for member in together.members if member.copied_from)
    rates = bx.optim.learning_rate(together.member(copied.number).state.opt_state)
    factor = rates["actor"] / copied.values["actor.lr"]  # where the schedule is by now
    other = together.members[1 - copied.number]
    assert copied.values["actor.lr"] != other.values["actor.lr"]
    rates = bx.optim.learning_rate(together.member(other.number).state.opt_state)
    assert factor == pytest.approx(rates["actor"] / other.values["actor.lr"])


@pytest.mark.parametrize(
    ("member", "error", "match"),
    [
        ({"lr": 0.1}, UnknownNameError, r"of member 0 'lr'.*Did you mean 'actor.lr'\?"),
        ({"acter.lr": 0.1}, UnknownNameError, r"'acter.lr'.*Did you mean 'actor.lr'\?"),
        ({"actor.momentum": 0.1}, UnknownNameError, r"'actor.momentum'.*'critic.momentum'\?"),
        ({"critic.optimizer": "adam"}, ConfigurationError, "members with critic.optimizer, which"),
        ({"critic.lr": -1.0}, OptimizerError, "Received lr=-1.0"),
        ({"critic.l2_regularization": 0.1}, OptimizerError, "expected it in the loss"),
        ({"actor.weight_decay": 0.1}, ConfigurationError, "members with actor.weight_decay"),
    ],
)
def test_what_parts_do_not_have_is_told(tmp_path, member, error, match):
    with pytest.raises(error, match=match):
        Population(one_by_one(tmp_path), [member])


def test_a_learning_rate_that_bends_the_schedule_of_a_part_is_refused(tmp_path):
    schedule = {"name": "warmup_cosine_decay_schedule", "warmup_steps": 2, "end_value": 0.01}
    parts = {**PARTS, "critic": {"optimizer": "sgd", "schedule": schedule}}
    trainer = one_by_one(tmp_path, optimizer_hparams={"optimizers": parts})
    population = Population(trainer, [{"critic.lr": 0.1}, {"critic.lr": 0.5}])
    with pytest.raises(OptimizerError, match="expected a schedule that lr multiplies") as raised:
        population.train_model(lines(), num_epochs=1)
    assert "['critic']" in str(raised.value.__notes__)


def test_a_study_of_learning_rates_of_parts_compiles_once(tmp_path):
    def make_trainer(inner, outer):
        hparams = {"optimizers": {"Dense_0": {"lr": inner}, "Dense_1": {"lr": outer}}}
        return classifier(tmp_path, model_class=Plain, optimizer_hparams=hparams)

    compiled.clear()
    study = optimize(
        make_trainer,
        {"inner": ("log", 1e-3, 1e-1), "outer": ("log", 1e-3, 1e-1)},
        loader(32, 16),
        loader(32, 16),
        num_epochs=1,
        n_trials=4,
        population=2,
        enable_progress_bar=False,
    )
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert sum(compiled[name] for name in STEPS) == 2  # training and evaluation
    trial = study.trials[1]
    alone = make_trainer(**trial.params)
    metrics = alone.train_model(loader(32, 16), loader(32, 16), num_epochs=1)
    assert trial.value == pytest.approx(metrics["val/acc"])
