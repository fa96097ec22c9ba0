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

Its constructor, and what the constructor calls, is `boltax/_build/_constructed.py`; what may be
asked without training is `boltax/_inspect/_questions.py`, and hooks that few write are
`boltax/_build/_optional_hooks.py`. What happens between the methods is in `boltax/_loop/_fit.py`,
the loop, and `boltax/_step/_steps.py`, which compiles; here is no logic of either.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from boltax._base._argument_names import with_known_names
from boltax._base._monitor import GUIDE_ORDER, is_better
from boltax._base._narrow import narrowed
from boltax._base._trees import num_examples, replaced_paths
from boltax._base._triggers import Every
from boltax._base._types import Batch, PyTree, ScalarMetrics
from boltax._build._first_state import build_optimizer, state_with_optimizer
from boltax._build._methods import overridden, overrides
from boltax._build._optional_hooks import OptionalHooks
from boltax._build._parts import Parts
from boltax._build._place import ResumeFrom
from boltax._build._remade import rebuild
from boltax._export._export import export as export_trainer
from boltax._inspect._fitting import fitted_options
from boltax._inspect._questions import Questions
from boltax._loop._asked import asked
from boltax._loop._data_module import loaders_of
from boltax._loop._evaluate import evaluate_for
from boltax._loop._fit import fit
from boltax._loop._limits import Limits, planned_steps
from boltax._loop._predict import predict
from boltax._loop._run import Run
from boltax._loop._saving import save_best, save_small, save_snapshot
from boltax._loop._single import Single
from boltax._loop._start import running, start_run, train_epoch
from boltax._step._ema import evaluated
from boltax._step._loss import inputs_of
from boltax._step._state import variables_of, with_variables
from boltax.checkpoint._differences import Difference
from boltax.checkpoint._files import write_json
from boltax.checkpoint._lock import RunLock
from boltax.checkpoint._metrics_json import plain_metrics
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._rules import Rule
from boltax.checkpoint._rundir import RunDirectory, locate
from boltax.checkpoint._saver import Saver
from boltax.errors import ConfigurationError
from boltax.models._bound import BoundModel, with_hparams
from boltax.models._view import ModelView


class TrainerModule(OptionalHooks, Questions):
    """Trains a model: subclass it and write `loss_function`.

    Attributes that are set before ``super().__init__()`` may be used in every method; the model is
    initialised by running `loss_function` once, so what that needs has to be there by then.

    Args:
        model_class: a Flax Linen, NNX or Equinox module class; see `boltax.models`.
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
            for a given folder. False is a run without files: its best model lies in a temporary
            folder, which goes with the trainer.
        enable_progress_bar: whether to show progress.
        debug: call the steps as plain Python, without compiling them.
        check_val_every_n_epoch: epochs between two validations.
        callbacks: `boltax.callbacks.Callback` objects.
        monitor: ``(metric, "min" or "max")`` that tells the best model: ``("val/acc", "max")``.
        loop: options of the loop.
        checkpoint: what is kept on disk.
        parallel: how the run lies on several devices: None for one, ``"data"`` has each work on its
            part of a batch, ``"fsdp"`` divides parameters and optimizer state, too; or a
            `boltax.Parallel`.
        **hparams: further hyperparameters. They are stored with the run, and `loss_function` reads
            them as ``model.hparams[name]``. A `boltax.data.DataModule` named ``data`` gives the
            loaders, and `exmp_input` where that is left out.

    Attributes:
        model_class: as given, and so `model_hparams`, `optimizer_hparams`, `exmp_input` (with
            NumPy's arrays), `seed`, `enable_progress_bar`, `debug`, `check_val_every_n_epoch`,
            `callbacks`, `monitor`, `loop` and `checkpoint`; mappings of other libraries are dicts.
        hparams: the further hyperparameters.
        config: all of these as loggers and ``hparams.json`` have them.
        model: the Linen module, or that of NNX or Equinox with shapes for its arrays.
        logger: of the run: ``self.logger.log_metrics({...}, step)``, ``log_image``, ...
        log_dir: the run's folder.
        state: the training state, with the model's variables as of now.
        run: where the training is: ``self.run.epoch``, ``.step``, ``.history``, ``.ledger``; None
            before the first.
        train_step: ``(state, batch) -> (state, metrics)``, compiled.
        eval_step: ``(state, batch) -> metrics``, compiled.

    All other names are free for attributes of subclasses.

    Raises:
        ConfigurationError: for arguments that cannot work, before anything is compiled.
        ModelError: when the example input does not fit the model.
        LossError: when `loss_function` raises, or returns what is no loss.
    """

    run: Run | None

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
            f"Received a call of loss_function, which {type(self).__name__} does not have; "
            "expected one, as def loss_function(self, model, batch, train): ... return loss, {}"
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
        optimizer = build_optimizer(self.optimizer_hparams, total_steps, type(self))
        with self._made.progress.status(f"setting up the optimizer: {optimizer.describe}"):
            self.state = state_with_optimizer(
                self.state, optimizer, self.hparams, self.loop, self._made.placement
            )
        if self.run is None:
            self.run = Run(Limits(num_epochs=num_epochs, total_steps=total_steps))

    @with_known_names
    def train_model(
        self,
        train_loader: Any = None,
        val_loader: Any = None,
        test_loader: Any = None,
        num_epochs: int | None = None,
        *,
        max_steps: int | None = None,
        max_time: str | float | timedelta | None = None,
        min_epochs: int | None = None,
        min_steps: int | None = None,
        schedule_steps: int | None = None,
        validate_every: int | Every | None = None,
        validate_at_start: bool = False,
        new_data: bool = False,
        resume: bool | str | os.PathLike[str] | None = None,
    ) -> ScalarMetrics:
        """Trains for a number of epochs, keeps the best model, and tests that one.

        Args:
            train_loader: anything that yields batches; see `boltax.data`. Or a
                `boltax.data.DataModule`, which gives all loaders; by default that of the trainer.
            val_loader: validated on every `check_val_every_n_epoch` epochs, or as `validate_every`
                says, and after the last step; or a dict of loaders and `boltax.Evaluation` by name,
                whose metrics are ``val/<name>/...``. Without one, the newest model is the best.
            test_loader: tested on at the end, with the best model, which is loaded for it; or a
                dict.
            num_epochs: passes over `train_loader`; by default as many as `max_steps` takes, and
                without that 500.
            max_steps: stop after so many steps, if the epochs have not ended before.
            max_time: stop after so much time: seconds, a `timedelta`, or ``"hh:mm:ss"``.
            min_epochs: no callback ends the run before so many epochs, or `min_steps` steps.
            min_steps: see `min_epochs`; what was asked for before is done then.
            schedule_steps: lay the schedule of the learning rate out over so many steps, whatever
                the run's own number is: `max_steps` then ends it early without bending it.
            validate_every: validate after every so many steps, wherever in an epoch that is, in
                place of `check_val_every_n_epoch`; or `boltax.Every(steps=, minutes=, epochs=)`.
            validate_at_start: also validate before the first step.
            new_data: have a resume take another loader, or batch size, on purpose: the run goes on
                with its next epoch.
            resume: None starts a run, in a folder without an older one: where boltax has chosen
                the folder, a run after the first gets the next ``version_<k>``; where you have
                named it, the older run moves into ``earlier/<n>`` in there. True goes on with the
                run in this trainer's folder exactly where its newest
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
            NotSavedError: at the end, when the run could not be written; it holds the metrics.
            SystemExit: after SIGTERM, SIGUSR1 or Ctrl-C, when the run is saved: with status 143,
                138 or 130. Ctrl-C in a notebook raises KeyboardInterrupt instead.
        """
        self._made.check_complete("train_model")
        wanted = asked(
            num_epochs=num_epochs,
            max_steps=max_steps,
            max_time=max_time,
            min_epochs=min_epochs,
            min_steps=min_steps,
            schedule_steps=schedule_steps,
            validate_every=validate_every,
            validate_at_start=validate_at_start,
            new_data=new_data,
        )
        loaders = loaders_of(self.hparams, train_loader, val_loader, test_loader)
        if (options := fitted_options(self, loaders.train)) is not None:
            self.loop = options
            self._remake_steps()

        def begin(lock: RunLock) -> Single:
            # first: what is refused changes nothing
            run = start_run(self._parts, loaders, wanted)
            parts = self._renewed_parts(lock, resume)
            self.run, self._made.loaded = run, frozenset()
            return Single(self, parts, self._made.live, run)

        single, tested = fit(begin, self.log_dir, loaders, resume)
        return {**(single.run.best or {}), **tested}

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
            log_prefix: put before each name: ``"val/"``, ``"test/"``, or without the slash. The
                limits of `LoopOptions` hold for these.

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
        self._made.saver.wait()
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
        source = (self.run or Run(placement=self._made.placement)).known_source(loader)
        return predict(
            self._made.steps,
            evaluated(self.state, self._made.root_key),
            source,
            track=self.tracker,
            prefetch=self.loop.prefetch,
        )

    def bind_model(self) -> BoundModel:
        """The model with its parameters, in evaluation mode: call it as ``model(inputs)``.

        Its ``hparams`` are the trainer's, where it has none of its own; see also `model_view`.

        Returns:
            The model; of NNX the module itself, where none of its methods is told its mode; of
            Equinox a module of Equinox.
        """
        model = self._made.adapter.bind(variables_of(evaluated(self.state)))
        return with_hparams(model, self.hparams)

    export = export_trainer

    def load_weights(
        self,
        checkpoint: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        only: Collection[str] | None = None,
        rename: Mapping[str, str] | None = None,
        partial: bool = False,
        rules: Sequence[Rule] | None = None,
    ) -> list[Difference]:
        """Loads variables of another run or program, or some; training then starts from these.

        Args:
            checkpoint: a run's folder, for its best model, or the folder of any checkpoint in it;
                a safetensors file, or the index or folder of several; a folder of orbax. Of a list
                of checkpoints, such as several of ``checkpoints/best``, the equal mean is loaded.
            only: the collections to load, e.g. ``("params",)``; by default all.
            rename: names of the checkpoint to replace, ``{"encoder": "backbone/encoder"}``.
            partial: take what fits, and leave the rest as it is.
            rules: ``[(pattern, template, how), ...]`` for weights from elsewhere: a regular
                expression that matches a whole stored name; the name here, or None to leave it
                out; "linear", "conv", "embedding", "reshape", a dtype, or several of them.

        Returns:
            What did not fit; nothing unless `partial`.

        Raises:
            CheckpointError: when something differs: missing, unexpected, shape or dtype.
        """
        before = variables_of(self.state)
        variables, differences = load_variables(
            checkpoint,
            before,
            only=only,
            rename=rename,
            partial=partial,
            rules=rules,
        )
        self.state = with_variables(self.state, variables)
        self._made.loaded |= replaced_paths(before, variables)
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
        folder, _, one = locate(checkpoint)
        is_own = one is None and overrides(cls, "load_model")
        trainer = rebuild(cls, folder, exmp_input, arguments, has_values=is_own)
        if not trainer._made.construction.is_complete:
            return trainer
        if not is_own:
            trainer.load_weights(checkpoint)
            return trainer
        new_folder, trainer.log_dir = trainer.log_dir, str(folder)  # where the model lies
        try:
            trainer.load_model()
        finally:
            trainer.log_dir = new_folder
        return trainer

    def tracker(self, iterator: Iterable[Any], **kwargs: Any) -> Iterable[Any]:
        """Shows progress through an iterable, or returns it as it is without progress bar.

        Args:
            iterator: what is iterated over.
            **kwargs: as for tqdm: ``desc``, ``total``, ``leave``, ``unit``.
        """
        return (
            self._made.progress.track(iterator, **kwargs) if self.enable_progress_bar else iterator
        )

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
            name=self._made.name,
            steps=self._made.steps,
            loss_steps=self._made.loss_steps,
            loop=self.loop,
            checkpoint=self.checkpoint,
            callbacks=self.callbacks,
            monitor=self.monitor,
            check_val_every_n_epoch=self.check_val_every_n_epoch,
            logger=self.logger,
            progress=self._made.progress,
            saver=self._made.saver,
            copies=self._made.copies,
            folder=self.log_dir,
            config=self.config,
            summary=self._made.summary,
            names=self._made.names,
            overridden=overridden(type(self)),
            root_key=self._made.root_key,
            describe=self._describe,
            derive=self.derived_metrics if overrides(self, "derived_metrics") else None,
        )

    def _renewed_parts(self, lock: RunLock, resume: ResumeFrom) -> Parts:
        """The parts for a run that begins: nothing of an older one waits, or lies, in its place."""
        self._made.saver.wait()
        self._made.saver = Saver()
        self._begin_place(lock, resume)
        return self._parts

    def _single(self, run: Run) -> Single:
        """A run of this trainer as the loop trains it."""
        return Single(self, self._parts, self._made.live, run)

    def predict_batch(self, batch: Batch, batch_idx: int = 0) -> PyTree:
        """The outputs of `predict_function` for one host batch, as NumPy arrays.

        Args:
            batch: as the loader gives it.
            batch_idx: its place among the batches of its data, from which random keys follow.
        """
        state = evaluated(self.state, self._made.root_key)
        batch = self._made.placement.put_feed(narrowed(batch, "a batch"))
        outputs = self._made.steps.predict(state, np.int32(batch_idx), batch)
        return self._made.placement.to_host(outputs)

    def save_snapshot(self) -> None:
        """Saves the model's variables of this moment in ``checkpoints/saved/<step>``, to stay."""
        step = int(jax.device_get(self.state.step))
        save_snapshot(self._parts, self.run, variables_of(evaluated(self.state)), step)
