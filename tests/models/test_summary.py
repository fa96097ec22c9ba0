"""Model summaries: Flax's own where there is one."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

from boltax.models._adapter import adapt
from boltax.models._summary import narrowed, summarize
from boltax.models._variables_table import summarize_variables
from boltax.models._view import ModelView
from dummies import classifier
from model_dummies import INPUTS, KINDS, Autoencoder, Kind, NnxExplicit, NnxMlp, NormDropout

KEY = jax.random.key(0)
HAS_FLAX_TABLE = [name for name in KINDS if KINDS[name].is_flax and name != "nnx custom"]


def called(kind: Kind):
    adapter = adapt(kind.model_class, kind.hparams)
    views = []

    def init(key, inputs):
        view = ModelView(adapter, adapter.empty(key), key, train=True, initializing=True)
        view(inputs)
        views.append(view)

    jax.eval_shape(init, KEY, INPUTS)
    return adapter, views[0].calls


def assert_plain_text(text: str, width: int) -> None:
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("name", HAS_FLAX_TABLE)
def test_the_table_is_that_of_flax(name: str) -> None:
    adapter, calls = called(KINDS[name])
    text = summarize(adapter, calls)
    assert_plain_text(text, 160)
    assert f"{adapter.name} Summary" in text
    assert "Total Parameters" in text
    assert "float32[6,4]" in text


@pytest.mark.parametrize("name", ["linen norm dropout", "nnx norm dropout"])
def test_depth_limits_the_table(name: str) -> None:
    adapter, calls = called(KINDS[name])
    assert "BatchNorm" in summarize(adapter, calls)
    assert "BatchNorm" not in summarize(adapter, calls[0], depth=0)


def columns_of(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[2].strip("┃").split("┃")]


WIDTHS = {
    None: ["path", "module", "inputs", "outputs", "params", "batch_stats"],
    110: ["path", "module", "inputs", "outputs", "params", "batch_stats"],
    90: ["path", "module", "outputs", "params", "batch_stats"],
    80: ["path", "module", "outputs", "params", "batch_stats"],
    64: ["path", "module", "params", "batch_stats"],
    48: ["path", "params", "batch_stats"],
}


@pytest.mark.parametrize("width, columns", WIDTHS.items(), ids=map(str, WIDTHS))
def test_the_columns_that_do_not_fit_are_left_out(width: int | None, columns: list[str]) -> None:
    adapter, calls = called(Kind(NormDropout))
    text = summarize(adapter, calls, width=width)
    assert_plain_text(text, width or 160)
    assert columns_of(text) == columns
    assert "…" not in text
    assert "Dense_0" in text
    # by hand: Dense 4x8+8 and 8x3+3, BatchNorm 2x8 and two statistics of 8
    for count in ("40 (160 B)", "27 (108 B)", "83 (332 B)", "16 (64 B)", "99 (396 B)"):
        assert count in text


def test_parameters_stand_before_other_variables_in_every_process() -> None:
    for name, columns in {
        "linen norm dropout": ["params", "batch_stats"],
        "nnx norm dropout": ["Param", "BatchStat", "RngState"],
    }.items():
        text = summarize(*called(KINDS[name]), width=80)
        assert columns_of(text)[-len(columns) :] == columns
    drawn = summarize(*called(Kind(NormDropout)))
    turned = re.sub(r"(?m)^([│┃].*)([│┃])(.*)([│┃])(.*)([│┃])$", r"\1\2\5\4\3\6", drawn)
    assert columns_of(turned)[-2:] == ["batch_stats", "params"]
    assert narrowed(turned, 80) == narrowed(drawn, 80)


class Nested(nn.Module):
    """Modules with long paths, three deep."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        class Inner(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return nn.Dense(4, name="a_dense_layer_with_a_name")(x)

        class Outer(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return Inner(name="the_inner_part")(Inner(name="another_inner_part")(x))

        return Outer(name="the_outer_part")(x)


def test_long_paths_become_a_tree_where_they_do_not_fit() -> None:
    adapter, calls = called(Kind(Nested))
    whole, text = summarize(adapter, calls), summarize(adapter, calls, width=80)
    assert "the_outer_part/another_inner_part/a_dense_layer_with_a_name │" in whole
    assert_plain_text(text, 80)
    cells = [line.split("│")[1].rstrip() for line in text.splitlines() if line.startswith("│")]
    assert cells == [
        "",
        " the_outer_part",
        "   another_inner_part",
        "     a_dense_layer_with_a_name",
        "   the_inner_part",
        "     a_dense_layer_with_a_name",
        " Total",
    ]
    assert "…" not in text


@pytest.mark.parametrize("width", [20, 30, 40])
def test_where_nothing_fits_words_break_and_the_width_is_kept(width: int) -> None:
    adapter, calls = called(Kind(NormDropout))
    assert_plain_text(summarize(adapter, calls, width=width), max(width, 29))


@pytest.mark.parametrize("name", HAS_FLAX_TABLE)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_whole_summary_is_narrowed_as_a_new_one_would_be(name: str, width: int) -> None:
    adapter, calls = called(KINDS[name])
    text = narrowed(summarize(adapter, calls), width)
    assert text == summarize(adapter, calls, width=width)
    assert "…" not in text


def test_what_is_no_table_of_flax_stays_as_it_is() -> None:
    variables = summarize_variables({"params": {"kernel": jnp.ones((2, 3))}})
    for text in ("", "no table\n", variables, "┏━┳━┓\n┃a┃b┃\n├─┤\n│1│\n└─┘\n"):
        assert narrowed(text, 20) == text


class OwnTable:
    """An adapter that draws its table in a way of its own."""

    name = "Own"

    def tabulate(self, calls: object, *, depth: int | None, console: dict) -> str:
        return f"a table of {console['width']} columns\n"


def test_the_table_of_another_adapter_gets_the_width() -> None:
    assert summarize(OwnTable(), [], width=70) == "a table of 70 columns\n"
    assert summarize(OwnTable(), []) == "a table of 160 columns\n"


def test_a_long_path_of_a_variable_breaks_and_is_not_cut() -> None:
    tree = {"params": {"a_part_with_a_long_name" * 3: {"kernel": jnp.ones((2, 3))}}}
    text = summarize_variables(tree, width=60)
    assert_plain_text(text, 60)
    assert "…" not in text
    assert "float32" in text
    assert "params/" + "a_part_with_a_long_name" * 3 in summarize_variables(tree)


def test_all_calls_of_a_linen_model_are_in_the_table() -> None:
    adapter = adapt(Autoencoder, {})
    view = ModelView(adapter, {}, KEY, train=True, initializing=True)
    view.decode(view.encode(INPUTS))
    text = summarize(adapter, view.calls)
    assert "encoder/layers_0" in text
    assert "decoder" in text


@pytest.mark.parametrize("name", ["nnx custom"])
def test_without_a_table_of_flax_the_variables_are_listed(name: str) -> None:
    adapter, calls = called(KINDS[name])
    text = summarize(adapter, calls)
    assert_plain_text(text, 160)
    assert "params/dense/kernel" in text
    assert "arrays/scale" in text
    assert "Flax made no table of NnxCustom: KeyError" in text


def test_a_model_that_was_not_called_is_listed_too() -> None:
    adapter = adapt(NnxMlp, {})
    assert "params/first/kernel" in summarize(adapter, [])


def test_a_table_that_fails_leaves_the_classes_alone() -> None:
    class Failing(NnxExplicit):
        def __call__(self, x, train=True):
            raise ValueError("mine")

    adapter = adapt(Failing, {})
    classes = (Failing, NnxExplicit, nnx.Linear, nnx.Dropout)
    before = [dict(vars(cls)) for cls in classes]
    _, calls = called(Kind(NnxExplicit))
    with pytest.raises(ValueError, match="mine"):
        adapter.tabulate(calls, depth=None, console={})
    assert [dict(vars(cls)) for cls in classes] == before


def test_variables_are_listed_with_sizes() -> None:
    kernel = jax.ShapeDtypeStruct((1000, 250), jnp.float32)
    text = summarize_variables(
        {"params": {"dense": {"kernel": kernel}}, "stats": {"n": jnp.ones(2)}}
    )
    assert_plain_text(text, 160)
    assert "params/dense/kernel │ (1000, 250) │ float32" in text
    assert "250,000" in text
    assert "params: 250,000 (1.0 MB)" in text
    assert "250,002 (1.0 MB)" in text
    assert "stats: 2 (8 B)" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_trainer_prints_what_fits_and_writes_the_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    trainer = classifier(tmp_path, enable_progress_bar=True)
    shown = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "┏┃┡│├└"]
    assert shown
    assert max(map(len, shown)) <= width
    whole = (Path(trainer.log_dir) / "model.txt").read_text()
    assert trainer._made.summary == whole
    assert "kernel: float32[4,8]" in whole
    assert ("kernel: float32[4,8]" in "".join(shown)) == (width == 120)
