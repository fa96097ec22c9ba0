"""The demo's settings: every data set has one that fits its model and its sets."""

import inspect

import pytest

from boltax.demo._augment import AUGMENTATIONS
from boltax.demo._model import ResNet
from boltax.demo._recipes import RECIPES, Recipe, find_recipe, load
from boltax.errors import ConfigurationError, UnknownNameError
from boltax.optim._build import build

EACH = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@EACH
def test_the_model_takes_its_arguments(recipe: Recipe) -> None:
    assert set(recipe.model_hparams) <= set(inspect.signature(ResNet).parameters)
    assert len(recipe.model_hparams["block_sizes"]) == len(recipe.model_hparams["widths"])


@EACH
def test_the_optimizer_can_be_built(recipe: Recipe) -> None:
    description = build(dict(recipe.optimizer_hparams), total_steps=100).describe
    assert "warmup_cosine (warmup 10 of 100)" in description


@EACH
def test_the_augmentation_exists(recipe: Recipe) -> None:
    assert recipe.augmentation in AUGMENTATIONS


def test_evaluation_batches_of_digits_are_all_whole() -> None:
    pytest.importorskip("sklearn")
    data, size = load("digits", None), find_recipe("digits").eval_batch_size
    assert all(len(labels) % size == 0 for _, labels in (data.val, data.test))


def test_a_misspelt_data_set_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        find_recipe("digit")


def test_digits_take_no_path() -> None:
    with pytest.raises(ConfigurationError, match="Leave --path out"):
        load("digits", "folder")
