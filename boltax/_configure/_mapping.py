"""Arguments as a plain mapping: read from a file, changed by ``--a.b value``, written with a run.

YAML is read strictly: no key twice, no tabs, no tags that make objects, and ``3e-4`` is a number.
A Python file is that of ml_collections: ``get_config()`` in it returns a mapping.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boltax._base._containers import is_mapping, plain_containers
from boltax._base._optional import import_optional
from boltax._process._user_files import find_in_file
from boltax.checkpoint._files import write_text
from boltax.errors import ConfigurationError

_NUMBER = r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
_FLOAT = re.compile(rf"(?:(?=.*[.eE]){_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


def yaml_module() -> Any:
    """The package `yaml`."""
    return import_optional("yaml", extra="cli", purpose="a run from a file")


def read_mapping(path: str) -> dict[str, Any]:
    """The arguments in a file: ``config.yaml``, ``config.json``, ``config.py[:get_config]``.

    Raises:
        ConfigurationError: when there is no such file, or it holds something else.
    """
    file, _, name = path.rpartition(":") if ".py:" in path else (path, "", "get_config")
    if file.endswith(".py"):
        found = find_in_file(f"{file}:{name}")
        value = plain_containers(found() if callable(found) else found)
    elif not Path(file).is_file():
        raise ConfigurationError(
            f"Received {path!r}, which is no file; expected a configuration in YAML, or the folder "
            "of a run that boltax fit made. Write boltax fit config.yaml."
        )
    else:
        value = parse(Path(file).read_text(encoding="utf-8"), file)
    if value is None:
        return {}
    if not is_mapping(value) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(
            f"Received {path!r}, which holds {type(value).__name__}; expected names with values. "
            "Write lines such as seed: 42."
        )
    return dict(value)


def parse(text: str, where: str) -> Any:
    """The value of a text in YAML.

    Raises:
        ConfigurationError: with the line and what is wrong there.
    """
    yaml = yaml_module()
    try:
        return yaml.load(text, Loader=_loader(yaml))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}" if mark is not None else where
        line = text.splitlines()[mark.line : mark.line + 1] if mark is not None else []
        problem, advice = str(error.problem), "Mend this line."
        if "\\t" in problem or any("\t" in part[: len(part) - len(part.lstrip())] for part in line):
            problem, advice = "a tab at its beginning", "Indent with spaces: YAML takes no tabs."
        elif "could not determine a constructor" in problem:
            advice = "Write plain values; a configuration makes no objects."
        raise ConfigurationError(
            f"Received {place} with {problem}; expected YAML. {advice}"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"Received {where}, which cannot be read ({error}); expected YAML. Write lines such as "
            "seed: 42."
        ) from error


def _loader(yaml: Any) -> Any:
    class Strict(yaml.SafeLoader):
        """Refuses keys that occur twice, and knows numbers like ``3e-4``."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set[Any]()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str | int | float) and key in seen and key != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} a second time", key_node.start_mark
                    )
                seen.add(key if isinstance(key, str | int | float) else id(key_node))
            return super().construct_mapping(node, deep)

    return _with_numbers(Strict)


def _dumper(yaml: Any) -> Any:
    class Plain(yaml.SafeDumper):
        """Quotes what `_loader` would take for a number."""

    return _with_numbers(Plain)


def _with_numbers(kind: Any) -> Any:
    known: Mapping[str, Any] = kind.yaml_implicit_resolvers
    kind.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:float"]
        for first, pairs in known.items()
    }
    kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return kind


def changed(mapping: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """The arguments with those of a command line in their place: ``--a.b value``, ``--a.b=value``.

    Raises:
        ConfigurationError: for an option without a value, or what is no option.
    """
    result, rest = _copied(mapping), list(options)
    while rest:
        name, sign, text = rest.pop(0).partition("=")
        if not name.startswith("--") or len(name) < 3:
            raise ConfigurationError(
                f"Received {name!r} among the options; expected a name and a value. Write "
                "--optimizer_hparams.lr 3e-4."
            )
        if not sign:
            if not rest or re.match(r"--[a-zA-Z_]", rest[0]):
                raise ConfigurationError(
                    f"Received {name} without a value; expected one. Write {name} VALUE, or "
                    f"{name} true."
                )
            text = rest.pop(0)
        value = parse(text, name)
        _put(result, name[2:].split("."), value, name)
    return result


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def put(mapping: dict[str, Any], name: str, value: Any) -> None:
    """Sets the value of a dotted name."""
    _put(mapping, name.split("."), value, name)


def _put(mapping: dict[str, Any], parts: Sequence[str], value: Any, name: str) -> None:
    *first, last = parts
    for part in first:
        inner = mapping.get(part)
        if inner is None:
            inner = mapping[part] = {}
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"Received {name}, but {part} is {inner!r}; expected names with values there. "
                f"Write {part} as a mapping, or leave {name} out."
            )
        mapping = inner
    mapping[last] = value


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted name.

    Example:
        >>> list(flat({"loop": {"ema": 0.9}, "seed": 1}))
        [('loop.ema', 0.9), ('seed', 1)]
    """
    for name, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def write_mapping(path: Path, mapping: Mapping[str, Any], head: str) -> None:
    """Writes arguments as YAML, below a line of comment."""
    yaml = yaml_module()
    text = yaml.dump(_plain(mapping), Dumper=_dumper(yaml), sort_keys=False, allow_unicode=True)
    write_text(path, f"# {head}\n{text}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def is_plain(value: Any) -> bool:
    """Whether a value can stand in YAML and comes back as it is, tuples as lists."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
