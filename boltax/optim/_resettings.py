"""A saved optimizer's state with other settings: what is told to change changes, the rest stays.

saved:  moments, counts of updates, lr 0.1          fresh:  zeros, lr 0.01, as built now
after:  moments, counts of updates, lr 0.01
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

from boltax._base._types import PyTree
from boltax.optim._traced import IN_STATE


def changed_settings(saved: Any, now: Any) -> list[str]:
    """The names of an optimizer's settings that are not as they were; none where it is no dict.

    Args:
        saved: ``optimizer_hparams`` as stored.
        now: those of now, in the same plain form.

    Example:
        >>> changed_settings({"lr": 0.1, "warmup": 5}, {"lr": 0.01, "warmup": 5})
        ['lr']
    """
    if not isinstance(saved, Mapping | None) or not isinstance(now, Mapping | None):
        return []
    before: Mapping[str, Any] = saved or {}
    after: Mapping[str, Any] = now or {}
    found: list[str] = []
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = changed_settings(old, new)
            found += [f"{name}.{each}" for each in inner] if inner else [name]
        else:
            found.append(name)
    return found


def with_settings(saved: PyTree, fresh: PyTree, names: Collection[str]) -> PyTree:
    """A saved state with those settings of a fresh one that have changed.

    Args:
        saved: the state as it was saved.
        fresh: one of the same structure, as the settings of now make it.
        names: the settings that have changed, as `changed_settings` names them.
    """
    last = {name.rpartition(".")[2] for name in names}
    return _with(saved, fresh, {IN_STATE.get(name, name) for name in last})


def _with(saved: Any, fresh: Any, names: Collection[str]) -> Any:
    hyperparams = getattr(saved, "hyperparams", None)
    if isinstance(hyperparams, Mapping) and hasattr(saved, "_replace"):
        return _injected(saved, fresh, names)
    if isinstance(saved, tuple) and hasattr(saved, "_fields"):
        pairs = zip(cast("Any", saved), fresh, strict=True)
        return type(cast("Any", saved))(*(_with(*pair, names) for pair in pairs))
    if isinstance(saved, tuple | list):
        pairs = zip(cast("list[Any]", saved), fresh, strict=True)
        return type(cast("list[Any]", saved))(_with(*pair, names) for pair in pairs)
    if isinstance(saved, dict):
        named = cast("dict[Any, Any]", saved)
        return {key: _with(part, fresh[key], names) for key, part in named.items()}
    return saved


def _injected(saved: Any, fresh: Any, names: Collection[str]) -> Any:
    """The state of an `optax.inject_hyperparams`; a schedule keeps its count, and gets its base."""
    schedules: Mapping[str, Any] = getattr(saved, "hyperparams_states", {})
    states = {
        name: state._replace(base=fresh.hyperparams_states[name].base)
        if name in names and hasattr(state, "base")
        else state
        for name, state in schedules.items()
    }
    values = {
        name: fresh.hyperparams[name] if name in names and name not in schedules else value
        for name, value in saved.hyperparams.items()
    }
    more = {"hyperparams_states": states} if hasattr(saved, "hyperparams_states") else {}
    inner = _with(saved.inner_state, fresh.inner_state, names)
    return saved._replace(hyperparams=values, inner_state=inner, **more)
