"""Several loaders at once: side by side, or mixed by weights."""

import numpy as np
import pytest

import boltax as bx
from boltax.data import ArrayLoader, Mixture, Together
from boltax.data._source import as_source
from boltax.errors import ConfigurationError, DataError, UnknownNameError
from boltax.testing import assert_resumes_exactly
from dummies import Classifier, Plain, classes, classifier


def numbers(first, count, size=2, **options):
    return ArrayLoader(np.arange(first, first + count, dtype=np.int32), size, **options)


def pair():
    return {"a": numbers(0, 12, shuffle=True), "b": numbers(100, 4, shuffle=True)}


def drawn(source, epoch, after=None):
    return [(batch, cursor) for batch, cursor in source.epoch(epoch, after)]


def test_the_longest_loader_is_seen_once_and_the_shorter_ones_begin_anew():
    source = as_source(pair())
    assert source.num_batches == 6
    batches = [batch for batch, _ in source.epoch(1)]
    assert sorted(np.concatenate([batch["a"] for batch in batches])) == list(range(12))
    others = [sorted(np.concatenate([b["b"] for b in batches[i : i + 2]])) for i in (0, 2, 4)]
    assert others == [list(range(100, 104))] * 3
    orders = {tuple(np.concatenate([b["b"] for b in batches[i : i + 2]])) for i in (0, 2, 4)}
    again = [batch["b"] for batch, _ in source.epoch(2)]
    assert len(orders | {tuple(np.concatenate(again[:2]))}) > 1  # not one order for ever


def test_zipped_an_epoch_ends_with_the_shortest():
    source = as_source(Together(pair(), until="shortest"))
    assert source.num_batches == len(drawn(source, 1)) == 2


def mixture(**options):
    return Mixture([(numbers(0, 12, shuffle=True), 0.75), (numbers(100, 4), 0.25)], **options)


@pytest.mark.parametrize(
    "loader",
    [pair, mixture, lambda: Together(pair(), until="shortest")],
    ids=["pair", "mixture", "zipped"],
)
def test_each_place_is_gone_on_from_exactly(loader):
    for epoch in (1, 2):
        whole = drawn(as_source(loader()), epoch)
        for at, (_, cursor) in enumerate(whole[:-1], 1):
            rest = drawn(as_source(loader()), epoch, cursor)
            for (left, one), (right, other) in zip(whole[at:], rest, strict=True):
                assert one == other
                np.testing.assert_equal(left, right)


def test_a_mixture_has_its_weights_and_another_order_in_each_epoch():
    source = as_source(mixture(num_batches=2000))
    first = [batch[0] >= 100 for batch, _ in source.epoch(1)]
    assert np.mean(first) == pytest.approx(0.25, abs=0.04)  # four standard deviations
    assert first != [batch[0] >= 100 for batch, _ in source.epoch(2)]
    assert as_source(mixture()).num_batches == 8


class Semi(Classifier):
    """A loss on the labelled part, and a small one on the other."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch["labelled"], train)
        return loss.mean() + 0.01 * (model(batch["unlabelled"]) ** 2).mean(), metrics

    def batch_size_of(self, batch):
        return batch["labelled"][1].shape[0]


def test_training_on_both_resumes_exactly():
    def make(folder):
        example = {"labelled": classes(4), "unlabelled": classes(8)[0]}
        params = {"log_dir": folder, "logger_type": "none"}
        return classifier(
            "unused", Semi, model_class=Plain, exmp_input=example, logger_params=params
        )

    def loaders():
        labelled = ArrayLoader(classes(8), 4, shuffle=True, seed=1)
        unlabelled = ArrayLoader(classes(24)[0], 8, shuffle=True)
        return [{"labelled": labelled, "unlabelled": unlabelled}]

    assert_resumes_exactly(make, loaders, num_epochs=2, interrupt_at=(2, 4))


def test_what_cannot_be_is_told():
    with pytest.raises(DataError, match="expected batches of one structure"):
        as_source(Mixture([(numbers(0, 4), 1), (ArrayLoader(classes(4), 2), 1)]))
    with pytest.raises(DataError, match="of which nobody knows the length"):
        as_source({"a": numbers(0, 4), "b": lambda: (np.zeros(2) for _ in range(3))})
    for weights in ([], [(numbers(0, 4), -1)], [(numbers(0, 4), 0)]):
        with pytest.raises(ConfigurationError, match="a number of at least 0"):
            Mixture(weights)
    with pytest.raises(UnknownNameError, match="shortest"):
        Together(pair(), until="longest")
    with pytest.raises(ConfigurationError, match="expected loaders by name"):
        Together({})
    generated = bx.data.Generated(lambda key, size: np.zeros(size), 2, num_batches=2)
    with pytest.raises(DataError, match="hand it over alone"):
        as_source({"a": numbers(0, 4), "b": generated})
