"""When it stops, when not, and what it says."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from boltax.callbacks import EarlyStopping, Stop
from boltax.errors import ConfigurationError, MetricsError, UnknownNameError

NAN, INF = float("nan"), float("inf")


def stopped_in(callback, views):
    """The epoch in which it stops; None when it does not."""
    for view in views:
        if callback.on_validation_epoch_end(view) is not None:
            return view.epoch
    return None


@pytest.mark.parametrize(
    "values,settings,epoch",
    [
        ([3, 2, 1, 0.5, 0.4, 0.3], {}, None),
        ([1, 2, 2, 2, 2], {}, 4),
        ([1, 1, 1, 1, 1], {}, 4),
        ([2, 3, 1, 2, 2, 2, 2], {}, 6),
        ([1, 2, 2], {"patience": 1}, 2),
        ([1.0, 0.95, 0.9, 0.85, 0.8], {"min_delta": 0.2}, 4),
        ([1.0, 0.7, 0.4, 0.1], {"min_delta": 0.2}, None),
        ([1, 2, 3, 4, 5], {"mode": "max"}, None),
        ([5, 4, 4, 4], {"mode": "max"}, 4),
        ([1, NAN], {}, 2),
        ([INF], {}, 1),
        ([1, NAN, 0.5, 0.4], {"check_finite": False}, None),
        ([NAN, NAN, NAN, 1], {"check_finite": False}, 3),
    ],
)
def test_stops_in_the_right_epoch(views, values, settings, epoch):
    assert stopped_in(EarlyStopping("val/loss", **settings), views("val/loss", values)) == epoch


def test_the_decision_is_a_function_of_the_history_alone(views):
    seen = views("val/loss", [1, 2, 2, 2])
    assert isinstance(EarlyStopping("val/loss").on_validation_epoch_end(seen[-1]), Stop)


def test_epochs_without_validation_do_not_count(view):
    rows = [{"epoch": 1, "val/loss": 1.0}, {"epoch": 2}, {"epoch": 3}, {"epoch": 4}]
    seen = view(epoch=5, metrics={"val/loss": 2.0}, history=(*rows, {"epoch": 5}))
    assert EarlyStopping("val/loss", patience=2).on_validation_epoch_end(seen) is None
    assert EarlyStopping("val/loss", patience=1).on_validation_epoch_end(seen) is not None


@pytest.mark.parametrize("has_row", [True, False])
def test_the_running_epoch_counts_whether_or_not_it_is_in_the_history(view, has_row):
    rows = ({"epoch": 1, "val/loss": 1.0}, *([{"epoch": 2, "val/loss": 2.0}] if has_row else []))
    seen = view(epoch=2, metrics={"val/loss": 2.0}, history=rows)
    assert EarlyStopping("val/loss", patience=1).on_validation_epoch_end(seen) is not None
    assert EarlyStopping("val/loss", patience=2).on_validation_epoch_end(seen) is None


def test_a_training_metric_is_looked_at_after_the_epoch(views):
    callback = EarlyStopping("train/loss", patience=1)
    last = views("train/loss", [1, 2])[-1]
    assert callback.on_validation_epoch_end(last) is None
    assert isinstance(callback.on_training_epoch_end(last), Stop)


def test_a_validation_metric_is_not_looked_at_after_the_epoch(view):
    assert EarlyStopping("val/loss").on_training_epoch_end(view(metrics={"train/loss": 1})) is None


@pytest.mark.parametrize(
    "values,settings,reason",
    [
        (
            [0.312, 0.5, 0.5, 0.33],
            {},
            (
                "val/loss has not improved in the last 3 checks: it is 0.33 in epoch 4, and was "
                "best in epoch 1 with 0.312"
            ),
        ),
        (
            [1, 1],
            {"patience": 1, "min_delta": 0.01},
            (
                "val/loss has not improved by more than 0.01 in the last check: it is 1 in epoch "
                "2, and was best in epoch 1 with 1"
            ),
        ),
        ([NAN], {}, "val/loss is nan in epoch 1, which is not a finite number"),
        (
            [NAN, NAN],
            {"check_finite": False, "patience": 2},
            "val/loss has not been a finite number in the last 2 checks",
        ),
    ],
)
def test_the_reason_is_a_sentence(views, values, settings, reason):
    last = views("val/loss", values)[-1]
    assert EarlyStopping("val/loss", **settings).on_validation_epoch_end(last) == Stop(reason)


@pytest.mark.parametrize(
    "kind", [np.float32, np.array, jnp.float32], ids=lambda kind: kind.__name__
)
def test_metrics_may_be_arrays_of_one_number(views, kind):
    seen = views("val/loss", [kind(1.0), kind(2.0)])
    assert stopped_in(EarlyStopping("val/loss", patience=1), seen) == 2


def test_a_metric_that_is_no_number_is_an_error(views):
    seen = views("val/acc", [np.eye(2)])
    with pytest.raises(MetricsError, match=r"val/acc as float64 of shape \(2, 2\)"):
        EarlyStopping("val/acc").on_validation_epoch_end(seen[0])


def test_a_monitor_that_is_not_among_the_metrics_lists_those_that_are_and_no_times(views):
    seen = views("val/loss", [1.0])
    with pytest.raises(
        MetricsError, match=r"'val_loss' of EarlyStopping.*not among.*one of: val/loss\."
    ) as caught:
        EarlyStopping("val_loss").on_validation_epoch_end(seen[0])
    assert str(caught.value).endswith(
        "Did you mean 'val/loss'? Write EarlyStopping(monitor='val/loss')."
    )
    assert "time/" not in str(caught.value)


def test_without_a_metric_of_its_own_it_follows_the_trainers_monitor(views):
    seen = [replace(view, monitor=("val/score", "max")) for view in views("val/score", [1, 2, 3])]
    assert stopped_in(EarlyStopping(patience=1), seen) is None
    seen = [replace(view, monitor=("val/score", "min")) for view in views("val/score", [1, 2, 3])]
    assert stopped_in(EarlyStopping(patience=1), seen) == 2


def test_a_metric_of_its_own_wins_over_the_trainers_monitor(views):
    seen = [replace(view, monitor=("val/score", "max")) for view in views("val/loss", [1, 2, 3])]
    assert stopped_in(EarlyStopping("val/loss", patience=1), seen) == 2


def test_without_any_monitor_it_refuses_to_begin(views):
    with pytest.raises(
        ConfigurationError, match=r"trainer that has none.*EarlyStopping\('val/loss'"
    ):
        EarlyStopping().on_training_start(views("val/loss", [1.0])[0])


@pytest.mark.parametrize(
    "monitor,mode",
    [
        ("val/loss", "min"),
        ("val/loss_g", "min"),
        ("val/Perplexity", "min"),
        ("val/error", "min"),
        ("val/val_metric", "min"),
        ("val/rmse", "min"),
        ("val/acc", "max"),
        ("val/top5_acc", "max"),
        ("val/f1", "max"),
        ("val/AUROC", "max"),
    ],
)
def test_the_mode_is_told_from_the_name(monitor, mode):
    assert EarlyStopping(monitor).mode == mode


@pytest.mark.parametrize("monitor", ["val/score", "val/loss_acc", "val/closs", "val/map_error"])
def test_a_name_that_does_not_tell_asks_for_the_mode(monitor):
    with pytest.raises(ConfigurationError, match=r"expected mode='min' or mode='max'"):
        EarlyStopping(monitor)
    assert EarlyStopping(monitor, mode="max").mode == "max"


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"monitor": ""}, "monitor=''.*expected the name of a metric"),
        ({"monitor": ("val/loss", "min")}, "expected the name of a metric"),
        ({"patience": 0}, "patience=0.*at least 1"),
        ({"patience": 1.5}, "patience=1.5.*whole number"),
        ({"min_delta": -0.1}, "min_delta=-0.1.*at least 0"),
        ({"min_delta": NAN}, "min_delta=nan"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        EarlyStopping(**{"monitor": "val/loss", **settings})


def test_an_unknown_mode():
    with pytest.raises(UnknownNameError, match=r"mode 'minimum'.*max, min"):
        EarlyStopping("val/loss", mode="minimum")
