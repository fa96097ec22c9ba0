"""Which axis divides which dimension: rules, the model's names, size; by hand."""

import re

import jax
import pytest
from jax.sharding import PartitionSpec as P

from boltax.errors import ConfigurationError, UnknownNameError
from boltax.parallel import Parallel
from boltax.parallel._rules import Rules, specs_of_state

SIZES = {"data": 4, "model": 2}
MESH = dict(SIZES)


def form(*shape):
    return jax.ShapeDtypeStruct(shape, "float32")


VARIABLES = {
    "batch_stats": {"norm": {"mean": form(8)}},
    "params": {"mlp": {"bias": form(8), "kernel": form(6, 8)}, "out": {"kernel": form(8, 3)}},
}


def specs(named=None, **arguments):
    rules = Rules(Parallel(mesh=MESH, **arguments), SIZES)
    mean, bias, kernel, out = rules.of_variables(VARIABLES, named or {})
    return {"mean": mean, "bias": bias, "kernel": kernel, "out": out}


def test_without_a_word_each_device_has_the_whole():
    assert set(specs().values()) == {P()}


def test_large_arrays_are_divided_in_the_longest_dimension_that_can_be():
    found = specs(fsdp="data", min_shard_bytes=0)
    assert found == {
        "mean": P("data"),
        "bias": P("data"),
        "kernel": P(None, "data"),
        "out": P("data"),
    }
    assert specs(fsdp="data", min_shard_bytes=100)["bias"] == P()
    assert specs(fsdp="data", min_shard_bytes=6 * 8 * 4)["kernel"] == P(None, "data")


def test_the_first_rule_that_is_found_counts_before_names_and_size():
    found = specs(
        {("params", "mlp", "kernel"): ("model", None), ("params", "out", "kernel"): ("data", None)},
        rules=[("mlp/kernel$", (None, "model")), ("kernel", ()), ("^batch_stats/", ("model",))],
        fsdp="data",
        min_shard_bytes=0,
    )
    assert found == {"mean": P("model"), "bias": P("data"), "kernel": P(None, "model"), "out": P()}


def test_names_of_the_model_stand_for_axes():
    named = {("params", "mlp", "kernel"): ("embed", ("mlp", "heads"))}
    logical = {"embed": None, "mlp": "model", "heads": "data"}
    assert specs(named, logical_axes=logical)["kernel"] == P(None, ("model", "data"))
    named = {("params", "mlp", "kernel"): (None, "model")}
    assert specs(named)["kernel"] == P(None, "model")
    assert specs({("params", "mlp", "kernel"): ("embed", "mlp")})["kernel"] == P()
    with pytest.raises(UnknownNameError, match="embd"):
        specs({("params", "mlp", "kernel"): ("embd", None)}, logical_axes=logical)


MISFITS = {
    "no match": ([("mlp/weight", (None,))], "finds no variable"),
    "too many axes": ([("mlp/bias", (None, "model"))], "2 axes (None, 'model') by the rule"),
    "not divisible": ([("out/kernel", (None, "model"))], "dimension 1 of 3 is to be divided"),
    "not by both": ([("mlp/kernel", (("model", "data"),))], "8 parts"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_rule_that_does_not_fit_is_refused(case):
    rules, told = MISFITS[case]
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        specs(rules=rules)


def test_the_state_of_an_optimizer_lies_as_its_parameters():
    rules = Rules(Parallel(mesh=MESH, fsdp="data", min_shard_bytes=200), SIZES)
    found = [P(None), P("data"), P("model"), P()]
    state = {
        "count": form(),
        "mu": {"mlp": {"bias": form(8), "kernel": form(6, 8)}},
        "rows": {"mlp": {"kernel": form(6)}},
        "table": form(100, 3),
    }
    specs = specs_of_state(state, VARIABLES, found, rules)
    assert specs == [P(), P("data"), P("model"), P(), P("data")]
