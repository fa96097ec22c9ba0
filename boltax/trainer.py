"""`TrainerModule`: the class that users subclass. Its methods stand in the order in which they run.

    import boltax as bx, flax.linen as nn, optax

    class Classifier(bx.TrainerModule):
        def loss_function(self, model, batch, train):
            images, labels = batch
            logits = model(images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return loss, {"acc": logits.argmax(-1) == labels}

    trainer = Classifier(MLP, {"features": 64}, {"lr": 1e-3}, exmp_input=next(iter(train_loader)))
    metrics = trainer.train_model(train_loader, val_loader, test_loader, num_epochs=10)
    model = Classifier.load_from_checkpoint(trainer.log_dir).bind_model()

What happens between the methods is in `boltax/_loop/_fit.py`, the loop, and
`boltax/_step/_steps.py`, which compiles; here is no logic of either.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import core

from boltax._base._monitor import GUIDE_ORDER, is_better
from boltax._base._narrow import narrowed
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax._base._trees import num_examples
from boltax._base._types import Batch, PyTree, ScalarMetrics, Variables
from boltax._build import _setup
from boltax._build._arguments import (
    LOADING,
    check_arguments,
    check_positive,
    overridden_methods,
    overrides,
)
from boltax._build._copies import Copies
from boltax._build._hooks import Live
from boltax._build._parts import Parts
from boltax._inspect import _batch_size, _lr_find, _preflight
from boltax._inspect._lr_find import LearningRateTest
from boltax._inspect._preflight import Preflight
from boltax._loop._evaluate import evaluate_for
from boltax._loop._fit import fit
from boltax._loop._limits import Limits, planned_steps
from boltax._loop._predict import predict
from boltax._loop._run import Run
from boltax._loop._saving import save_best, save_small, save_snapshot
from boltax._loop._single import Single
from boltax._loop._start import running, start_run, train_epoch
from boltax._loop._trainees import Loaders
from boltax._progress._progress import Progress
from boltax._step._bodies import EvalStep, TrainStep
from boltax._step._ema import evaluated
from boltax._step._initialise import call_model, first_keys, initialise
from boltax._step._loss import inputs_of
from boltax._step._state import variables_of, with_variables
from boltax._step._steps import Steps
from boltax.callbacks._base import Callback, as_callbacks
from boltax.callbacks._timer import parse_duration
from boltax.checkpoint._constructor_call import ConstructorCall
from boltax.checkpoint._differences import Difference
from boltax.checkpoint._files import write_json
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._rundir import RunDirectory, locate
from boltax.checkpoint._saver import Saver
from boltax.data._batches import to_host
from boltax.errors import ConfigurationError
from boltax.models._adapter import adapt
from boltax.models._calls import Call
from boltax.models._view import ModelView


class TrainerModule:
    """Trains a model: subclass it and write `loss_function`.

    Attributes that are set before ``super().__init__()`` may be used in every method; the model is
    initialised by running `loss_function` once, so what that needs has to be there by then.

    Args:
        model_class: a Flax Linen or NNX module class.
        model_hparams: its constructor arguments.
        optimizer_hparams: a dict (``optimizer``, ``lr``, ``schedule``, ``warmup``,
            ``gradient_clip``, ``weight_decay``, ``decay_mask``, ``l2_regularization``, and the
            optimizer's own arguments), an optax transformation, or a function from the number of
            steps to one. See `boltax.optim.build`.
        exmp_input: an example batch, from which the shapes of the model's variables follow. With
            `create_functions` it is, as in the guide, what `run_model_init` hands to the model.
        seed: of the parameters and of all random streams of the run.
        logger_params: ``base_log_dir`` ("runs"), ``logger_name``, ``logger_type`` ("TensorBoard",
            "wandb", "csv", "mlflow", "none", a logger, or a list), ``project_name``, or ``log_dir``
            for a given folder.
        enable_progress_bar: whether to show progress.
        debug: call the steps as plain Python, without compiling them.
        check_val_every_n_epoch: epochs between two validations.
        callbacks: `boltax.callbacks.Callback` objects.
        monitor: ``(metric, "min" or "max")`` that tells the best model: ``("val/acc", "max")``.
        loop: options of the loop.
        checkpoint: what is kept on disk.
        parallel: None; reserved for training on several devices.
        **hparams: further hyperparameters. They are stored with the run, and `loss_function` reads
            them as ``model.hparams[name]``.

    Raises:
        ConfigurationError: for arguments that cannot work, before anything is compiled.
        ModelError: when the example input does not fit the model.
    """

    rng_streams: ClassVar[Sequence[str]] = ("dropout",)
    call: ConstructorCall
    _live: Live

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the constructor's arguments, which `load_from_checkpoint` gives back."""
        trainer = super().__new__(cls)
        trainer.call = ConstructorCall.of(cls, args, kwargs)
        trainer._live = Live()
        return trainer

    def __init__(
        self,
        model_class: type[Any],
        model_hparams: Mapping[str, Any] | None = None,
        optimizer_hparams: Any = None,
        exmp_input: Any = None,
        seed: int = 42,
        logger_params: Mapping[str, Any] | None = None,
        enable_progress_bar: bool = True,
        debug: bool = False,
        check_val_every_n_epoch: int = 1,
        *,
        callbacks: Iterable[Callback] = (),
        monitor: tuple[str, str] | None = None,
        loop: LoopOptions | None = None,
        checkpoint: CheckpointOptions | None = None,
        parallel: None = None,
        **hparams: Any,
    ) -> None:
        if "cluster" in hparams:  # the guide's earlier name
            enable_progress_bar = not hparams.pop("cluster")
        self.model_class = model_class
        self.model_hparams = dict(model_hparams or {})
        self.optimizer_hparams = {} if optimizer_hparams is None else optimizer_hparams
        self.exmp_input = exmp_input = None if exmp_input is None else to_host(exmp_input)[0]
        self.seed = seed
        self.enable_progress_bar, self.debug = enable_progress_bar, debug
        self.check_val_every_n_epoch = check_val_every_n_epoch
        self.callbacks, self.monitor = as_callbacks(callbacks), monitor
        self.loop, self.checkpoint = loop or LoopOptions(), checkpoint or CheckpointOptions()
        self.hparams = hparams
        self.name = type(self).__name__
        self._uses_loss = overrides(self, "loss_function")
        self.uses_loss_steps = not overrides(self, "create_functions")
        self.names = self.call.names
        check_arguments(self, parallel, logger_params)
        self.call.check_storable(self.model_hparams, hparams)
        self.progress = Progress(enable_progress_bar)
        _setup.prepare_process(self)
        self.run: Run | None = None
        self.saver, self.copies = Saver(), Copies()
        self.adapter = adapt(model_class, self.model_hparams, rng_streams=tuple(self.rng_streams))
        self.model = self.adapter.model
        self.config = _setup.config_of(self, logger_params)
        self.summary = ""
        self._calls: list[Call] | None = None
        self.loss_steps = _setup.loss_steps_of(self)
        self.logger: Any = None
        self.log_dir: str = ""
        self.state = None
        self.is_loaded = LOADING.get()
        self.init_logger(dict(logger_params or {}))
        _setup.complete_logger(self)
        if not self.is_loaded:
            _setup.write_hparams(self, self.call)
        self.init_model(exmp_input)
        self.root_key = None if self.uses_loss_steps else _setup.root_key_of(self.state)
        self.print_tabulate(exmp_input)
        self.train_step: Any = None
        self.eval_step: Any = None
        self.steps: Steps = _setup.compiled_steps(self)

    @property
    def state(self) -> Any:
        """The training state of now: a `TrainState`; None before there is one.

        A step takes the memory of the state before it: keep a copy with `jax.device_get`.
        """
        return self._live.state

    @state.setter
    def state(self, state: Any) -> None:
        self._live.state = state

    def init_logger(self, logger_params: dict[str, Any]) -> None:
        """Makes the run's folder and its loggers: sets `self.logger` and `self.log_dir`.

        Args:
            logger_params: as given to the constructor.

        Raises:
            RunDirectoryError: when the folder cannot be made.
            UnknownNameError: for a logger that does not exist.
        """
        self.log_dir, self.logger = _setup.open_loggers(
            self, logger_params, is_new_run=not self.is_loaded
        )

    def init_model(self, exmp_input: Any) -> None:
        """Initialises the model's variables and sets `self.state`, without an optimizer yet.

        Args:
            exmp_input: the example batch (with `create_functions`: the model's inputs).
        """
        if not self._uses_loss and not isinstance(exmp_input, list | tuple):
            exmp_input = [exmp_input]
        _setup.prepare_memory(self, exmp_input)
        root, init_rng = first_keys(self.seed)
        variables = core.unfreeze(self.run_model_init(exmp_input, init_rng))
        self.state = _setup.state_without_optimizer(self, variables, root)

    def run_model_init(self, exmp_input: Any, init_rng: jax.Array) -> Variables:
        """Makes the model's variables for the example input, compiled.

        With `loss_function`, by running it once in initialisation mode, so any structure of batch
        works; otherwise by calling the model with ``*exmp_input`` and ``train=True``.

        Args:
            exmp_input: an example batch, or a sequence of inputs.
            init_rng: random key.

        Returns:
            Variables by collection, ``{"params": ..., ...}``.

        Raises:
            ModelError: when the input does not fit the model.
        """
        run = self.loss_steps.run if self._uses_loss else call_model
        is_abstract = LOADING.get()
        hparams = {"hparams": self.hparams, "traced_hparams": _setup.traced_hparams(self)}
        with nullcontext() if is_abstract else self.progress.status("initialising the model"):
            variables, self._calls = initialise(
                self.adapter, run, exmp_input, init_rng, **hparams, is_abstract=is_abstract
            )
        return variables

    def print_tabulate(self, exmp_input: Any) -> None:
        """Prints a summary of the model, and writes the whole of it to ``model.txt``.

        Args:
            exmp_input: as given to the constructor.
        """
        self.summary, shown = _setup.summaries(self, self._calls)
        if not self.is_loaded:
            RunDirectory(self.log_dir).model_txt.write_text(self.summary)
            self.progress.note(shown)

    def create_functions(self) -> tuple[TrainStep, EvalStep]:
        """The pure steps; by default made from `loss_function`.

        Returns:
            ``train_step(state, batch) -> (state, metrics)`` and ``eval_step(state, batch) ->
            metrics``. Metrics are scalars (means over the batch), arrays ``[batch, ...]``, of which
            the mean over all entries counts, pairs ``(total, count)``, or objects with ``merge``
            and ``compute``.
        """
        return self.loss_steps.train_step, self.loss_steps.eval_step

    def create_jitted_functions(self) -> None:
        """Compiles the steps and sets `self.train_step` and `self.eval_step`.

        With ``debug=True`` they stay Python. An override that sets both has them called as they
        are, once for each batch.
        """
        train_step, eval_step = _setup.pure_steps(self)
        if self.debug:
            self.train_step, self.eval_step = train_step, eval_step
        else:
            self.steps = _setup.compile_for(self, train_step, eval_step)
            self.train_step, self.eval_step = self.steps.train_step, self.steps.eval_step

    def loss_function(self, model: ModelView, batch: Batch, train: bool) -> Any:
        """The loss of a batch: write this. It is traced, so it must be pure.

        Args:
            model: call it like the model: ``model(x)``. Parameters, collections, random streams and
                the train or evaluation mode are taken care of. ``model.params``, ``model.hparams``,
                ``model.rng(name)`` are there when needed.
            batch: as the loader gives it, on the device.
            train: whether this is a training step.

        Returns:
            ``(loss, metrics)``: a floating-point loss, a scalar, ``[batch, ...]`` of which the mean
            counts, or a pair ``(total, count)`` whose quotient it is; and a dict of metrics.
        """
        raise ConfigurationError(
            f"Received a call of loss_function, which {self.name} does not have; expected one, as "
            "def loss_function(self, model, batch, train): ... return loss, {}"
        )

    def batch_size_of(self, batch: Batch) -> int:
        """The number of examples in a batch; override it where their first axis does not tell.

        Means over batches are weighted by it, and an evaluation counts with it. It is called with a
        batch of NumPy arrays, and within compiled steps with a traced one.

        Args:
            batch: the batch, as in `loss_function`.

        Returns:
            A whole number, taken from shapes, for example ``batch["nodes"].shape[0]``.
        """
        return num_examples(batch)

    def predict_function(self, model: ModelView, batch: Batch) -> PyTree:
        """The outputs for a batch, traced; by default ``model(inputs)``.

        Args:
            model: as in `loss_function`, in evaluation mode.
            batch: inputs, or a tuple or list whose first part is the inputs.

        Returns:
            A pytree of arrays ``[batch, ...]``.
        """
        return model(inputs_of(batch))

    def init_optimizer(self, num_epochs: int, num_steps_per_epoch: int | None) -> None:
        """Builds the optimizer and puts it, with a fresh state, into `self.state`.

        Args:
            num_epochs: epochs that will be trained.
            num_steps_per_epoch: steps of each, or None when the loader does not tell.

        Raises:
            OptimizerError: for settings that contradict each other or need a number of steps that
                nobody knows.
        """
        limits = self.run.limits if self.run else Limits()
        total_steps = planned_steps(num_epochs, num_steps_per_epoch, limits.max_steps)
        # a resumed run keeps the schedule of its first start
        total_steps = limits.schedule_steps or total_steps
        optimizer = _setup.build_optimizer(self, total_steps)
        with self.progress.status(f"setting up the optimizer: {optimizer.describe}"):
            self.state = _setup.state_with_optimizer(self, optimizer, self.state)
        if self.run is None:
            self.run = Run(Limits(num_epochs=num_epochs, total_steps=total_steps))

    def train_model(
        self,
        train_loader: Any,
        val_loader: Any = None,
        test_loader: Any = None,
        num_epochs: int | None = None,
        *,
        max_steps: int | None = None,
        max_time: str | float | timedelta | None = None,
        resume: bool | str | os.PathLike[str] | None = None,
    ) -> ScalarMetrics:
        """Trains for a number of epochs, keeps the best model, and tests that one.

        Args:
            train_loader: anything that yields batches; see `boltax.data`.
            val_loader: validated on every `check_val_every_n_epoch` epochs, and after the last one.
                Without one, the newest model is the best.
            test_loader: tested on at the end, with the best model, which is loaded for it.
            num_epochs: passes over `train_loader`; by default as many as `max_steps` takes, and
                without that 500.
            max_steps: stop after so many steps, if the epochs have not ended before.
            max_time: stop after so much time: seconds, a `timedelta`, or ``"hh:mm:ss"``.
            resume: True goes on with the run in this trainer's folder exactly where its newest
                resume checkpoint was saved, or starts it when there is none; a folder goes on with
                the run in it, or from that one checkpoint, ``<log_dir>/checkpoints/resume/<step>``.
                The schedule of the learning rate stays that of the first start, whose last value
                later steps have.

        Returns:
            The metrics of the best validation and of its training epoch, and those of the test.

        Raises:
            DataError: for a loader or a batch that cannot be used, or not with this checkpoint.
            MetricsError: when nothing tells which model is best.
            CheckpointError: when a checkpoint to resume from is damaged or does not fit.
            RunDirectoryError: when another process trains in the same folder.
            SystemExit: after SIGTERM, SIGUSR1 or Ctrl-C, when the run is saved: with status 143,
                138 or 130. Ctrl-C in a notebook raises KeyboardInterrupt instead.
        """
        check_positive(num_epochs=num_epochs, max_steps=max_steps)
        max_seconds = None if max_time is None else parse_duration(max_time)
        loaders = Loaders(train_loader, val_loader, test_loader)

        def begin() -> Single:
            parts = self._renewed_parts()
            self.run = start_run(parts, loaders, num_epochs, max_steps, max_seconds)
            return self._single(self.run)

        single, tested = fit(begin, self.log_dir, loaders, resume)
        return {**(single.run.best or {}), **tested}

    def preflight(self, batch: Batch, total_steps: int | None = None) -> Preflight:
        """What a training step needs: memory, operations, and whether it fits; ``print`` it.

        Args:
            batch: a batch of the loader, or its shapes: a pytree of `jax.ShapeDtypeStruct`.
            total_steps: as known to the schedule of the learning rate; it changes no number here.

        Raises:
            ConfigurationError: when the steps are not compiled by boltax.
            DataError: for a batch without arrays, or whose arrays disagree on their first axis.
            TrainingError: when the compiler itself finds that the step does not fit.
        """
        return _preflight.preflight(self, batch, total_steps)

    def find_batch_size(
        self, batch: Batch, *, limit: int | None = None, largest: int = 65536
    ) -> int:
        """The largest batch size with which training fits; found by compiling, not by crashing.

        Args:
            batch: a batch of any size, or its shapes; the first axes are those of the examples.
            limit: bytes that may be used; by default 90 % of the device's memory.
            largest: the largest size to consider.

        Raises:
            ConfigurationError: when not one example fits, or nobody knows the device's memory.
        """
        return _batch_size.find_batch_size(self, batch, limit=limit, largest=largest)

    def lr_find(
        self, train_loader: Any, min_lr: float = 1e-7, max_lr: float = 10.0, num_steps: int = 100
    ) -> LearningRateTest:
        """A learning rate range test: a copy of the state is trained with growing learning rates.

        Afterwards trainer and loader are as they were.

        Args:
            train_loader: as for `train_model`; it is repeated when it is too short.
            min_lr: the learning rate of the first step.
            max_lr: that of the last one; each step has it grow by the same factor.
            num_steps: steps to train, those after a divergence included.

        Returns:
            The rates with their losses, ``.suggestion``, and ``.plot("lr.png")``.

        Raises:
            ConfigurationError: for a range that cannot be, or a loader that can be read only once.
            OptimizerError: when the optimizer has no learning rate that can be set.
            TrainingError: when the loss is not finite at the first step.
        """
        return _lr_find.lr_find(self, train_loader, min_lr, max_lr, num_steps)

    def on_training_start(self) -> None:
        """Called once, before the first epoch."""

    def train_epoch(self, train_loader: Any) -> ScalarMetrics:
        """One pass over the loader.

        Args:
            train_loader: anything that yields batches.

        Returns:
            The means over the epoch, ``{"train/loss": ..., ...}``.
        """
        return train_epoch(self._single(running(self.run, self.state)), train_loader)

    def on_training_epoch_end(self, epoch_idx: int) -> None:
        """Called after each epoch, before its validation.

        Args:
            epoch_idx: counted from 1.
        """

    def eval_model(self, loader: Any, log_prefix: str = "") -> ScalarMetrics:
        """The exact metrics over a data set: each example counts once, whatever the batch size.

        Args:
            loader: anything that yields batches.
            log_prefix: put before each name: ``"val/"``, ``"test/"``. The limits of `LoopOptions`
                hold for these.

        Returns:
            Name to float, or to a NumPy array for a metric that is not a scalar.
        """
        return evaluate_for(self._parts, self.run, self.state, loader, log_prefix, self.tracker)

    def on_validation_epoch_end(
        self, epoch_idx: int, eval_metrics: ScalarMetrics, val_loader: Any
    ) -> None:
        """Called after each validation. What is added to `eval_metrics` is logged with it.

        Raising `optuna.TrialPruned` here ends the run cleanly.

        Args:
            epoch_idx: counted from 1.
            eval_metrics: the metrics, ``{"val/loss": ..., ...}``.
            val_loader: the loader they come from.
        """

    def is_new_model_better(self, new: ScalarMetrics, old: ScalarMetrics | None) -> bool:
        """Whether a validation is the best so far. NaN is never better.

        By `monitor` where it is given; else by the first that exists of ``val/val_metric`` (lower
        is better), ``val/acc`` (higher) and ``val/loss`` (lower).

        Args:
            new: metrics of this validation.
            old: metrics of the best one before, or None.

        Raises:
            MetricsError: when the metric does not exist.
        """
        return is_better([self.monitor] if self.monitor else GUIDE_ORDER, new, old)

    def save_metrics(self, filename: str, metrics: ScalarMetrics) -> None:
        """Writes metrics to ``metrics/<filename>.json`` in the run's folder.

        Args:
            filename: without ending.
            metrics: name to number or array.
        """
        path = RunDirectory(self.log_dir).metrics / f"{filename}.json"
        what, values = f"metrics/{path.name}", plain_metrics(metrics)
        save_small(self._parts, self.run, what, write_json, path, values)

    def save_model(self, step: int = 0) -> None:
        """Saves the model's variables as the best so far, in ``checkpoints/best/<step>``.

        While a run trains they are written in the background.

        Args:
            step: names the checkpoint; the loop gives the number of completed steps.
        """
        save_best(self._parts, self.run, variables_of(evaluated(self.state)), int(step))

    def on_save_checkpoint(self) -> Mapping[str, Any]:
        """What attributes of a subclass a resume checkpoint has to hold, as plain JSON."""
        return {}

    def on_load_checkpoint(self, saved: Mapping[str, Any]) -> None:
        """Called before a resumed run goes on.

        Args:
            saved: what `on_save_checkpoint` returned.
        """

    def on_training_end(self) -> None:
        """Called once, after the last epoch and before the test."""

    def load_model(self) -> None:
        """Loads the best model's variables into `self.state`.

        Raises:
            CheckpointError: when there is none, or it does not fit the model.
        """
        self.saver.wait()
        variables = load_variables(self.log_dir, variables_of(self.state))[0]
        self.state = with_variables(self.state, variables)

    def predict_model(self, loader: Any) -> PyTree:
        """The outputs of `predict_function` for a whole loader, in its order.

        Each batch has random keys of its own, which follow from the seed and its place alone.

        Args:
            loader: anything that yields batches.

        Returns:
            A pytree of NumPy arrays ``[examples, ...]``.
        """
        source = (self.run or Run()).known_source(loader)
        return predict(
            self.steps,
            evaluated(self.state, self.root_key),
            source,
            track=self.tracker,
            prefetch=self.loop.prefetch,
        )

    def bind_model(self) -> Any:
        """The model with its parameters, in evaluation mode: call it as ``model(inputs)``."""
        return self.adapter.bind(variables_of(evaluated(self.state)))

    def load_weights(
        self,
        checkpoint: str | os.PathLike[str],
        *,
        only: Collection[str] | None = None,
        rename: Mapping[str, str] | None = None,
        partial: bool = False,
    ) -> list[Difference]:
        """Loads the variables of another run, or some of them; training then starts from these.

        Args:
            checkpoint: a run's folder, for its best model, or the folder of any checkpoint in it.
            only: the collections to load, e.g. ``("params",)``; by default all.
            rename: names of the checkpoint to replace, ``{"encoder": "backbone/encoder"}``.
            partial: take what fits, and leave the rest as it is.

        Returns:
            What did not fit; nothing unless `partial`.

        Raises:
            CheckpointError: when something differs: missing, unexpected, shape or dtype.
        """
        variables, differences = load_variables(
            checkpoint, variables_of(self.state), only=only, rename=rename, partial=partial
        )
        self.state = with_variables(self.state, variables)
        return differences

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint: str | os.PathLike[str], exmp_input: Any = None, **arguments: Any
    ) -> Self:
        """A trainer with the hyperparameters and the best weights of a run, from its folder alone.

        Args:
            checkpoint: the run's folder, `trainer.log_dir`, for its best model; or the folder of
                one checkpoint in it, ``<log_dir>/checkpoints/saved/<step>``.
            exmp_input: an example batch; by default one of the stored shape.
            **arguments: constructor arguments that replace stored ones, or that could not be
                stored. The trainer goes on in the folder that it comes from, unless
                `logger_params` are among them: then it gets a new one.

        Raises:
            CheckpointError: when the folder is not a run's, or lacks something.
        """
        trainer = _setup.rebuild(cls, locate(checkpoint)[0], exmp_input, arguments)
        trainer.load_weights(checkpoint)
        return trainer

    def tracker(self, iterator: Iterable[Any], **kwargs: Any) -> Iterable[Any]:
        """Shows progress through an iterable, or returns it as it is without progress bar.

        Args:
            iterator: what is iterated over.
            **kwargs: as for tqdm: ``desc``, ``total``, ``leave``, ``unit``.
        """
        return self.progress.track(iterator, **kwargs) if self.enable_progress_bar else iterator

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Hands the scalars among the metrics to the loggers.

        Args:
            metrics: name to number.
            step: completed optimizer updates.
        """
        scalars = {name: value for name, value in metrics.items() if jnp.ndim(value) == 0}
        self.logger.log_metrics(scalars, step)

    @property
    def _parts(self) -> Parts:
        """What a run is made of."""
        return Parts(
            name=self.name,
            steps=self.steps,
            loss_steps=self.loss_steps,
            loop=self.loop,
            checkpoint=self.checkpoint,
            callbacks=self.callbacks,
            monitor=self.monitor,
            check_val_every_n_epoch=self.check_val_every_n_epoch,
            logger=self.logger,
            progress=self.progress,
            saver=self.saver,
            copies=self.copies,
            folder=self.log_dir,
            config=self.config,
            summary=self.summary,
            names=self.names,
            overridden=overridden_methods(self),
            root_key=self.root_key,
        )

    def _renewed_parts(self) -> Parts:
        """The parts for a run that begins: nothing waits to be written for an older one."""
        self.saver.wait()
        self.saver = Saver()
        return self._parts

    def _single(self, run: Run) -> Single:
        """A run of this trainer as the loop trains it."""
        return Single(self, self._parts, self._live, run)

    def predict_batch(self, batch: Batch, batch_idx: int = 0) -> PyTree:
        """The outputs of `predict_function` for one host batch, as NumPy arrays.

        Args:
            batch: as the loader gives it.
            batch_idx: its place among the batches of its data, from which random keys follow.
        """
        state = evaluated(self.state, self.root_key)
        batch = jax.device_put(narrowed(batch, "a batch"))
        outputs = self.steps.predict(state, np.int32(batch_idx), batch)
        return jax.device_get(outputs)

    def save_snapshot(self) -> None:
        """Saves the model's variables of this moment in ``checkpoints/saved/<step>``, to stay."""
        step = int(jax.device_get(self.state.step))
        save_snapshot(self._parts, self.run, variables_of(evaluated(self.state)), step)
