"""What the loggers of a run wrote beside its history: metrics by step, and pictures.

Read are the files of the CSV logger and of TensorBoard; those of a service are elsewhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boltax.errors import BoltaxError
from boltax.loggers._files import step_of_file
from boltax.loggers._table import Table

Points = list[tuple[float, float]]
_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURES = ("images", "figures")


@dataclass(frozen=True)
class Picture:
    """A picture that was logged.

    Attributes:
        key: its name.
        step: at which it was logged; None where nobody said.
        png: its bytes.
    """

    key: str
    step: int | None
    png: bytes


@dataclass(frozen=True)
class Logged:
    """What was logged.

    Attributes:
        series: for each metric its values by step.
        pictures: the newest for each key.
    """

    series: Mapping[str, Points] = field(default_factory=dict[str, Points])
    pictures: tuple[Picture, ...] = ()


def read_logged(folder: Path) -> Logged:
    """What the loggers wrote into a run's folder; what cannot be read is left out."""
    series, pictures = _of_csv(folder), dict[str, Picture]()
    for key, step, data in _picture_files(folder):
        _keep_newest(pictures, Picture(key, step, data))
    values, found = _of_tensorboard(folder)
    for picture in found:
        _keep_newest(pictures, picture)
    return Logged({**values, **series}, tuple(pictures[key] for key in sorted(pictures)))


def of_history(rows: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    """For each metric of a history its values by step."""
    series: dict[str, Points] = {}
    for row in rows:
        step = row.get("step", row.get("epoch"))
        for name, value in row.items():
            if "/" in name and isinstance(value, int | float) and isinstance(step, int | float):
                series.setdefault(name, []).append((float(step), float(value)))
    return series


def thinned(points: Points, most: int = 300) -> Points:
    """At most so many of the points, evenly chosen, the last among them."""
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[round(number * last / (most - 1))] for number in range(most)]


def _keep_newest(pictures: dict[str, Picture], picture: Picture) -> None:
    known = pictures.get(picture.key)
    if known is None or (picture.step or 0) >= (known.step or 0):
        pictures[picture.key] = picture


def _of_csv(folder: Path) -> dict[str, Points]:
    path = folder / "metrics.csv"
    if not path.is_file():
        return {}
    try:
        rows = Table(str(path), key="step").rows()
    except (BoltaxError, OSError, ValueError):
        return {}
    return of_history(rows)


def _picture_files(folder: Path) -> Iterator[tuple[str, int | None, bytes]]:
    for kind in _PICTURES:
        for path in sorted((folder / kind).rglob("*.png")):
            if path.is_symlink():  # it may lead out of the run's folder
                continue
            step = step_of_file(path.name)
            stem = path.relative_to(folder / kind).with_suffix("").as_posix()
            key = stem.rpartition("_")[0] if step is not None else stem
            data = path.read_bytes()
            if data.startswith(_PNG):
                yield key, step, data


def _of_tensorboard(folder: Path) -> tuple[dict[str, Points], list[Picture]]:
    paths = sorted(folder.glob("events.out.tfevents.*"))
    if not paths:
        return {}, []
    from boltax.loggers._event_file import values_in  # it takes a third of a second

    series, pictures = dict[str, dict[int, float]](), dict[str, Picture]()
    for step, value in values_in(paths):
        if step is None:  # what follows supersedes what there is from here on
            first: int = value
            for points in series.values():
                for late in [s for s in points if s >= first]:
                    del points[late]
        elif value.HasField("simple_value"):
            series.setdefault(value.tag, {})[step] = value.simple_value
        elif value.HasField("image") and value.image.encoded_image_string.startswith(_PNG):
            _keep_newest(pictures, Picture(value.tag, step, value.image.encoded_image_string))
    ordered = {n: [(float(s), float(v)) for s, v in sorted(p.items())] for n, p in series.items()}
    return {name: points for name, points in ordered.items() if points}, [*pictures.values()]
