"""Compiled programs: ahead of time, one for each form of the arguments, and never again in silence.

A `Program` is a jitted function whose last argument (the batches) decides which of its compiled
forms is called. What is compiled is announced and timed; a second form says which argument changed,
and what that cost. Programs can be compiled in the background, while others run.
"""

import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import jax

from boltax._base._chunks import Made, Rows
from boltax._base._trees import common_size, describe, describe_leaf, form_of, path_name
from boltax._base._types import Feed, PyTree
from boltax._process._ledger import Ledger
from boltax._process._moments import after_compiling
from boltax._step._flops import flops_in, has_primitive
from boltax.errors import RecompilationError, TrainingError
from boltax.parallel._jitted import misplaced

Compiling: TypeAlias = Future[Any]
"""What is done when something is compiled."""
Form: TypeAlias = Hashable
"""The shapes and dtypes of all arguments of a program."""
Announce = Callable[[str], AbstractContextManager[Any]]
MOST_SHOWN = 4
_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="boltax-compile")
_log = logging.getLogger("boltax")


class Compilations:
    """What is compiled for a trainer's steps: announced, timed, and limited in number.

    Attributes:
        announce: makes the context in which something with a given name is compiled.
        batch_shapes: see below.
        ledger: gets the time.

    Args:
        announce: see there.
        note: tells of something that is no cause for alarm.
        where: the moment in the run, for messages.
        most_again: how often steps may be compiled again; None for any number.
        batch_shapes: in how many shapes batches come on purpose: each step is compiled once for
            each of them, and nothing is told.
    """

    def __init__(
        self,
        announce: Announce = lambda _: nullcontext(),
        *,
        note: Callable[[str], None] = lambda _: None,
        where: Callable[[], str] = lambda: "the start",
        most_again: int | None = None,
        batch_shapes: int = 1,
    ) -> None:
        self.announce, self.ledger = announce, Ledger()
        self._note, self._where, self._most_again = note, where, most_again
        self._again = 0
        self.batch_shapes = batch_shapes

    def before_again(self, name: str, changes: str) -> None:
        """Notes that a step has to be compiled another time.

        Raises:
            RecompilationError: when that is too often.
        """
        self._again += 1
        if self._most_again is not None and self._again > self._most_again:
            raise RecompilationError(
                f"Received other arguments for the {name} at {self._where()}: {changes}; expected "
                "to compile it again at most as often as LoopOptions(max_recompiles="
                f"{self._most_again}) allows. {REMEDY}"
            )

    def after_again(self, name: str, changes: str, seconds: float, *, is_ragged: bool) -> None:
        """Tells what was compiled another time, at which step, why, and what it cost."""
        tell = self._note if is_ragged else _log.warning
        tell(
            f"The {name} was compiled again at {self._where()}, in {seconds:.1f} s: {changes}. "
            + (REMEDY_RAGGED if is_ragged else REMEDY)
        )


REMEDY_RAGGED = "For equal batches write drop_last=True."
REMEDY = (
    "Each form of the arguments is compiled once. For equal batches write drop_last=True, or pad "
    "them in the loader to a few sizes, and say how many with LoopOptions(batch_shapes=...); give "
    "all batches the same dtypes."
)


class Program:
    """A function compiled once for each form of its arguments, the batches being the last of them.

    Attributes:
        compile_seconds: what its first form took to trace and compile.

    Args:
        function: what ``jax.jit`` or `Placement.jit` returned.
        name: names it to people, e.g. ``"train step"``.
        compilations: announces and counts.
        one_of: the shapes of one batch as the user has it, by the last argument.
        may_be_ragged: whether a smaller batch is what one has to expect, and counts for nothing.
    """

    def __init__(
        self,
        function: Any,
        name: str,
        compilations: Compilations,
        *,
        may_be_ragged: bool = False,
        one_of: Callable[[Feed], PyTree] = lambda batch: batch,
    ) -> None:
        self._function, self._name, self._compilations = function, name, compilations
        self._one_of = one_of
        self._may_be_ragged = may_be_ragged
        self._known: dict[Form, Any] = {}  # compiled, or a Future of that
        self._known_forms: dict[Form, PyTree] = {}
        self._jaxpr: Any = None  # of the first form, until somebody asks what is in it
        self._flops: int | None = None
        self._has_convolutions = False
        self.compile_seconds = 0.0

    @property
    def flops(self) -> int | None:
        """Operations of matrix products and convolutions in the first form; None before it."""
        self._look()
        return self._flops

    @property
    def has_convolutions(self) -> bool:
        """Whether there are convolutions in the first form; False before it is traced."""
        self._look()
        return self._has_convolutions

    def _look(self) -> None:
        if (jaxpr := self._jaxpr) is not None:
            self._flops, self._jaxpr = flops_in(jaxpr).total, None
            self._has_convolutions = has_primitive(jaxpr, "conv_general_dilated")

    @property
    def temporaries(self) -> int | None:
        """Bytes of workspace of its first form, once that is compiled; None where nobody knows."""
        first = next(iter(self._known.values()), None)
        compiled = first.result() if isinstance(first, Future) else first
        memory = None if compiled is None else compiled.memory_analysis()
        return None if memory is None else int(memory.temp_size_in_bytes)

    def __call__(self, *args: PyTree) -> Any:
        """Runs the program of the form that these arguments have, compiled now if it is new."""
        key = form_of(args[-1])
        compiled = self._known.get(key)
        if compiled is None or isinstance(compiled, Future):
            compiled = self._compiled(key, args)
        try:
            # Batches of a CPU lie on the host (see `prefetch_to_device`), and so do metrics of no
            # batch; the count of a loop is on one device, when the program is that of several.
            with (
                jax.transfer_guard_host_to_device("allow"),
                jax.transfer_guard_device_to_device("allow"),
            ):
                return compiled(*args)
        except (TypeError, ValueError):  # raised before it runs, when the state has another form
            if not self._is_new(key, args):
                self._refuse_misplaced(compiled, args)
                return self._function(*args)  # another device, or an error of the arguments
        del self._known[key]
        return self._compiled(key, args)(*args)

    def _refuse_misplaced(self, compiled: Any, args: tuple[PyTree, ...]) -> None:
        """Refuses arrays that lie on other devices than the program was compiled for.

        That all of them lie on another single device is fine: members of a population may.
        """
        found = misplaced(args, compiled.input_shardings[0])
        if found is None:
            return
        path, place, expected = found
        if len(place.device_set) == len(expected.device_set) == 1:
            return
        raise TrainingError(
            f"Received {path} for the {self._name}, which lies as {place}; expected "
            f"{expected}, for which that is compiled. Leave arrays where they lie when you replace "
            "them, as jax.device_put(new, old.sharding) does, and say how a run is spread over "
            'devices with parallel="data", "fsdp" or boltax.Parallel(...).'
        )

    def lower(self, *args: PyTree) -> Any:
        """The program for these arguments (arrays or their shapes), not compiled."""
        return self._function.lower(*args)

    def trace(self, *args: PyTree) -> Any:
        """The program for these arguments, traced; the first one is what is looked into."""
        traced = self._function.trace(*args)
        self.expect(traced.jaxpr, *args)
        return traced

    def expect(self, jaxpr: Any, *args: PyTree) -> None:
        """Takes these arguments for its first form, if there is none, and looks into this for it.

        Args:
            jaxpr: what is computed of them, or the part with all matrix products.
            *args: the arguments, arrays or their shapes.
        """
        if not self._known_forms:
            self._jaxpr, self._known_forms[form_of(args[-1])] = jaxpr, forms(args)

    def start(self, *args: PyTree, after: Compiling | None = None) -> Compiling:
        """Begins to compile for these arguments (arrays or their shapes) in the background.

        It is traced here and now, so that the settings of this thread count.

        Args:
            args: the arguments.
            after: another program that is to be compiled before: the compiler uses all cores for
                one, so that two at a time would be ready as late as both.
        """
        key = form_of(args[-1])
        known = self._known.get(key)
        if known is None:
            began = time.perf_counter()
            lowered = self.trace(*args).lower()
            known = _pool.submit(self._compile, lowered, time.perf_counter() - began, after)
            self._known[key], self._known_forms[key] = known, forms(args)
        if isinstance(known, Future):
            return known
        done: Compiling = Future()
        done.set_result(known)
        return done

    def _one(self, args: tuple[PyTree, ...]) -> PyTree:
        return self._one_of(args[-1])

    def _is_new(self, key: Form, args: tuple[PyTree, ...]) -> bool:
        try:
            return bool(_changes(self._known_forms[key], forms(args)))
        except AttributeError:  # something that is no array
            return False

    def _compile(self, lowered: Any, traced: float, after: Compiling | None) -> Any:
        if after is not None:
            wait([after])
        began = time.perf_counter()
        compiled = lowered.compile()
        self.compile_seconds = self.compile_seconds or time.perf_counter() - began + traced
        for act in after_compiling:
            _pool.submit(act)  # later, as the program is waited for
        return compiled

    def _compiled(self, key: Form, args: tuple[PyTree, ...]) -> Any:
        changes, is_ragged, is_again = "", False, False
        if key not in self._known and self._known_forms:
            before, now = (
                self._known_forms.get(key, next(iter(self._known_forms.values()))),
                forms(args),
            )
            before, now = ((*form[:-1], self._one(form)) for form in (before, now))
            changes, is_ragged = _changes(before, now), _is_ragged(before, now)
            is_meant = len(self._known_forms) < self._compilations.batch_shapes
            if is_meant and _is_other_shape(before, now):
                changes = ""
            is_again = bool(changes) and not (is_ragged and self._may_be_ragged)
            if is_again:
                self._compilations.before_again(self._name, changes)
        began = time.perf_counter()
        what = f"compiling the {self._name} for {_named(self._one(args))}"
        booked = "recompile" if is_again else "compile"
        with self._compilations.ledger.spent(booked), self._compilations.announce(what):
            compiled = self._known[key] = self.start(*args).result()
        if is_again:
            seconds = time.perf_counter() - began
            self._compilations.after_again(self._name, changes, seconds, is_ragged=is_ragged)
        return compiled


def forms(args: PyTree) -> PyTree:
    """The shapes and dtypes of arguments."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), args)


def _changes(before: PyTree, now: PyTree) -> str:
    """What is different in the second of two forms of arguments, the batches being the last."""
    changes: list[str] = []
    for number, (left, right) in enumerate(zip(before, now, strict=True)):
        root = "batch" if number == len(before) - 1 else "state"
        old, new = (
            {path_name(path, root): describe_leaf(leaf) for path, leaf in flat}
            for flat in map(jax.tree_util.tree_leaves_with_path, (left, right))
        )
        changes += [
            f"{name} was {old.get(name, 'not there')} and is {new.get(name, 'not there')}"
            for name in {**old, **new}
            if old.get(name) != new.get(name)
        ]
    more = f" and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
    return ", ".join(changes[:MOST_SHOWN]) + more


def _named(batch: PyTree) -> str:
    """Batches of a form, in words."""
    size = getattr(batch, "size", None) if isinstance(batch, Rows | Made) else common_size(batch)
    return f"batches with {describe(batch)}" if size is None else f"batches of {size}"


def _is_other_shape(before: PyTree, now: PyTree) -> bool:
    """Whether the batch has arrays of other sizes, and all else is as it was."""
    if jax.tree.structure(before) != jax.tree.structure(now):
        return False
    pairs = zip(jax.tree.leaves(before[-1]), jax.tree.leaves(now[-1]), strict=True)
    return not _changes((*before[:-1], ()), (*now[:-1], ())) and all(
        old.dtype == new.dtype and len(old.shape) == len(new.shape) for old, new in pairs
    )


def _is_ragged(before: PyTree, now: PyTree) -> bool:
    """Whether the batch has fewer examples, and all else is as it was."""
    if jax.tree.structure(before) != jax.tree.structure(now):
        return False
    pairs = zip(jax.tree.leaves(before[-1]), jax.tree.leaves(now[-1]), strict=True)
    return not _changes((*before[:-1], ()), (*now[:-1], ())) and all(
        old.dtype == new.dtype and old.shape[1:] == new.shape[1:] and old.shape[:1] > new.shape[:1]
        for old, new in pairs
    )
