"""Rules that name weights from elsewhere as a model names them, and lay them out as it does.

A rule is ``(pattern, template)`` or ``(pattern, template, how)``: a regular expression that has to
match a whole stored name, the name in the model, and how the array is laid out there.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from boltax.checkpoint._dtypes import dtype_named, is_storable
from boltax.errors import BoltaxError, ConfigurationError, UnknownNameError, unknown_name

Rule: TypeAlias = tuple[Any, ...]
"""``(pattern, template)`` or ``(pattern, template, how)``; see `parse_rules`."""

Shape: TypeAlias = tuple[int, ...]
Layout: TypeAlias = Callable[[np.ndarray, Shape], np.ndarray]

_FORM = (
    "(pattern, template) or (pattern, template, how), as in "
    '(r"(.*)\\.weight", r"\\1/kernel", "linear")'
)


def _linear(array: np.ndarray, _: Shape) -> np.ndarray:
    return array.T if array.ndim == 2 else array


def _conv(array: np.ndarray, _: Shape) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 2 else array


def _reshape(array: np.ndarray, shape: Shape) -> np.ndarray:
    return array.reshape(shape) if array.size == np.prod(shape, dtype=int) else array


LAYOUTS: Mapping[str, Layout] = {
    "linear": _linear,
    "conv": _conv,
    "embedding": lambda array, _: array,
    "reshape": _reshape,
}
"""What PyTorch lays out in another way than Flax: ``[out, in]`` to ``[in, out]``, ``[out, in, *k]``
to ``[*k, in, out]``, ``[number, features]``, which is the same in both, and the model's shape with
the numbers in their order, for heads of attention."""


@dataclass(frozen=True)
class Target:
    """Where a stored array goes.

    Attributes:
        stored: its name in the file.
        part: which of equal parts along the first axis it is, and of how many.
        layouts: what is done to it, in order.
        dtype: the dtype to which it is converted, where a rule asks for it; else None.
    """

    stored: str
    part: tuple[int, int] = (0, 1)
    layouts: tuple[Layout, ...] = ()
    dtype: np.dtype | None = None

    def laid_out(self, array: np.ndarray, shape: Shape) -> np.ndarray:
        """The array as the model has it.

        Args:
            array: as it is stored.
            shape: of the model's array.
        """
        number, count = self.part
        if count > 1:
            if not array.ndim or array.shape[0] % count:
                raise ConfigurationError(
                    f"Received a rule with {count} names for {self.stored}, an array of shape "
                    f"{array.shape}; expected a first axis of as many equal parts. Write one name."
                )
            size = array.shape[0] // count
            array = array[number * size : (number + 1) * size]
        for layout in self.layouts:
            array = np.asarray(layout(array, shape))
        return array if self.dtype is None else array.astype(self.dtype)


@dataclass(frozen=True)
class ParsedRule:
    """A rule whose pattern is compiled; `templates` is empty where it leaves an array out."""

    pattern: re.Pattern[str]
    templates: tuple[str, ...]
    layouts: tuple[Layout, ...]
    dtype: np.dtype | None


def parse_rules(rules: Any) -> list[ParsedRule]:
    r"""The rules, checked.

    Args:
        rules: a sequence of tuples ``(pattern, template, how)``. The pattern is a regular
            expression that matches a whole stored name; the template the model's name with
            ``\1`` for what a group matched, None to leave the array out, or a list of names, to
            each of which goes an equal part of the first axis. `how` is one or several of
            "linear", "conv", "embedding", "reshape", a dtype's name, or a function of the array.

    Raises:
        ConfigurationError: for what is no rule.
        UnknownNameError: for a layout that there is not.
    """
    if isinstance(rules, str) or not isinstance(rules, Sequence):
        raise ConfigurationError(f"Received rules={rules!r}; expected a list of {_FORM}.")
    return [_parsed(rule) for rule in rules]


def _parsed(rule: Any) -> ParsedRule:
    if not isinstance(rule, tuple | list) or len(rule) not in (2, 3):
        raise ConfigurationError(f"Received the rule {rule!r}; expected {_FORM}.")
    pattern, template, *how = rule
    templates = () if template is None else (template,) if isinstance(template, str) else template
    try:
        compiled = re.compile(pattern)
        if empty := re.compile(f"(?:{compiled.pattern})|").match(""):
            for text in templates:
                empty.expand(text)  # a group that the pattern lacks is found here
    except (TypeError, AttributeError, IndexError, re.error) as error:
        text = f"Received the rule {rule!r} ({error}); expected {_FORM}."
        raise ConfigurationError(text) from error
    layouts, dtype = list[Layout](), None
    for name in _several(how[0] if how else ()):
        if callable(name) and not isinstance(name, type):
            layouts.append(_function(name))
        elif isinstance(name, str) and name in LAYOUTS:
            layouts.append(LAYOUTS[name])
        elif (dtype := _dtype(name)) is None:
            known = [*LAYOUTS, "float32", "bfloat16", "float16"]
            raise unknown_name("layout of a rule", str(name), known)
    return ParsedRule(compiled, tuple(templates), tuple(layouts), dtype)


def _several(how: Any) -> Sequence[Any]:
    return how if isinstance(how, list | tuple) else (how,)


def _function(function: Callable[[np.ndarray], Any]) -> Layout:
    return lambda array, _: function(array)


def _dtype(name: Any) -> np.dtype | None:
    try:
        dtype = dtype_named(name) if isinstance(name, str) else np.dtype(name)
    except (TypeError, ValueError, LookupError, BoltaxError):
        return None
    return dtype if is_storable(dtype) else None


def targets(names: Collection[str], rules: Sequence[ParsedRule]) -> dict[str, Target]:
    """Where each stored array goes, by the model's name; an array without a rule keeps its name.

    Raises:
        UnknownNameError: for a rule that matches nothing.
        ConfigurationError: when two arrays would have one name.
    """
    found: dict[str, Target] = {}
    used = set[int]()
    for name in names:
        matches = ((n, rule, rule.pattern.fullmatch(name)) for n, rule in enumerate(rules))
        n, rule, match = next((m for m in matches if m[2]), (-1, None, None))
        if rule is None or match is None:
            _put(found, name, Target(name))
            continue
        used.add(n)
        count = len(rule.templates)
        for number, template in enumerate(rule.templates):
            target = Target(name, (number, count), rule.layouts, rule.dtype)
            _put(found, match.expand(template), target)
    for n, rule in enumerate(rules):
        if n not in used:
            raise _matches_nothing(rule, names, rules[:n])
    return found


def _put(found: dict[str, Target], name: str, target: Target) -> None:
    if name in found:
        raise ConfigurationError(
            f"Received rules with which {found[name].stored} and {target.stored} are both named "
            f"{name}; expected a name for each. Make their patterns more exact, or leave one out "
            f'with the rule ("{re.escape(target.stored)}", None).'
        )
    found[name] = target


def _matches_nothing(
    rule: ParsedRule, names: Collection[str], before: Sequence[ParsedRule]
) -> UnknownNameError:
    pattern = rule.pattern.pattern
    taken = [other for other in before if any(rule.pattern.fullmatch(n) for n in names)]
    if taken:
        return UnknownNameError(
            f"Received the rule {pattern!r}, whose names are all matched by rules before it; "
            "expected the first rule that matches a name to be the one for it. Put it first."
        )
    plain = pattern.replace("\\", "")
    near = difflib.get_close_matches(plain, names, n=5, cutoff=0.3) or sorted(names)[:5]
    return UnknownNameError(
        f"Received the rule {pattern!r}, which matches the whole of no name; expected one that "
        f"matches some, such as {', '.join(near)}. Write a dot as \\., and what varies as (.*)."
    )
