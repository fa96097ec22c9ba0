"""In which way a trainer is constructed: one value, which the trainer takes when it is made.

                folder             loggers  hparams.json      values       summary  model and steps
    NEW         made, or checked   made     written           initialised  shown    made
    LOADED      that of its run    made     left as it is     shapes       none     made
    RESTORED    that of its run    made     left as it is     initialised  none     made
    MEMBER      a given one        none     written           shapes       none     made
    PREVIEWED   a temporary one    none     none              shapes       none     made
    DESCRIBED   none               none     none              none         none     none

LOADED is a run that there is; RESTORED is one whose class has a `load_model` of its own, which may
compute with the values that it replaces. A MEMBER belongs to a population. A trainer that is
PREVIEWED is looked at by `boltax preflight`. One that is DESCRIBED shows its arguments, checked: a
study asks for the trainers of all its trials, and makes one for many of them. Its constructor runs
to its end, and that of the subclass too; what the table says is none, is None.

LOADED, RESTORED and MEMBER hold for one trainer, and not for those that its constructor makes, a
teacher for example, which need their values. PREVIEWED and DESCRIBED hold for all that are made.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Construction:
    """What the constructor of a trainer does, and what it leaves out; see the table above.

    Attributes:
        name: of the way, for messages.
        is_new: whether the run begins here: its folder is made, and its options are checked.
        has_hparams: whether ``hparams.json`` is written.
        has_values: whether the model's variables are arrays, and not shapes.
        is_shown: whether the model's summary is printed, and written to ``model.txt``.
        is_complete: whether there are a folder, loggers, a state and steps.
        is_for_one: whether it holds for one trainer, and not for those that this one makes.
        folder: what takes the place of a run's folder, or None.
        mesh: the devices that are asked about, in place of the trainer's own; None for these.
        described: gets the trainers that are described, in the order in which they are.
    """

    name: str
    is_new: bool = False
    has_hparams: bool = False
    has_values: bool = False
    is_shown: bool = False
    is_complete: bool = True
    is_for_one: bool = True
    folder: str | None = None
    mesh: Mapping[str, int] | None = None
    described: list[Any] = field(default_factory=list[Any])


NEW = Construction(
    "new", is_new=True, has_hparams=True, has_values=True, is_shown=True, is_for_one=False
)
LOADED = Construction("loaded")
RESTORED = Construction("restored", has_values=True)
MEMBER = Construction("member", has_hparams=True)
PREVIEWED = Construction("previewed", is_for_one=False)
DESCRIBED = Construction("described", is_new=True, is_complete=False, is_for_one=False)

_next: ContextVar[Construction] = ContextVar("construction", default=NEW)


@contextmanager
def constructing(construction: Construction) -> Generator[None]:
    """Within it the next trainer is constructed in this way."""
    token = _next.set(construction)
    try:
        yield
    finally:
        _next.reset(token)


def described_by(make: Callable[[], Any]) -> Any:
    """The trainer that a function makes, with its arguments, checked, and nothing else.

    What fails after a trainer is described may lack what only a complete one has: weights are
    loaded into its state, say. Then it is that trainer.

    Returns:
        What the function returns.
    """
    construction = replace(DESCRIBED, described=[])
    try:
        with constructing(construction):
            return make()
    except Exception:
        if not construction.described:
            raise
        return construction.described[-1]


@contextmanager
def previewing(mesh: Mapping[str, int] | None = None) -> Generator[None]:
    """Within it trainers are made of shapes, to be looked at: no run's folder and no loggers.

    Args:
        mesh: on which devices they are to lie; None for their own.
    """
    with (
        tempfile.TemporaryDirectory(prefix="boltax-", ignore_cleanup_errors=True) as folder,
        constructing(replace(PREVIEWED, folder=folder, mesh=mesh)),
    ):
        yield


def take() -> Construction:
    """The way in which the trainer is constructed that is made at this moment."""
    construction = _next.get()
    if construction.is_for_one:
        _next.set(NEW)  # `constructing` takes it back
    return construction


def current() -> Construction:
    """The way in which the next trainer will be constructed."""
    return _next.get()
