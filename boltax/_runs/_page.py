"""Runs beside each other as one HTML page that needs nothing else: no network, no other file."""

import base64
import html
import time
from collections.abc import Sequence
from typing import Any

from boltax._runs._chart import Line, chart
from boltax._runs._found import Columns
from boltax._runs._logged import Logged, Picture, of_history, read_logged, thinned
from boltax._runs._run_files import RunFiles
from boltax._runs._style import COLOURS, SCRIPT, STYLE
from boltax._runs._table import age, usual_metrics
from boltax.checkpoint._rundir import RunDirectory

MOST_PICTURES = 12
"""Pictures of each run, the newest of each key; a page has to open on a phone."""
MOST_BYTES = 4 * 2**20
"""Bytes of a picture; a larger one is named only."""
FEW_EPOCHS = 12
"""With so many epochs, or fewer, the metrics of single steps are drawn too."""


def page(columns: Columns, title: str) -> str:
    """The page of some runs.

    Args:
        columns: the runs, in order.
        title: its head.
    """
    runs = columns.runs
    logged = [read_logged(run.path) for run in runs]
    count = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class=quiet>{count}, {time.strftime('%Y-%m-%d %H:%M')}</p>",
        _section("Results", _legend(runs), _results(columns), *_reasons(runs)),
        _section("Curves", *_charts(runs, logged)),
        _section("Hyperparameters", _hyperparameters(columns)),
        _section("Where the time went", *_times(runs)),
        _section("Pictures", *_pictures(runs, logged)),
        _section("Models", *_models(runs)),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{_text(title)}</title><style>{STYLE}{_colours(len(runs))}</style></head><body>"
        f"<main>{''.join(parts)}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, *parts: str) -> str:
    body = "".join(parts)
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _colours(count: int) -> str:
    rules: list[str] = []
    for number in range(count):
        turn = f"hsl({number * 137 % 360} 60% 50%)"
        colour = COLOURS[number] if count <= len(COLOURS) else turn
        rules.append(f".run{number}{{--own:{colour}}}")
    return "".join(rules)


def _legend(runs: Sequence[RunFiles]) -> str:
    boxes = "".join(
        f"<label class=run{n}><input type=checkbox checked data-run={n}><i></i>"
        f"{_text(run.name)}</label>"
        for n, run in enumerate(runs)
    )
    return f"<div class=legend>{boxes}</div>" if len(runs) > 1 else ""


def _results(columns: Columns) -> str:
    metrics = dict.fromkeys([*usual_metrics(columns), *columns.metrics])
    names = [name for name in metrics if name != "train/grad_norm"][:8]
    differing = columns.differing()[:6]
    head = ["run", "state", *differing, *names, "steps", "time", "age"]
    rows = [
        [
            f"<i class=run{n}></i>{_text(run.name)}",
            _state(run),
            *(_cell(columns.value(run, name)) for name in differing),
            *(_cell(run.metrics.get(name)) for name in names),
            f"{run.step:,}",
            age(sum(run.seconds.values())) if run.seconds else "-",
            age(run.age),
        ]
        for n, run in enumerate(columns.runs)
    ]
    return _table(head, rows)


def _reasons(runs: Sequence[RunFiles]) -> list[str]:
    return [
        f"<p class=quiet>{_text(run.name)} {_text(run.state)}: {_text(run.reason)}</p>"
        for run in runs
        if run.reason
    ]


def _state(run: RunFiles) -> str:
    return f"<span class='state {_text(run.state)}'>{_text(run.state)}</span>"


def _cell(value: Any) -> str:
    if value is None:
        return "<span class=quiet>-</span>"
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{_text(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{titles}</tr>{lines}</table></div>"


def _charts(runs: Sequence[RunFiles], logged: Sequence[Logged]) -> list[str]:
    """A chart for each metric, train beside val; those of one phase alone come last."""
    groups: dict[str, list[Line]] = {}
    for number, (run, own) in enumerate(zip(runs, logged, strict=True)):
        rows = of_history(run.history)
        fine = {n: p for n, p in own.series.items() if n.startswith("train/step/")}
        if len(run.history) > FEW_EPOCHS:
            fine = {}
        others = {
            name: points
            for name, points in own.series.items()
            if not name.startswith(("train/", "val/", "test/", "speed/", "time/"))
            and name not in ("epoch", "step")
        }
        for name, points in {**fine, **others, **rows}.items():
            phase, _, metric = name.rpartition("/")
            if phase in ("time", "test", "speed"):
                continue
            style = {"train/step": "fine", "train": "train"}.get(phase, "val")
            is_phase = phase in ("train", "val", "train/step")
            label = f"{run.name}  {name}: {points[-1][1]:.4g}"
            line = Line(number, label, thinned(points), style)
            groups.setdefault(metric if is_phase else name, []).append(line)
    order = sorted(groups, key=lambda name: (_rank(groups[name]), name != "loss", name))
    if not groups:
        return []
    note = "By steps. Solid: validation. Dashed: training, by epoch. Thin: training, by record."
    drawn = "".join(chart(name, groups[name]) for name in order)
    return [f"<div class=charts>{drawn}</div><p class=quiet>{note}</p>"]


def _rank(lines: Sequence[Line]) -> int:
    return 0 if {"val", "train"} <= {line.style for line in lines} else 1


def _hyperparameters(columns: Columns) -> str:
    differing = columns.differing()
    same = [name for name in columns.hyperparameters if name not in differing]
    head = ["", *(run.name for run in columns.runs)]

    def rows(names: Sequence[str]) -> list[list[str]]:
        return [
            [_text(columns.hyperparameters[name])]
            + [_cell(columns.value(run, name)) for run in columns.runs]
            for name in names
        ]

    first = _table(head, rows(differing)) if differing else ""
    if not same:
        return first
    alike = [[*row[:2]] for row in rows(same)]
    title = "The same in all runs" if len(columns.runs) > 1 else "All of them"
    shown = " open" if len(columns.runs) == 1 else ""
    return f"{first}<details{shown}><summary>{title}</summary>{_table(['', ''], alike)}</details>"


def _times(runs: Sequence[RunFiles]) -> list[str]:
    known = [(n, run) for n, run in enumerate(runs) if run.seconds]
    names = list(dict.fromkeys(name for _, run in known for name in run.seconds))
    bars = [_bar(run, names) for _, run in known]
    key = "".join(
        f"<span><i style='--own:{_shade(n, name)}'></i>{_text(name)}</span>"
        for n, name in enumerate(names)
    )
    return [f"<div class=legend>{key}</div>", *bars] if bars else []


def _bar(run: RunFiles, names: Sequence[str]) -> str:
    total = sum(run.seconds.values()) or 1.0
    pieces = "".join(
        f"<b style='width:{100 * run.seconds[name] / total:.2f}%;background:{_shade(n, name)}' "
        f"title='{_text(name)}: {run.seconds[name]:.4g} s'></b>"
        for n, name in enumerate(names)
        if run.seconds.get(name)
    )
    return f"<div class=time><span>{_text(run.name)}, {total:.3g} s</span><div>{pieces}</div></div>"


def _shade(number: int, name: str) -> str:
    return "var(--edge)" if name == "other" else COLOURS[number % len(COLOURS)]


def _pictures(runs: Sequence[RunFiles], logged: Sequence[Logged]) -> list[str]:
    parts: list[str] = []
    for run, own in zip(runs, logged, strict=True):
        if own.pictures:
            shown = "".join(map(_picture, own.pictures[:MOST_PICTURES]))
            more = len(own.pictures) - MOST_PICTURES
            note = f"<p class=quiet>and {more} more</p>" if more > 0 else ""
            parts.append(f"<h3>{_text(run.name)}</h3><div class=pictures>{shown}</div>{note}")
    return parts


def _picture(picture: Picture) -> str:
    caption = _text(picture.key) + ("" if picture.step is None else f", step {picture.step:,}")
    if len(picture.png) > MOST_BYTES:
        return f"<figure><figcaption>{caption}: {len(picture.png):,} bytes</figcaption></figure>"
    data = base64.b64encode(picture.png).decode()
    return (
        f"<figure><img alt='{caption}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _models(runs: Sequence[RunFiles]) -> list[str]:
    texts: dict[str, list[str]] = {}
    for run in runs:
        try:
            text = RunDirectory(run.path).model_txt.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        texts.setdefault(text, []).append(run.name)
    return [
        f"<details><summary>{_text(', '.join(names))}</summary><pre>{_text(text)}</pre></details>"
        for text, names in texts.items()
    ]
