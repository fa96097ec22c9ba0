"""`boltax runs` and `boltax report`: runs beside each other, as text, JSON, or a page."""

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands


def add_runs(commands: "Commands") -> None:
    runs = commands.add_parser(
        "runs",
        help="compare runs in a table",
        description=(
            "Shows the runs below folders: the hyperparameters in which they differ, their best "
            "metrics, steps, state and age. Reads plain files; no model, no code. Columns for "
            "--where and --sort are run, model, state, steps, epochs, age, each metric, and each "
            "hyperparameter."
        ),
    )
    _add_folders(runs)
    runs.add_argument(
        "--metric",
        dest="metrics",
        metavar="NAME",
        action="append",
        default=[],
        help="show this metric, first; may be given several times (default: the monitor's)",
    )
    runs.add_argument("--json", dest="is_json", action="store_true", help="everything, as JSON")
    runs.set_defaults(run=_runs)


def add_report(commands: "Commands") -> None:
    report = commands.add_parser(
        "report",
        help="compare runs on a page of HTML",
        description=(
            "Writes one HTML file with the curves, results, hyperparameters, times, logged "
            "pictures and models of runs. It needs no other file and no network."
        ),
    )
    _add_folders(report)
    report.add_argument(
        "--output", metavar="FILE", default="report.html", help="default: report.html"
    )
    report.add_argument("--title", metavar="TEXT", help="default: the folders")
    report.set_defaults(run=_report)


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folders", metavar="FOLDER", nargs="+", help="folder of a run, or one with runs below it"
    )
    command.add_argument(
        "--where",
        dest="conditions",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only runs for which it holds: state=finished, lr>=0.01, model!=MLP; "
        "may be given several times",
    )
    command.add_argument(
        "--sort", metavar="COLUMN", help="best first (default: the monitor's metric)"
    )
    command.add_argument(
        "--reverse", dest="is_reversed", action="store_true", help="turn the order"
    )


def _chosen(options: argparse.Namespace) -> Any:
    from boltax._runs._found import Columns, find_runs

    columns = Columns.of(find_runs(options.folders))
    for condition in options.conditions:
        columns = columns.where(condition)
    return columns.sorted_by(options.sort, is_reversed=options.is_reversed)


def _runs(options: argparse.Namespace) -> int:
    from boltax._runs._table import plain, table

    columns = _chosen(options)
    if options.is_json:
        print(json.dumps(plain(columns.runs), indent=2))
    else:
        print(table(columns, options.metrics, shutil.get_terminal_size((80, 24)).columns))
    return 0


def _report(options: argparse.Namespace) -> int:
    from boltax._runs._page import page
    from boltax.checkpoint._files import write_text

    columns = _chosen(options)
    title = options.title or ", ".join(str(Path(folder)) for folder in options.folders)
    path = Path(options.output).expanduser().absolute()
    write_text(path, page(columns, title))
    print(f"written to {path}: {len(columns.runs)} runs, {path.stat().st_size / 1e3:,.0f} kB")
    return 0
