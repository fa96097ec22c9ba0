"""Directions told from names, and what is said of a monitor that names no metric."""

import pytest

from boltax._base._monitor import (
    GUIDE_ORDER,
    Followed,
    advice,
    check_form,
    check_monitor,
    check_monitors,
    direction_of,
    followed_of,
    is_better,
    metric_names,
    nearest,
)
from boltax.errors import ConfigurationError, MetricsError

NAMES = ["val/acc", "val/loss", "train/acc", "train/loss"]


@pytest.mark.parametrize(
    "names,direction",
    [
        ("acc accuracy top5_acc f1 auc AUROC iou mIoU bleu precision recall r2 psnr ssim", "max"),
        ("loss error mse mae rmse perplexity ppl nll fid wer cer loss_g val_metric kl", "min"),
        ("score closs value loss_acc accumulated lossless", None),
    ],
)
def test_a_direction_is_named_where_the_name_says_it(names, direction):
    for name in names.split():
        assert direction_of(name) == direction_of(f"val/{name}") == direction, name


@pytest.mark.parametrize(
    "written,meant",
    {
        "val_acc": "val/acc",
        "acc": "val/acc",
        "accuracy": "val/acc",
        "val/accuracy": "val/acc",
        "Val/Acc": "val/acc",
        "valacc": "val/acc",
        "validation/acc": "val/acc",
        "train_acc": "train/acc",
        "train/los": "train/loss",
        "loss": "val/loss",
        "eval_loss": "val/loss",
        "val/top5": None,
        "val/mse": None,
        "epoch": None,
    }.items(),
)
def test_what_was_probably_meant(written, meant):
    assert nearest(written, NAMES) == meant


def test_advice_names_a_direction_or_asks_for_it():
    assert advice("val/accuracy") == "monitor=('val/accuracy', 'max')"
    assert advice("val/mse") == "monitor=('val/mse', 'min')"
    assert advice("val/score") == (
        "monitor=('val/score', 'max') if a larger value is better, else "
        "monitor=('val/score', 'min')"
    )
    stopping = Followed("x", None, "EarlyStopping", is_pair=False)
    assert advice("val/acc", stopping) == "EarlyStopping(monitor='val/acc')"
    assert advice("val/score", stopping, "max") == "EarlyStopping(monitor='val/score', mode='max')"


@pytest.mark.parametrize(
    "monitor,names,end",
    [
        (("val_acc", "max"), NAMES, "Did you mean 'val/acc'? Write monitor=('val/acc', 'max')."),
        (("val/los", "max"), NAMES, "Did you mean 'val/loss'? Write monitor=('val/loss', 'min')."),
        (
            ("val_score", "min"),  # the same name in other letters: the direction was chosen
            ["val/score"],
            "Did you mean 'val/score'? Write monitor=('val/score', 'min').",
        ),
        (
            ("val/mse", "max"),
            ["val/loss"],
            "Write monitor=('val/loss', 'min'), or return 'mse' from loss_function or eval_step.",
        ),
    ],
)
def test_a_monitor_that_does_not_exist_is_told_with_what_was_meant(monitor, names, end):
    with pytest.raises(MetricsError, match="which is not among the metrics") as caught:
        check_monitor(monitor, names)
    assert str(caught.value).endswith(end)


def test_the_advice_lists_metrics_alone():
    names = ["epoch", "step", "time/train", "speed/mfu", "lr", "lr/critic", "mine", *NAMES]
    assert metric_names(names) == sorted(["mine", *NAMES])
    with pytest.raises(MetricsError, match="one of: none yet") as caught:
        check_monitor(("val/acc", "max"), ["time/train", "epoch"])
    assert "time" not in str(caught.value)


def test_without_a_monitor_the_error_says_so_and_names_a_direction():
    with pytest.raises(MetricsError, match="Received no monitor") as caught:
        is_better(GUIDE_ORDER, {"val/accuracy": 0.5}, None)
    assert str(caught.value).endswith("Write monitor=('val/accuracy', 'max').")


def test_only_the_phases_whose_names_are_known_are_compared():
    followed = [Followed("train/f1"), Followed("val/loss")]
    check_monitors(followed, ["val/loss"], ["val"])
    with pytest.raises(MetricsError, match="'train/f1'"):
        check_monitors(followed, ["train/loss"], ["train"])
    with pytest.raises(MetricsError, match="'f1'"):  # no phase: looked for in the validation
        check_monitors([Followed("f1")], ["val/loss"], ["val"])
    check_monitors([Followed("f1")], ["train/loss"], ["train"])


def test_what_an_object_follows_is_its_monitor():
    class Follower:
        monitor, mode = "val/acc", "max"

    follower = Follower()
    assert followed_of(follower) == Followed("val/acc", "max", "Follower", is_pair=False)
    follower.monitor = ("val/acc", "max")
    assert followed_of(follower, owner="") == Followed("val/acc", "max", "", is_pair=True)
    for nothing in (None, "", object(), ("val/acc", "up")):
        follower.monitor = nothing
        assert followed_of(follower) is None


def test_the_form_is_told_with_the_name_that_was_given():
    with pytest.raises(ConfigurationError, match=r"'val/mse'; .*\('val/mse', 'min'\)"):
        check_form("val/mse")
