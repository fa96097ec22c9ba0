"""Which of two validations is better, and what is said of a monitor that names no metric."""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from boltax.errors import ConfigurationError, MetricsError

Monitor = tuple[str, str]
"""A metric's name, and ``"min"`` or ``"max"``."""

GUIDE_ORDER: Sequence[Monitor] = (
    ("val/val_metric", "min"),
    ("val/acc", "max"),
    ("val/loss", "min"),
)
"""What decides without a monitor: the first of these that exists, as in the guide."""

SMALLER_IS_BETTER = {
    *("loss", "nll", "perplexity", "ppl", "bpc", "bpd", "error", "err", "val_metric"),
    *("mae", "mape", "mse", "msle", "rmse", "cer", "wer", "ter", "eer", "fid", "kid", "lpips"),
    *("regret", "divergence", "kl", "brier", "ece"),
}
"""Words in the name of a metric of which a smaller value is better."""

LARGER_IS_BETTER = {
    *("acc", "accuracy", "precision", "recall", "sensitivity", "specificity", "f1", "mcc", "kappa"),
    *("auc", "auroc", "auprc", "ap", "map", "iou", "miou", "jaccard", "dice", "r2", "psnr", "ssim"),
    *("bleu", "rouge", "meteor", "chrf", "ndcg", "mrr", "elbo", "return", "reward"),
}
"""Words in the name of a metric of which a larger value is better."""

_NO_METRICS = ("epoch", "step", "lr")
_NO_METRICS_OF = ("time/", "speed/", "lr/", "train/step/")
_PHASES = ("val/", "train/", "test/")
_NEAR = 0.6


class Followed(NamedTuple):
    """A metric that something follows.

    Attributes:
        name: of the metric.
        mode: ``"min"`` or ``"max"``; None where that is told from the name.
        owner: the class that follows it; empty for the trainer.
        is_pair: whether that takes name and direction as one pair, as the trainer does.
    """

    name: str
    mode: str | None = None
    owner: str = ""
    is_pair: bool = True


def direction_of(name: str) -> str | None:
    """``"min"`` or ``"max"``, where the name of a metric says which is better; else None.

    Example:
        >>> direction_of("val/top5_accuracy"), direction_of("val/loss_g"), direction_of("val/score")
        ('max', 'min', None)
    """
    last = name.rpartition("/")[2].lower()
    words = {last, *re.split(r"[^a-z0-9]+", last)}
    is_min, is_max = bool(words & SMALLER_IS_BETTER), bool(words & LARGER_IS_BETTER)
    if is_min == is_max:
        return None
    return "min" if is_min else "max"


def followed_of(follower: Any, owner: str | None = None) -> Followed | None:
    """What a callback or a scheduler says in its attribute `monitor`; None where it says nothing.

    Args:
        follower: the object.
        owner: what it is called, by default the name of its class.
    """
    monitor: Any = getattr(follower, "monitor", None)
    owner = type(follower).__name__ if owner is None else owner
    if isinstance(monitor, str) and monitor:
        mode = getattr(follower, "mode", None)
        return Followed(monitor, mode if mode in ("min", "max") else None, owner, is_pair=False)
    if _is_monitor(monitor):
        return Followed(monitor[0], monitor[1], owner)
    return None


def check_monitors(
    followed: Iterable[Followed], names: Collection[str], phases: Collection[str]
) -> None:
    """Refuses what follows a metric that there will not be.

    Args:
        followed: what is followed.
        names: the names of metrics that are known.
        phases: those whose metrics are all among them: ``"val"``, ``"train"``. A name of no phase
            is taken for one of the validation.

    Raises:
        MetricsError: for the first one that is not among them.
    """
    for each in followed:
        phase = each.name.partition("/")[0] if "/" in each.name else "val"
        phase = phase if phase == "train" else "val"
        if phase in phases and each.name not in names:
            raise missing(each, names)


def check_monitor(monitor: Monitor, metrics: Collection[str]) -> None:
    """Refuses a monitor that is not among the metrics."""
    check_monitors([Followed(*monitor)], metrics, ("val", "train"))


def is_better(
    monitors: Sequence[Monitor], new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> bool:
    """Whether `new` is better than `old` by the first monitor that exists. NaN is never better.

    Raises:
        MetricsError: when none of them exists.
    """
    known = [monitor for monitor in monitors if monitor[0] in new]
    if not known:
        is_one = len(monitors) == 1
        raise missing(Followed(*monitors[0]), new) if is_one else none_of(monitors, new)
    name, mode = known[0]
    value = float(new[name])
    if math.isnan(value):
        return False
    if old is None or math.isnan(best := float(old.get(name, math.nan))):
        return True
    return value > best if mode == "max" else value < best


def missing(followed: Followed, names: Collection[str]) -> MetricsError:
    """The error for a metric that is followed and does not exist, with what was probably meant.

    Args:
        followed: what is followed.
        names: what there is; times, speeds and counts among them are not offered.
    """
    known = metric_names(names)
    near = nearest(followed.name, known)
    of = f" of {followed.owner}" if followed.owner else ""
    mode = followed.mode if near and _plain(near) == _plain(followed.name) else None
    write = advice(near or next(iter(known), "val/loss"), followed, mode)
    end = (
        f"Did you mean {near!r}? Write {write}."
        if near
        else (
            f"Write {write}, or return {followed.name.rpartition('/')[2]!r} from loss_function or "
            "eval_step."
        )
    )
    return MetricsError(
        f"Received monitor {followed.name!r}{of}, which is not among the metrics; expected one "
        f"of: {', '.join(known) or 'none yet'}. {end}"
    )


def advice(name: str, followed: Followed | None = None, mode: str | None = None) -> str:
    """What to write to follow a metric; the direction is named where it is known, else asked for.

    Args:
        name: of the metric.
        followed: in whose place it is written; by default the trainer's monitor.
        mode: the direction, where the name does not say it.

    Example:
        >>> print(advice("val/accuracy"))
        monitor=('val/accuracy', 'max')
        >>> print(advice("val/score"))
        monitor=('val/score', 'max') if a larger value is better, else monitor=('val/score', 'min')
    """
    mode, followed = direction_of(name) or mode, followed or Followed(name)
    if mode is not None:
        return _written(name, mode, followed)
    larger, smaller = (_written(name, each, followed) for each in ("max", "min"))
    return f"{larger} if a larger value is better, else {smaller}"


def metric_names(names: Collection[str]) -> list[str]:
    """The names among those of a record that are metrics of the model, sorted."""
    return sorted(n for n in names if n not in _NO_METRICS and not n.startswith(_NO_METRICS_OF))


def nearest(name: str, names: Collection[str]) -> str | None:
    """The metric that is probably meant by a name that does not exist; None where none is near.

    Example:
        >>> nearest("val_acc", ["train/acc", "val/acc"]), nearest("accuracy", ["val/acc"])
        ('val/acc', 'val/acc')
    """
    wanted = _plain(name)
    known = [(each, _plain(each), _last(each)) for each in sorted(names, key=_phase_first(name))]
    same = [each for each, plain, _ in known if plain == wanted]
    same += [each for each, _, last in known if f"/{wanted}".endswith(f"/{last}")]
    same += [each for each, _, last in known if _begin_alike(last, _last(name))]
    if same:
        return same[0]
    close = difflib.get_close_matches(_last(name), [last for *_, last in known], 1, _NEAR)
    return next((each for each, _, last in known if last in close), None)


def check_form(monitor: Any) -> None:
    """Refuses what is not a metric's name with a direction."""
    if monitor is not None and not _is_monitor(monitor):
        name = monitor if isinstance(monitor, str) and monitor else "val/acc"
        raise ConfigurationError(
            f"Received monitor={monitor!r}; expected a metric and a direction, 'min' or 'max'. "
            f"Write {advice(name)}."
        )


def _is_monitor(value: Any) -> bool:
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return is_pair and isinstance(value[0], str) and value[1] in ("min", "max")


def none_of(monitors: Sequence[Monitor], names: Collection[str]) -> MetricsError:
    """The error for metrics among which there is none that tells the best model by itself."""
    known = metric_names(names)
    wanted = ", ".join(name for name, _ in monitors)
    write = advice(known[0] if known else "val/loss")
    return MetricsError(
        f"Received no monitor, and a validation with {', '.join(known) or 'no metrics'}; expected "
        f"a monitor, or one of the metrics {wanted}, which tell the best model without one. Write "
        f"{write}."
    )


def _written(name: str, mode: str, followed: Followed) -> str:
    if followed.is_pair:
        text = f"monitor=({name!r}, {mode!r})"
    else:
        text = f"monitor={name!r}"
        text += "" if direction_of(name) == mode else f", mode={mode!r}"
    return f"{followed.owner}({text})" if followed.owner else text


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "/", name.lower())


def _last(name: str) -> str:
    """A name without its phase: what follows the last stroke, in one form."""
    return _plain(name.rpartition("/")[2])


def _begin_alike(one: str, other: str) -> bool:
    """Whether one word is the beginning of the other, as ``acc`` is of ``accuracy``."""
    short, long = sorted((one, other), key=len)
    return len(short) >= 3 and long.startswith(short)


def _phase_first(name: str) -> Any:
    """Sorts names: those of the phase that is written, then of the validation, then others."""

    def key(known: str) -> tuple[bool, int, str]:
        phase = known.partition("/")[0] + "/"
        number = _PHASES.index(phase) if phase in _PHASES else len(_PHASES)
        return not name.lower().startswith(phase[:-1]), number, known

    return key
