"""A second trainer with the attributes of a first one, which stays as it is."""

import copy
from typing import Any

from boltax._build._constructed import Constructed
from boltax._build._hooks import Live
from boltax._progress._progress import Progress


def twin_of(trainer: Constructed, **attributes: Any) -> Any:
    """A trainer of the same class and attributes but for some, silent and without a run.

    What it assigns to itself, such as its state in `init_optimizer`, the trainer does not have. Its
    steps are those of the trainer: for what is tried out.
    """
    return _twin(trainer, Progress(enabled=False), attributes)


def stand_in_of(trainer: Constructed, *, is_silent: bool, **attributes: Any) -> Any:
    """A trainer that trains in place of another one, with its state, folder and loggers.

    Its steps are made of its own methods, so that what hooks assign to it `loss_function` sees.

    Args:
        trainer: a trainer of the user's, made but not trained.
        is_silent: whether it shows no progress.
        **attributes: in which it differs.
    """
    progress = Progress(enabled=False) if is_silent else trainer._made.progress
    if is_silent:
        attributes["enable_progress_bar"] = False
    twin = _twin(trainer, progress, attributes)
    # a folder that is named for many trials stays where they say that it is
    twin._made.versions_in = twin._made.versions_in or twin.log_dir
    twin._remake_steps()
    return twin


def _twin(trainer: Constructed, progress: Progress, attributes: dict[str, Any]) -> Any:
    twin = object.__new__(type(trainer))
    made = copy.copy(trainer._made)
    made.progress, made.live = progress, Live(attributes.pop("state", trainer.state))
    twin.__dict__.update({**trainer.__dict__, "_made": made, "run": None, **attributes})
    return twin
