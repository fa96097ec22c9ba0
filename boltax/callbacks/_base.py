"""The protocol of callbacks: a frozen view of the run goes in, requests come out.

The hooks, in the order in which a run calls them:

    on_training_start
    for each epoch:
        on_training_epoch_start
        for each step:
            on_step_end             after every `callback.every` steps
            on_log                  at each record of training metrics
        on_training_epoch_end
        on_validation_epoch_end     in epochs that end with a validation
    on_training_end
    on_test_end                     when there is a test set
    on_exception                    at any time, when an exception ends the run

A callback holds no reference to the trainer and changes nothing by itself: it returns `Stop`,
`Save` or `Log`, a sequence of them, or nothing, and the loop does what was asked. Hooks run on the
host. What changes parameters (averages, clipping) is an optax transformation, not a callback. A
hook that a callback does not override costs nothing.

Nothing here may import the trainer or the loop.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import jax

from boltax._base._metric_values import check_metric_values
from boltax._base._types import Batch, PyTree
from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError, DataError, unknown_name


@dataclass(frozen=True, kw_only=True)
class View:
    """The run as a callback sees it, at the moment of a hook.

    Attributes:
        phase: ``"train"``, ``"val"`` or ``"test"``.
        epoch: the running epoch, counted from 1; 0 before the first.
        step: completed optimizer updates.
        num_epochs: epochs in all; None when unknown.
        total_steps: steps in all; None when unknown.
        state: the live `TrainState` on the device. Valid only during the call, because the next
            step takes its memory: keep a copy with `jax.device_get`.
        metrics: the record of this moment: ``train/...`` at `on_log` and `on_training_epoch_end`,
            ``val/...`` at `on_validation_epoch_end`, ``test/...`` at `on_test_end`; else empty.
            What callbacks before this one have logged at this moment is among them.
        history: one mapping for each epoch, with ``"epoch"``, ``"step"``, its metrics, and
            ``"time/train"``, the seconds of its training; the last one is that of the running
            epoch as far as it is known.
        elapsed: seconds of training in all, since the start of `train_model`; the time between an
            interruption and its resume is left out.
        log_dir: the folder of the run.
        summary: gives the table of the model's layers as text.
        predict: gives the outputs of `predict_function` for a host batch, as NumPy arrays.
        monitor: the trainer's ``(metric, "min" or "max")``; None when it has none.
        is_complete: whether all evaluations took part in this validation: some may have a cadence
            of their own.
        is_within_epoch: whether this is the moment of a validation that ends no epoch.
    """

    phase: str
    epoch: int
    step: int
    num_epochs: int | None
    total_steps: int | None
    state: Any
    metrics: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    elapsed: float
    log_dir: str
    summary: Callable[[], str]
    predict: Callable[[Batch], PyTree]
    monitor: tuple[str, str] | None = None
    is_complete: bool = True
    is_within_epoch: bool = False


@dataclass(frozen=True)
class Stop:
    """Asks that training ends after this step, with a validation, as if it were the last.

    Attributes:
        reason: why, as a person will read it.

    Raises:
        ConfigurationError: when the reason is no text.
    """

    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise ConfigurationError(
                f"Received Stop({self.reason!r}); expected the reason as text. Write Stop('the "
                "loss is below 0.01')."
            )


@dataclass(frozen=True)
class Save:
    """Asks that the model is saved as it is, in ``checkpoints/saved/<step>``."""


@dataclass(frozen=True)
class Log:
    """Asks that something is handed to the loggers, at the step of the view.

    Attributes:
        metrics: name to number. Those from `on_log` and from the hooks at the end of an epoch and
            of a validation also reach the history of the epoch, whose ``epoch`` and ``step`` stay.
        images: name to one image ``[height, width, channels]`` or ``[height, width]``, or to a
            batch of them ``[n, height, width, channels]``; uint8, or floats from 0 to 1.
        figures: name to a matplotlib figure.
        histograms: name to an array of any shape.
        text: name to text.

    Raises:
        ConfigurationError: when one of these is no mapping from names.
        MetricsError: when a metric is neither a number nor an array of numbers.

    Example:
        >>> Log({"weight_norm": 12.5}, text={"note": "so far so good"}).metrics
        {'weight_norm': 12.5}
    """

    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    images: Mapping[str, Any] = field(default_factory=dict[str, Any])
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    histograms: Mapping[str, Any] = field(default_factory=dict[str, Any])
    text: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        for name in ("metrics", "images", "figures", "histograms", "text"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ConfigurationError(
                    f"Received Log({name}={value!r}) with a {type(value).__name__}; expected a "
                    f"mapping from names to values. Write Log({name}={{'my_name': ...}})."
                )
        check_metric_values(self.metrics, "Log(metrics=...)")


Request: TypeAlias = Stop | Save | Log
"""What a hook may ask for."""

Requests: TypeAlias = Request | Sequence[Request] | None
"""What a hook returns."""

HOOKS = (
    "on_training_start",
    "on_training_epoch_start",
    "on_step_end",
    "on_log",
    "on_training_epoch_end",
    "on_validation_epoch_end",
    "on_training_end",
    "on_test_end",
    "on_exception",
)
"""The names of all hooks, in the order in which a run calls them."""


class Callback:
    """Something to do at certain moments of a run: derive from it and override what you need.

    What a callback keeps between two calls, and cannot compute from `view.history`, it gives in
    `state_dict`: that is saved with the run, and `load_state_dict` gets it back.

    Each hook returns a request, a sequence of requests, or None. A misspelt hook is an error when
    the class is defined, because it would never be called.

    Attributes:
        every: steps between two calls of `on_step_end`. The loop sends off the steps between two
            such calls together, so a large number is fast.

    Example:
        >>> class GoodEnough(Callback):
        ...     def on_validation_epoch_end(self, view):
        ...         if view.metrics["val/acc"] > 0.99:
        ...             return Stop(f"val/acc is {view.metrics['val/acc']:.3f}, which is enough")

        >>> class Wrong(Callback):
        ...     def on_train_epoch_end(self, view): ...
        Traceback (most recent call last):
        boltax.errors.UnknownNameError: Received hook of Wrong 'on_train_epoch_end'; expected one
        of: ...
    """

    every: int = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in vars(cls).items():
            if name.startswith("on_") and callable(value) and name not in HOOKS:
                raise unknown_name(f"hook of {cls.__name__}", name, HOOKS)

    def next_step(self, step: int) -> int | None:
        """The next step after which `on_step_end` is to be called; asked some steps ahead.

        Override it where the steps are no multiples of `every`. It must depend on its argument
        and on nothing that changes in training.

        Args:
            step: completed steps, from 0.

        Returns:
            A number above `step`; None when there is none.

        Example:
            >>> callback = Callback()
            >>> callback.every = 10
            >>> callback.next_step(0), callback.next_step(9), callback.next_step(10)
            (10, 10, 20)
        """
        return step - step % self.every + self.every

    def state_dict(self) -> Mapping[str, Any]:
        """What a resumed run needs of this callback; called for each resume checkpoint.

        Returns:
            plain JSON by name: None, bools, ints, floats, text, and lists and dicts of these.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` returned, before `on_training_start` of a resumed run.

        Args:
            state: equal to that; lists have taken the place of tuples.
        """

    def on_training_start(self, view: View) -> Requests:
        """Called once, when the optimizer is set up and before the first step."""

    def on_training_epoch_start(self, view: View) -> Requests:
        """Called before the first batch of each epoch."""

    def on_step_end(self, view: View) -> Requests:
        """Called after every `every` steps."""

    def on_log(self, view: View) -> Requests:
        """Called at each record, with the means since the last one in `view.metrics`."""

    def on_training_epoch_end(self, view: View) -> Requests:
        """Called after the last step of each epoch, with its means in `view.metrics`."""

    def on_validation_epoch_end(self, view: View) -> Requests:
        """Called after each validation, with its metrics in `view.metrics`."""

    def on_training_end(self, view: View) -> Requests:
        """Called once, after the last epoch and before the test."""

    def on_test_end(self, view: View) -> Requests:
        """Called after the test of the best model, with its metrics in `view.metrics`."""

    def on_exception(self, view: View, error: BaseException) -> Requests:
        """Called when an exception ends the run; it goes on its way afterwards."""


def predict_of(predict: Callable[[Batch], PyTree]) -> Callable[[Batch], PyTree]:
    """What a view's `predict` is: it takes one batch, and says so where it gets a loader.

    Args:
        predict: gives the outputs for a batch.

    Raises:
        DataError: when called with something that is no pytree of arrays and numbers.
    """

    def checked(batch: Batch) -> PyTree:
        for leaf in jax.tree.leaves(batch):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, bool | int | float | complex):
                raise DataError(
                    f"Received view.predict({_shortened(batch)}) with a {type(leaf).__name__}; "
                    "expected one batch, a pytree of arrays. Write "
                    "view.predict(next(iter(loader))) for the first batch of a loader, or "
                    "trainer.predict_model(loader) after the training for all of them."
                )
        return predict(batch)

    return checked


def as_callbacks(callbacks: Callback | Iterable[Callback]) -> tuple[Callback, ...]:
    """The callbacks of a run, checked.

    Args:
        callbacks: one or several.

    Raises:
        ConfigurationError: for something that is no instance of a subclass of `Callback`, or whose
            `every` is no positive whole number.
    """
    given = (
        (callbacks,)
        if isinstance(callbacks, Callback) or not _is_iterable(callbacks)
        else callbacks
    )
    checked = tuple(cast("Iterable[Callback]", given))
    for index, callback in enumerate(checked):
        _check(callback, f"callbacks[{index}]")
    return checked


def overriding(callbacks: Iterable[Callback], hook: str) -> tuple[Callback, ...]:
    """The callbacks that override a hook, in their order; for the others it need not be called.

    Args:
        callbacks: those of the run.
        hook: one of `HOOKS`.

    Raises:
        UnknownNameError: when there is no such hook.
    """
    if hook not in HOOKS:
        raise unknown_name("hook", hook, HOOKS)
    base = getattr(Callback, hook)
    return tuple(c for c in callbacks if getattr(getattr(c, hook), "__func__", None) is not base)


def as_requests(value: object, callback: Callback, hook: str) -> tuple[Request, ...]:
    """What a hook returned, as a sequence of requests.

    Args:
        value: what it returned.
        callback: whose hook it was.
        hook: its name.

    Raises:
        ConfigurationError: when it is something else than requests; names callback and hook.
    """
    if value is None:
        return ()
    if isinstance(value, Stop | Save | Log):
        return (value,)
    if isinstance(value, list | tuple):
        several = cast("Sequence[object]", value)
        if all(isinstance(item, Stop | Save | Log) for item in several):
            return tuple(cast("Sequence[Request]", several))
    raise ConfigurationError(
        f"Received {_shortened(value)} of type {type(value).__name__} from "
        f"{type(callback).__name__}.{hook}; expected None, Stop, Save, Log, or a list of these. "
        f"{_advice(value)}"
    )


def _check(callback: object, place: str) -> None:
    if not isinstance(callback, Callback):
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        name = callback.__name__ if isinstance(callback, type) else "MyCallback"
        advice = (
            f"Write {name}(...), with parentheses."
            if is_class
            else "Write class MyCallback(boltax.callbacks.Callback): "
            "def on_validation_epoch_end(self, view): ... and pass MyCallback()."
        )
        raise ConfigurationError(
            f"Received {place}={_shortened(callback)} of type {type(callback).__name__}; expected "
            f"an instance of a subclass of boltax.callbacks.Callback. {advice}"
        )
    every: object = callback.every
    if not is_whole(every, 1):
        raise ConfigurationError(
            f"Received {type(callback).__name__}.every={every!r}; expected the number of steps "
            "between two calls of on_step_end. Write every = 100."
        )


def _advice(value: object) -> str:
    if isinstance(value, bool | str):
        return "Write return Stop('why') to end the training."
    if isinstance(value, Mapping):
        return "Write return Log({'my_metric': 0.5}) to log metrics."
    if isinstance(value, type) and issubclass(value, Stop | Save | Log):
        return f"Write return {value.__name__}(...), with parentheses."
    return "Write return Log({'my_metric': 0.5}), or nothing."


def _shortened(value: object, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _is_iterable(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | type)
