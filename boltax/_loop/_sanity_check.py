"""One validation batch at the start: a mistake in the evaluation shows before hours of training.

The batch is drawn, the evaluation traced, and the names of its metrics looked at before training
begins: there most mistakes show. It is evaluated when its program is compiled, which is while the
first steps run: they need not wait.
"""

from collections.abc import Collection
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any

from boltax._base._chunks import Chunk
from boltax._base._monitor import check_monitor
from boltax._build._methods import overrides
from boltax._loop._evaluate import compile_ahead, draw, evaluate_chunks, planned_batches
from boltax._loop._run import Run
from boltax._step._ema import evaluated
from boltax._step._state import evaluations_of
from boltax.callbacks._base import overriding
from boltax.errors import noting
from boltax.metrics._accumulate import plain_names
from boltax.optim._plateau import check_metrics

if TYPE_CHECKING:
    from boltax.trainer import TrainerModule


class SanityCheck:
    """A validation batch that is still to be evaluated.

    Args:
        trainer: whose evaluation it is.
        run: its run.
        val_loader: gives the batch; nothing that can be read only once.
        compiled: what is done when the evaluation step is compiled, if that has begun.

    Raises:
        Exception: what is wrong with the batch, or with the evaluation as it is traced.
    """

    def __init__(
        self, trainer: "TrainerModule", run: Run, val_loader: Any, compiled: Future[Any] | None
    ) -> None:
        self._trainer, self._run, self._compiled = trainer, run, compiled
        source = run.source(val_loader, "val_loader")
        total = planned_batches(source, trainer.loop.limit_val_batches)

        def begin(first: Chunk) -> None:
            state = evaluated(trainer.state)
            self._compiled = compile_ahead(trainer._made.steps, state, first, total)

        with self._noting():
            chunks = draw(trainer._made.steps, source, limit=1, begin=begin)
            self._chunks = list(islice(chunks, 1))
            self._check_names_early()
        if not trainer._made.steps.evaluate.is_compiled:
            self.finish()  # nothing to wait for

    @property
    def is_ready(self) -> bool:
        """Whether nothing has to be waited for."""
        return self._compiled is None or self._compiled.done()

    def finish(self) -> None:
        """Evaluates the batch; done once.

        Raises:
            MetricsError: when the trainer's monitor, or what its optimizer follows, is not among
                the metrics.
        """
        self._run.sanity_check = None
        with self._run.ledger.spent("evaluation"), self._noting():
            trainer = self._trainer
            state = evaluated(trainer.state)
            self._check_names(
                evaluate_chunks(trainer._made.steps, state, self._chunks, prefix="val/")
            )

    def _check_names_early(self) -> None:
        """Looks at the names of the metrics where the trace has told them."""
        steps, state = self._trainer._made.steps, evaluated(self._trainer.state)
        if steps.evaluate.is_compiled:
            for chunk in self._chunks:
                names = plain_names(steps.empty_eval(state, chunk, None), "val/")
                if names is not None:
                    self._check_names(names)

    def _check_names(self, names: Collection[str]) -> None:
        trainer = self._trainer
        if overrides(trainer, "on_validation_epoch_end") or overriding(
            trainer.callbacks, "on_validation_epoch_end"
        ):
            return  # they may add metrics
        if trainer.monitor and trainer.monitor[0].startswith("val/"):
            check_monitor(trainer.monitor, names)
        if (evaluations := evaluations_of(trainer.state)) is not None:
            check_metrics(evaluations, names)

    def _noting(self) -> Any:
        what = "the check of one validation batch at the start of training"
        return noting(what, self._run.where("val"))
