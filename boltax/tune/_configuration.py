"""The best configuration of a study as a file, from which it is trained again."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from boltax.checkpoint._files import read_json, write_json
from boltax.errors import ConfigurationError
from boltax.tune._search import HYPERPARAMETERS, METRICS
from boltax.tune._space import optuna_module
from boltax.tune._study import SETTINGS

if TYPE_CHECKING:
    import optuna

KEY = "hyperparameters"


def save_configuration(study: "optuna.Study", path: str | os.PathLike[str]) -> None:
    """Writes the best hyperparameters of a study to a JSON file.

    Args:
        study: of `optimize`.
        path: of the file.

    Raises:
        ConfigurationError: when no trial of the study is complete.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize")
        >>> study.add_trial(optuna.create_trial(
        ...     params={"lr": 0.01}, value=0.9,
        ...     distributions={"lr": optuna.distributions.FloatDistribution(0, 1)}))
        >>> save_configuration(study, "best.json")
        >>> load_configuration("best.json")
        {'lr': 0.01}
    """
    complete = optuna_module().trial.TrialState.COMPLETE
    if not study.get_trials(deepcopy=False, states=(complete,)):
        raise ConfigurationError(
            f"Received the study {study.study_name!r}, none of whose {len(study.trials)} trials is "
            "complete; expected a best one to save. Prune less, or see the trials' "
            'user_attrs["boltax:reason"].'
        )
    best, settings = study.best_trial, study.user_attrs.get(SETTINGS, {})
    metrics = best.user_attrs.get(METRICS, {})
    known = {
        KEY: hyperparameters_of(best),
        "study_name": study.study_name,
        "trial": best.number,
        "value": best.value,
        "metrics": {n: v for n, v in metrics.items() if math.isfinite(v)},
        **{name: settings[name] for name in ("monitor", "num_epochs") if name in settings},
    }
    write_json(Path(path), known)


def load_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The hyperparameters in a file of `save_configuration`, for ``make_trainer(**...)``.

    Args:
        path: of the file.

    Raises:
        ConfigurationError: when the file holds none.
        CheckpointError: when it cannot be read.

    Example:
        See `save_configuration`.
    """
    return read_configuration(path)[KEY]


def read_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All that is in such a file."""
    known: Any = read_json(Path(path))
    if not isinstance(known, Mapping) or not isinstance(known.get(KEY), Mapping):
        raise ConfigurationError(
            f"Received {os.fspath(path)!r}, which holds no {KEY!r}; expected a file that boltax "
            "tune or boltax.tune.save_configuration wrote."
        )
    return cast("dict[str, Any]", known)


def hyperparameters_of(trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
    """What `make_trainer` was called with for a trial."""
    return dict(trial.user_attrs.get(HYPERPARAMETERS, trial.params))
