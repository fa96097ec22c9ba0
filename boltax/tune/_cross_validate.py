"""Cross-validation: a population of seeds for each fold of the data.

result = cross_validate(make_trainer, (inputs, labels), folds=5, seeds=4, num_epochs=20)
print(result)                       the mean of each metric over folds and seeds, and its spread
result.scores("val/acc")            [folds, seeds]
result.predict().mean()             for each example by models that have not seen it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from boltax._base._trees import num_examples
from boltax._base._types import PyTree
from boltax._base._whole import is_whole
from boltax.data._array_loader import ArrayLoader
from boltax.errors import ConfigurationError, TrainingError, noting, unknown_name
from boltax.trainer import TrainerModule
from boltax.tune._folds import divided
from boltax.tune._population import Population
from boltax.tune._predictions import Predictions


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation has come to.

    Attributes:
        data: as given, NumPy arrays ``[examples, ...]``.
        folds: the indices of the examples that each fold holds out; each example is in one.
        seeds: the seeds of the members of each population.
        populations: one for each fold, trained on all other folds.
        batch_size: of the loaders.
    """

    data: PyTree
    folds: tuple[np.ndarray[Any, Any], ...]
    seeds: tuple[int, ...]
    populations: tuple[Population, ...]
    batch_size: int

    def loaders(self, fold: int) -> tuple[ArrayLoader, ArrayLoader]:
        """The loaders of a fold: what its models train on, and what it holds out.

        Args:
            fold: its number, from 0.
        """
        return _loaders(self.data, self.folds[fold], self.batch_size)

    def scores(self, metric: str, *, of_best: bool = True) -> np.ndarray[Any, Any]:
        """A metric of each model, ``[folds, seeds]``; NaN where a model has none.

        Args:
            metric: its name, such as ``"val/acc"``.
            of_best: whether it is that of the best validation, which is chosen on the fold that is
                held out and so looks a little better than it is; or that of the last one.

        Raises:
            UnknownNameError: for a metric that no model has.
        """
        rows = [
            [(member.best if of_best else member.metrics) or {} for member in population.members]
            for population in self.populations
        ]
        names = {name: None for fold in rows for row in fold for name in row}
        if metric not in names:
            raise unknown_name("metric", metric, list(names))
        return np.array([[float(row.get(metric, np.nan)) for row in fold] for fold in rows])

    def predict(self) -> Predictions:
        """What each example gets from models that have not seen it, in the order of the data.

        Returns:
            The outputs ``[seeds, examples, ...]``, with their ``mean()`` and ``spread()``.

        Raises:
            TrainingError: when a model of a fold has no finite validation.
        """
        parts = [
            population.predict(self.loaders(fold)[1])
            for fold, population in enumerate(self.populations)
        ]
        if lacking := [fold for fold, part in enumerate(parts) if part.members != parts[0].members]:
            raise TrainingError(
                f"Received fold {lacking[0]} with members {parts[lacking[0]].members} that have a "
                f"best model, and fold 0 with {parts[0].members}; expected the same ones. Look at "
                "populations[fold].table for the reasons."
            )
        back = np.argsort(np.concatenate(self.folds))
        outputs = jax.tree.map(
            lambda *leaves: np.concatenate(leaves, axis=1)[:, back],
            *(part.outputs for part in parts),
        )
        return Predictions(parts[0].members, outputs)

    def __str__(self) -> str:
        lines = [f"{len(self.folds)} folds, {len(self.seeds)} seeds each"]
        names = {
            name: None
            for population in self.populations
            for member in population.members
            for name, value in (member.best or {}).items()
            if name.startswith("val/") and np.ndim(value) == 0
        }
        for name in names:
            scores = self.scores(name)
            lines.append(f"{name}: {scores.mean():.4g} +- {scores.std():.2g}")
        return "\n".join(lines)


def cross_validate(
    make_trainer: Callable[[], TrainerModule],
    data: PyTree,
    *,
    folds: int = 5,
    seeds: int | Sequence[int] = 1,
    batch_size: int = 32,
    num_epochs: int | None = None,
    stratify: Any = None,
    groups: Any = None,
    split_seed: int = 0,
    **train_options: Any,
) -> CrossValidation:
    """Trains a population of seeds for each fold, on all examples that the fold does not hold out.

    A member equals the single run of its seed over the loaders of its fold,
    `CrossValidation.loaders`. Each population has a folder of its own.

    Args:
        make_trainer: makes a trainer, as for a single run; called once for each fold.
        data: a pytree of arrays ``[examples, ...]``.
        folds: how many parts; each example is held out by exactly one.
        seeds: how many members a fold has, from the trainer's seed on, or their seeds.
        batch_size: of the loaders; those of training shuffle.
        num_epochs: see `Population.train_model`.
        stratify: a class for each example, for folds with the same share of each.
        groups: a group for each example, of which none is in two folds.
        split_seed: of the division.
        **train_options: of `Population.train_model`: ``max_steps``, ``validate_every``, ...

    Raises:
        ConfigurationError: for folds or seeds that cannot be.
        DataError: for data, classes or groups of different numbers of examples.

    Example:
        >>> import flax.linen as nn, numpy as np, boltax as bx
        >>> class Regressor(bx.TrainerModule):
        ...     def loss_function(self, model, batch, train):
        ...         return ((model(batch[0]) - batch[1]) ** 2).mean(), {}
        >>> inputs = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        >>> data = (inputs, inputs.sum(1, keepdims=True))
        >>> def make_trainer():
        ...     return Regressor(
        ...         nn.Dense, {"features": 1}, {"optimizer": "sgd", "lr": 0.1},
        ...         exmp_input=data, enable_progress_bar=False,
        ...         logger_params={"logger_type": "none"})
        >>> result = cross_validate(make_trainer, data, folds=3, seeds=2, num_epochs=1)
        >>> result.scores("val/loss").shape, result.predict().mean().shape
        ((3, 2), (60, 1))
    """
    arrays = jax.tree.map(np.asarray, data)
    examples = num_examples(arrays)
    parts = divided(examples, folds, seed=split_seed, stratify=stratify, groups=groups)
    populations: list[Population] = []
    numbers: tuple[int, ...] = ()
    for fold, held_out in enumerate(parts):
        trainer = make_trainer()
        numbers = _seeds(seeds, trainer.seed)
        population = Population(trainer, [{"seed": seed} for seed in numbers])
        _check_folder(population, populations)
        train_loader, val_loader = _loaders(arrays, held_out, batch_size)
        with noting(f"fold {fold} of {folds}"):
            population.train_model(train_loader, val_loader, num_epochs, **train_options)
        populations.append(population)
    return CrossValidation(arrays, parts, numbers, tuple(populations), batch_size)


def _loaders(
    data: PyTree, held_out: np.ndarray[Any, Any], batch_size: int
) -> tuple[ArrayLoader, ArrayLoader]:
    is_held_out = np.zeros(num_examples(data), bool)
    is_held_out[held_out] = True
    train, val = (jax.tree.map(lambda x, m=m: x[m], data) for m in (~is_held_out, is_held_out))
    return ArrayLoader(train, batch_size, shuffle=True), ArrayLoader(val, batch_size)


def _seeds(seeds: int | Sequence[int], first: int) -> tuple[int, ...]:
    if is_whole(seeds, 1):
        return tuple(first + number for number in range(int(seeds)))
    if isinstance(seeds, Sequence) and seeds and all(is_whole(seed) for seed in seeds):
        return tuple(int(seed) for seed in seeds)
    raise ConfigurationError(
        f"Received seeds={seeds!r}; expected how many, or the seeds themselves. Write seeds=4."
    )


def _check_folder(population: Population, others: list[Population]) -> None:
    """Refuses a maker whose trainers share a folder, which each fold would take from the last."""
    if any(population.log_dir == other.log_dir for other in others):
        raise ConfigurationError(
            f"Received make_trainer whose trainers all have the folder {population.log_dir}; "
            "expected a folder for each fold. Write logger_params={'base_log_dir': ...} in place "
            "of 'log_dir'."
        )
