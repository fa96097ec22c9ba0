"""Several loaders at once: side by side in one batch, or mixed batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from boltax._base._trees import describe, form_of
from boltax._base._types import Batch, Cursor
from boltax.data._cursor import consumed
from boltax.errors import ConfigurationError, DataError, unknown_name

MODES = ("cycle", "shortest")


class Together:
    """Loaders side by side: each batch is a dict with one of each.

    A dict of loaders in the place of a train_loader is this, with ``until="cycle"``.

    Args:
        loaders: by name.
        until: ``"cycle"``: an epoch is as long as the longest loader, and the others begin anew, in
            another order where they shuffle; ``"shortest"``: it ends with the shortest.

    Example:
        >>> import numpy as np
        >>> from boltax.data import ArrayLoader
        >>> labelled = ArrayLoader((np.zeros((4, 2)), np.zeros(4)), batch_size=2)
        >>> unlabelled = ArrayLoader(np.zeros((12, 2)), batch_size=4)
        >>> batch = Together({"labelled": labelled, "unlabelled": unlabelled}).first()
        >>> batch["labelled"][0].shape, batch["unlabelled"].shape
        ((2, 2), (4, 2))
    """

    def __init__(self, loaders: Mapping[str, Any], *, until: str = "cycle") -> None:
        if not isinstance(loaders, Mapping) or not loaders:
            raise ConfigurationError(
                f"Received Together({loaders!r}); expected loaders by name. Write "
                'Together({"labelled": loader, "unlabelled": other}).'
            )
        if until not in MODES:
            raise unknown_name("Together(until=...)", until, MODES)
        self.loaders, self.until = dict(loaders), until

    def first(self) -> Batch:
        """A batch of the first one of each loader, as an example; it is drawn of them."""
        return {name: next(iter(loader)) for name, loader in self.loaders.items()}


class Mixture:
    """Loaders mixed: each batch is one of them, drawn at random by their weights.

    Which one follows from the seed, the epoch and the number of the batch alone, so that a resumed
    run goes on exactly. A loader that ends begins anew, in another order where it shuffles.

    Args:
        loaders: each with its weight.
        num_batches: batches in an epoch; by default as many as all loaders have together.
        seed: of the draws.

    Raises:
        ConfigurationError: for weights that cannot be.

    Example:
        >>> import numpy as np
        >>> from boltax.data import ArrayLoader
        >>> zeros = ArrayLoader(np.zeros(40, np.float32), batch_size=4)
        >>> ones = ArrayLoader(np.ones(8, np.float32), batch_size=4)
        >>> mixture = Mixture([(zeros, 0.75), (ones, 0.25)], seed=1)
        >>> [round(float(weight), 2) for weight in mixture.weights]
        [0.75, 0.25]
    """

    def __init__(
        self,
        loaders: Sequence[tuple[Any, float]],
        *,
        num_batches: int | None = None,
        seed: int = 0,
    ) -> None:
        pairs = list(loaders)
        weights = [weight for _, weight in pairs]
        if not pairs or not all(_is_weight(weight) for weight in weights) or not sum(weights) > 0:
            raise ConfigurationError(
                f"Received Mixture with the weights {weights!r}; expected a number of at least 0 "
                "for each loader, and one above 0. Write Mixture([(a, 0.7), (b, 0.3)])."
            )
        if num_batches is not None and (type(num_batches) is not int or num_batches < 1):
            raise ConfigurationError(
                f"Received Mixture(num_batches={num_batches!r}); expected a whole number of at "
                "least 1, or None."
            )
        self.loaders = [loader for loader, _ in pairs]
        self.weights = np.asarray(weights, np.float64) / sum(weights)
        self.num_batches, self.seed = num_batches, seed


class TogetherSource:
    """The source of `Together`.

    Args:
        parts: the sources by name.
        until: see there.
        name: the argument that the loader was, for messages.
    """

    def __init__(self, parts: Mapping[str, Any], until: str, name: str) -> None:
        self._parts, self._is_cycled = dict(parts), until == "cycle"
        lengths = {key: part.num_batches for key, part in self._parts.items()}
        known = [length for length in lengths.values() if length is not None]
        self.num_batches: int | None = None
        if known:
            self.num_batches = max(known) if self._is_cycled else min(known)
        if self._is_cycled and known and len(known) < len(lengths):
            unknown = [key for key, length in lengths.items() if length is None]
            ends = [key for key in unknown if not getattr(self._parts[key], "is_endless", False)]
            if ends:
                raise DataError(
                    f"Received {name} with {', '.join(map(repr, ends))}, of which nobody knows the "
                    "length; expected loaders that have one, to begin the shorter ones anew. Write "
                    'boltax.data.Together(loaders, until="shortest").'
                )
        self.is_endless = not known
        self.owns_batches = all(part.owns_batches for part in self._parts.values())

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; see `Source`."""
        start = consumed(after, epoch)
        cursors: dict[str, Any] = dict(after["parts"]) if start and after is not None else {}
        streams = {
            key: self._stream(part, epoch, cursors.get(key)) for key, part in self._parts.items()
        }
        number = start
        while self.num_batches is None or number < self.num_batches:
            drawn = {key: next(stream, None) for key, stream in streams.items()}
            if any(item is None for item in drawn.values()):
                return
            number += 1
            batch = {key: item[0] for key, item in drawn.items() if item is not None}
            parts = {key: item[1] for key, item in drawn.items() if item is not None}
            yield batch, {"epoch": epoch, "batch": number, "parts": parts}

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprints of the loaders."""
        parts = {key: part.fingerprint() for key, part in self._parts.items()}
        return {"kind": "Together", "is_cycled": self._is_cycled, "parts": parts}

    def _stream(
        self, part: Any, epoch: int, after: Cursor | None
    ) -> Iterator[tuple[Batch, Cursor]]:
        length = part.num_batches
        if not self._is_cycled or length is None or self.num_batches is None:
            return iter(part.epoch(epoch, after))
        return cycled(part, epoch, -(-self.num_batches // length), after)


class MixtureSource:
    """The source of `Mixture`.

    Args:
        parts: the sources.
        mixture: see there.
        name: the argument that the loader was, for messages.
    """

    def __init__(self, parts: Sequence[Any], mixture: Mixture, name: str) -> None:
        self._parts, self._mixture, self._name = list(parts), mixture, name
        lengths = [part.num_batches for part in self._parts]
        known = None if None in lengths else sum(lengths)
        self.num_batches: int | None = mixture.num_batches or known
        self.is_endless = self.num_batches is None and any(
            getattr(part, "is_endless", False) for part in self._parts
        )
        self.owns_batches = all(part.owns_batches for part in self._parts)
        self._check_forms()

    def epoch(self, epoch: int, after: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """The batches of one epoch; see `Source`."""
        number = consumed(after, epoch)
        cursors: list[Any] = [None] * len(self._parts)
        if number and after is not None:
            cursors = list(after["parts"])
        streams: dict[int, Iterator[tuple[Batch, Cursor]]] = {}
        while self.num_batches is None or number < self.num_batches:
            draw = np.random.default_rng([self._mixture.seed, epoch, number])
            index = int(draw.choice(len(self._parts), p=self._mixture.weights))
            if index not in streams:
                part, most = self._parts[index], self.num_batches or 2**20
                streams[index] = cycled(part, epoch, most, cursors[index])
            item = next(streams[index], None)
            if item is None:
                return
            number += 1
            cursors[index] = item[1]
            yield item[0], {"epoch": epoch, "batch": number, "parts": list(cursors)}

    def fingerprint(self) -> dict[str, Any]:
        """The fingerprints of the loaders, and how they are mixed."""
        mixture = self._mixture
        return {
            "kind": "Mixture",
            "weights": [float(weight) for weight in mixture.weights],
            "num_batches": self.num_batches,
            "seed": mixture.seed,
            "parts": [part.fingerprint() for part in self._parts],
        }

    def _check_forms(self) -> None:
        """Refuses loaders whose batches differ in structure, where they can be read twice."""
        forms: list[tuple[Any, Any]] = []
        for part in self._parts:
            if getattr(part, "is_read_once", False):
                continue
            stream = iter(part.epoch(1))
            item = next(stream, None)
            if item is None:
                continue
            structure, leaves = form_of(item[0])
            form = structure, tuple((shape[1:], dtype) for shape, dtype in leaves)
            forms.append((form, item[0]))
            if form != forms[0][0]:
                raise DataError(
                    f"Received {self._name}, a Mixture of loaders with {describe(forms[0][1])} and "
                    f"{describe(item[0])}; expected batches of one structure, since each goes "
                    "through the same step. For batches side by side write boltax.data.Together."
                )


def cycled(
    part: Any, epoch: int, most: int, after: Cursor | None
) -> Iterator[tuple[Batch, Cursor]]:
    """A source again and again, in orders of its own for each pass.

    Args:
        part: the source.
        epoch: the epoch of the whole.
        most: passes in each epoch of the whole, at most.
        after: goes on behind the batch with this cursor.
    """
    own = (epoch - 1) * most + 1 if after is None else int(after["epoch"])
    while True:
        is_empty = after is None
        for item in part.epoch(own, after):
            is_empty = False
            yield item
        if is_empty:
            return  # such as an iterator that was read to its end
        own, after = own + 1, None


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < float("inf")
