"""A few batches of everything, by a stand-in without files: whether a run would go through."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from boltax._base._evaluation import Evaluation
from boltax._base._types import ScalarMetrics
from boltax._build._arguments import check_positive
from boltax._build._methods import overrides
from boltax._build._twin import stand_in_of
from boltax._loop._data_module import loaders_of
from boltax.callbacks._states import callback_states, load_callback_states
from boltax.data._order import keeping_order
from boltax.errors import ConfigurationError
from boltax.loggers._create import create_loggers


def fast_dev_run(
    trainer: Any, train_loader: Any, val_loader: Any, test_loader: Any, batches: int
) -> ScalarMetrics:
    """What `TrainerModule.fast_dev_run` gives; see there."""
    trainer._made.check_complete("fast_dev_run")
    check_positive(batches=batches)
    loaders = loaders_of(trainer.hparams, train_loader, val_loader, test_loader)
    for loader in loaders:
        if hasattr(loader, "__next__"):
            raise ConfigurationError(
                f"Received a loader of type {type(loader).__name__} that can be read only once; "
                "expected one that training can read again afterwards. Write a function that "
                "makes it: fast_dev_run(lambda: batches())."
            )
    states = callback_states(trainer.callbacks)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="boltax-"))
        stand_in = _stand_in(trainer, batches, folder)
        for loader in loaders:
            for each in _parts(loader):
                stack.enter_context(keeping_order(each))
        stack.callback(load_callback_states, trainer.callbacks, states)
        metrics = stand_in.train_model(*loaders, num_epochs=1, max_steps=batches)
        if overrides(trainer, "predict_function"):
            for number, batch in enumerate(islice(_batches(stand_in, loaders.train), batches)):
                stand_in.predict_batch(batch, number)
    return metrics


def _stand_in(trainer: Any, batches: int, folder: str) -> Any:
    """The trainer as it would begin a run, with a copy of its state, in a folder that goes."""
    options = {"limit_val_batches": batches, "limit_test_batches": batches, "log_every": 1}
    loop = replace(trainer.loop, sanity_check=False, **options)
    stand_in = stand_in_of(
        trainer,
        is_silent=True,
        state=trainer._made.copies.copy(trainer.state),
        loop=loop,
        checkpoint=replace(trainer.checkpoint, keep_last=0),
    )
    made = stand_in._made
    stand_in.log_dir = folder
    stand_in.logger = create_loggers("none", log_dir=folder, config={})
    made.logger, made.had_records, made.is_described, made.versions_in = None, False, False, None
    return stand_in


def _batches(stand_in: Any, loader: Any) -> Any:
    source = stand_in.run.known_source(loader)
    return (batch for batch, _ in source.epoch(1))


def _parts(loader: Any) -> list[Any]:
    """The loaders in an argument, which may be several by name."""
    each = list(loader.values()) if isinstance(loader, Mapping) else [loader]
    loaders = [one.loader if isinstance(one, Evaluation) else one for one in each]
    return [one for one in loaders if one is not None]
