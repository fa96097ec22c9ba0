"""One validation batch at the start: a mistake in the evaluation shows before hours of training.

The batch is drawn, the evaluation traced, and the names of its metrics looked at before training
begins: there most mistakes show. It is evaluated when its program is compiled, which is while the
first steps run: they need not wait.
"""

from collections.abc import Collection
from concurrent.futures import Future
from itertools import islice
from typing import Any

from boltax._base._chunks import Chunk
from boltax._base._evaluation import all_names
from boltax._loop._derived import computed, derived_names
from boltax._loop._evaluate import compile_ahead, draw, evaluate_states, planned_batches
from boltax._loop._trainees import Trainees
from boltax.errors import noting
from boltax.metrics._accumulate import plain_names


class SanityCheck:
    """A validation batch that is still to be evaluated.

    Args:
        trainees: what is trained.
        compiled: what is done when the evaluation step is compiled, if that has begun.

    Raises:
        Exception: what is wrong with the batch, or with the evaluation as it is traced.
    """

    def __init__(self, trainees: Trainees, compiled: Future[Any] | None) -> None:
        self._trainees, self._compiled = trainees, compiled
        steps, loop = trainees.steps, trainees.parts.loop
        source = trainees.run.source(trainees.run.validations.first_loader, "val_loader")
        total = planned_batches(source, loop.limit_val_batches)

        def begin(first: Chunk) -> None:
            for state in trainees.sanity_states()[:1]:
                self._compiled = compile_ahead(steps, state, first, total)

        with self._noting():
            self._chunks = list(islice(draw(steps, source, limit=1, begin=begin), 1))
            self._check_names_early()
        if not steps.evaluate.is_compiled:
            self.finish()  # nothing to wait for

    @property
    def is_ready(self) -> bool:
        """Whether nothing has to be waited for."""
        # several processes wait for it, so that they evaluate at the same step
        is_awaited = self._trainees.run.agreement is not None
        is_compiled = is_awaited or self._compiled is None or self._compiled.done()
        return is_compiled and bool(self._trainees.sanity_states())

    def finish(self) -> None:
        """Evaluates the batch; done once.

        Raises:
            MetricsError: when the trainer's monitor, or what its optimizer follows, is not among
                the metrics.
        """
        trainees, run = self._trainees, self._trainees.run
        run.sanity_check = None
        with run.ledger.spent("evaluation"), self._noting():
            states = trainees.sanity_states()
            for metrics in evaluate_states(trainees, states, self._chunks)[:1]:
                self._check_names(computed(trainees.one_of(metrics), "val/", trainees.parts.derive))

    def _check_names_early(self) -> None:
        """Looks at the names of the metrics where the trace has told them."""
        steps = self._trainees.steps
        if not steps.evaluate.is_compiled:
            return
        for state in self._trainees.sanity_states()[:1]:
            for chunk in self._chunks:
                names = plain_names(steps.empty_eval(state, chunk, None), "val/")
                if names is not None:
                    names = derived_names(self._trainees.parts.derive, names, "val/")
                if names is not None:
                    self._check_names(names)

    def _check_names(self, names: Collection[str]) -> None:
        evaluations = self._trainees.run.validations.evaluations
        self._trainees.check_names(all_names(evaluations, names))

    def _noting(self) -> Any:
        what = "the check of one validation batch at the start of training"
        return noting(what, self._trainees.run.where("val"))
