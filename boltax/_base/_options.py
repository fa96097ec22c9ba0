"""Options of a run, grouped by concern: small frozen dataclasses with all defaults in sight."""

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Self

from boltax._base._whole import is_whole
from boltax.errors import ConfigurationError, unknown_name

LOG_NORMS = (False, True, "layers", "histograms")
ON_NONFINITE = ("stop", "skip", "continue")
_ELSEWHERE = {
    "fast_dev_run": "trainer.fast_dev_run(train_loader, val_loader, test_loader)",
    "limit_train_batches": "LoopOptions(steps_per_epoch=...)",
    "on_spike": 'optimizer_hparams={"on_spike": "skip"}',
    "swa": "LoopOptions(ema=boltax.SWA(start=...))",
}
"""What a user may look for among the options, and where it is."""
PRECISIONS = ("float32", "bf16", "fp16")


AUTO = "auto"
REMATS = (
    "full",
    "dots_saveable",
    "dots_with_no_batch_dims_saveable",
    "nothing_saveable",
    "everything_saveable",
    AUTO,
)
"""What of a layer is kept for the backward pass: nothing, or as a policy of JAX says."""


class Options:
    """Base of the options: a misspelt one is an error that suggests the right name."""

    def __new__(cls, **options: Any) -> Self:
        """Looks at the names before the dataclass does."""
        names = [field.name for field in fields(cls)]  # pyright: ignore[reportArgumentType]
        for name in options:
            if name not in names and name in _ELSEWHERE:
                raise ConfigurationError(
                    f"Received {cls.__name__}({name}=...), which is an option of something else; "
                    f"expected it there. Write {_ELSEWHERE[name]}."
                )
            if name not in names:
                raise unknown_name(f"option of {cls.__name__}", name, names)
        return super().__new__(cls)


def _check_at_least(options: Options, minimum: int, *names: str) -> None:
    """Refuses what is no whole number; those of NumPy become Python's."""
    owner = type(options).__name__
    for name in names:
        value: object = getattr(options, name)
        if is_whole(value, minimum):
            object.__setattr__(options, name, int(value))
        elif value is not None:
            raise ConfigurationError(
                f"Received {owner}({name}={value!r}); expected a whole number of at least "
                f"{minimum}, or None where that is the default."
            )


@dataclass(frozen=True, kw_only=True)
class SWA(Options):
    """Stochastic weight averaging: the equal mean of the parameters from a step on.

    For the end of a training, with a learning rate that stays high enough to move: such a mean
    often generalises better than its last member. Before its first step the parameters themselves
    are evaluated and saved.

    Attributes:
        start: the first step whose parameters count.
        every: steps between two that count, such as those of an epoch.

    Example:
        >>> LoopOptions(ema=SWA(start=7500, every=100)).ema
        SWA(start=7500, every=100)

    References:
        Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization",
        arXiv:1803.05407.
    """

    start: int
    every: int = 1

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "start", "every")
        numbers: list[Any] = [self.start, self.every]
        if None in numbers:
            raise ConfigurationError(
                f"Received {self!r}; expected whole numbers of steps. Write SWA(start=7500)."
            )


@dataclass(frozen=True, kw_only=True)
class LoopOptions(Options):
    """How the training loop runs.

    Attributes:
        log_every: steps between two records of training metrics (each the mean since the last one).
        steps_per_epoch: steps after which an epoch ends, for loaders that are endless or have no
            length.
        overfit_batches: train on the first so many batches alone, the same ones in each epoch. A
            model that can learn comes to a loss near 0: a test of model, loss and learning rate.
        limit_val_batches: at most so many batches in each validation.
        limit_test_batches: at most so many batches in the test at the end.
        sanity_check: draw one validation batch before the first epoch, and evaluate it as soon as
            that is compiled, while the first steps run: a mistake in the evaluation shows at once
            and not after an hour.
        prefetch: batches that are put on the device ahead of their use.
        steps_per_execution: how many steps are sent to the device at once, at most; never more than
            there are to the next record, save, or callback that asks for a step. ``"auto"``
            measures on the first steps of a run whether several at once are faster, and says what
            it chose. The numbers are the same (on a CPU to the last bit).
        max_recompiles: how often steps may be compiled again for other shapes or dtypes before that
            is an error; None only tells. A last batch with fewer examples counts in training.
        batch_shapes: in how many shapes batches come on purpose, as those of buckets by length or
            of padded graphs do: each step is compiled once for each of them, and no word is said
            about it. One more is told, and counts for `max_recompiles`.
        on_nonfinite: what to do when the loss or a gradient is not finite: ``"stop"`` ends the
            run with the state of the step before, ``"skip"`` leaves the state as it was before the
            step and goes on with the next batch, ``"continue"`` only reports it.
        microbatches: compute the gradients of a batch in so many parts, one after the other inside
            the step, with the activations of one: the same update as that of the whole batch.
            BatchNorm normalises by the part and updates its statistics with each. ``"auto"`` takes
            the fewest with which a step fits into `memory`, and says so. Needs `loss_function`.
        remat: compute the layers of the model again in the backward pass, in place of keeping what
            is in them: ``"full"``, or the name of a policy of `jax.checkpoint_policies` for what is
            kept, such as ``"dots_saveable"``. Layers are modules that stand beside others like
            them. ``"auto"`` has it where nothing else fits into `memory`. For models of Flax; needs
            `loss_function`.
        memory: bytes that a run may take on each device. A step that needs more is an error before
            the first one, with what would fit. By default, for ``"auto"``, 90 % of what the device
            says that it has; a CPU says nothing.
        precision: ``"float32"``, the model's own; ``"bf16"`` or ``"fp16"`` have calls of the model
            compute in bfloat16 or float16, with parameters, statistics, outputs, and so the loss,
            in float32. ``"fp16"`` scales the loss, and leaves out steps whose gradients overflow.
            Needs `loss_function`.
        ema: keep a moving average of the parameters with this decay, such as 0.999; or, with
            `boltax.SWA`, their equal mean from a step on. It is what is evaluated, saved as the
            best model and bound; `state.params` are those that train.
        log_norms: log the norms of the parameters and of their change as ``train/param_norm`` and
            ``train/update_norm``, beside ``train/grad_norm``. With ``"layers"`` each record also
            has those of every layer, and the update by the parameters, at its step; with
            ``"histograms"`` also histograms of its parameters, gradients and updates. Both need
            `loss_function`; they are computed at the steps of records alone.

    Example:
        >>> LoopOptions(log_every=10)
        LoopOptions(log_every=10, steps_per_epoch=None, overfit_batches=None, ...)
    """

    log_every: int = 50
    steps_per_epoch: int | None = None
    overfit_batches: int | None = None
    limit_val_batches: int | None = None
    limit_test_batches: int | None = None
    sanity_check: bool = True
    prefetch: int = 2
    steps_per_execution: int | str = "auto"
    max_recompiles: int | None = None
    batch_shapes: int = 1
    on_nonfinite: str = "stop"
    microbatches: int | str = 1
    remat: str | None = None
    memory: int | None = None
    precision: str = "float32"
    ema: float | SWA | None = None
    log_norms: bool | str = False

    def __post_init__(self) -> None:
        if self.on_nonfinite not in ON_NONFINITE:
            raise unknown_name("LoopOptions(on_nonfinite=...)", self.on_nonfinite, ON_NONFINITE)
        if self.log_norms not in LOG_NORMS:
            raise unknown_name("LoopOptions(log_norms=...)", str(self.log_norms), LOG_NORMS[2:])
        if isinstance(self.steps_per_execution, str) and self.steps_per_execution != "auto":
            raise unknown_name(
                "LoopOptions(steps_per_execution=...)", self.steps_per_execution, ["auto"]
            )
        if self.precision not in PRECISIONS:
            raise ConfigurationError(
                f"Received LoopOptions(precision={self.precision!r}); expected one of "
                f'{", ".join(PRECISIONS)}. Write precision="bf16" to compute in bfloat16 with '
                "parameters in float32."
            )
        ema: object = self.ema
        if isinstance(ema, Real) and not isinstance(ema, SWA) and 0 < ema < 1:
            object.__setattr__(self, "ema", float(ema))
        elif ema is not None and not isinstance(ema, SWA):
            raise ConfigurationError(
                f"Received LoopOptions(ema={self.ema!r}); expected a decay between 0 and 1, a "
                "boltax.SWA, or None. Write ema=0.999 for an average over about a thousand steps."
            )
        if isinstance(self.microbatches, str) and self.microbatches != AUTO:
            raise unknown_name("LoopOptions(microbatches=...)", self.microbatches, [AUTO])
        if self.remat is not None and self.remat not in REMATS:
            raise unknown_name("LoopOptions(remat=...)", self.remat, REMATS)
        parts = [] if self.microbatches == AUTO else ["microbatches"]
        fused = [] if self.steps_per_execution == "auto" else ["steps_per_execution"]
        limits = ("limit_val_batches", "limit_test_batches", "steps_per_epoch", "overfit_batches")
        _check_at_least(self, 0, "max_recompiles")
        _check_at_least(
            self, 1, *fused, *parts, *limits, "log_every", "prefetch", "batch_shapes", "memory"
        )
        if self.steps_per_epoch is not None and self.overfit_batches is not None:
            raise ConfigurationError(
                f"Received LoopOptions(steps_per_epoch={self.steps_per_epoch}, overfit_batches="
                f"{self.overfit_batches}); expected one of them, since each says how long an epoch "
                "is. Leave steps_per_epoch out."
            )

    @property
    def parts(self) -> int:
        """Into how many parts a step divides a batch; 1 while that is not decided."""
        return 1 if isinstance(self.microbatches, str) else self.microbatches

    @property
    def is_fitted(self) -> bool:
        """Whether something of the step is still to be decided by the memory that it takes."""
        return AUTO in (self.microbatches, self.remat)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(Options):
    """What is kept on disk, and when resume checkpoints are saved.

    A resume checkpoint holds all that `train_model(resume=True)` needs. It is written in the
    background whenever one of the triggers fires, and also at the end of the training, on SIGTERM,
    SIGUSR1, SIGHUP and Ctrl-C, and when an exception ends the run.

    Attributes:
        every_steps: save after every so many steps.
        every_minutes: save when so much time has passed since the last time.
        every_epochs: save at the end of every so many epochs, after their validation.
        keep_last: how many resume checkpoints stay: the newest, and older ones to fall back on if
            its files get damaged. With 0 none are written, and the run cannot be resumed.
        keep_best: how many models stay in ``checkpoints/best``: those that are best by the monitor,
            or by `is_new_model_better`; of equal ones the older is the better. The best of all is
            never deleted.

    Example:
        >>> CheckpointOptions(every_steps=1000, keep_best=3)
        CheckpointOptions(every_steps=1000, every_minutes=5.0, every_epochs=None, ..., keep_best=3)
    """

    every_steps: int | None = None
    every_minutes: float | None = 5
    every_epochs: int | None = None
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "every_steps", "every_epochs", "keep_best")
        _check_at_least(self, 0, "keep_last")
        minutes: object = self.every_minutes
        if isinstance(minutes, Real) and not isinstance(minutes, bool) and minutes > 0:
            object.__setattr__(self, "every_minutes", float(minutes))
        elif minutes is not None:
            raise ConfigurationError(
                f"Received CheckpointOptions(every_minutes={minutes!r}); expected a positive "
                "number of minutes, or None."
            )
