"""`boltax fit`, `boltax test`, `boltax predict`: a run from a file, and what came of it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boltax._commands._arguments import check_folder
from boltax.errors import ConfigurationError

if TYPE_CHECKING:
    from boltax._commands._arguments import Commands

_FLAGS = {"--resume", "--traceback", "--help", "-h"}
_FIT = (
    "Trains what a file and options say: boltax fit config.yaml --optimizer_hparams.lr 3e-4. The "
    "whole configuration goes into the run's folder; boltax fit RUN trains that again, boltax fit "
    "RUN --resume goes on with it. With --trainer FILE.py:CLASS --help lists every option. "
    'Needs: pip install "boltax[cli]"'
)


def add_fit(commands: "Commands") -> None:
    for name, text, description, run in (
        ("fit", "train what a file says, or go on with its run", _FIT, _fit),
        ("test", "test the best model of a run", _described("tests the model"), _test),
        ("predict", "write the predictions of a run", _described("writes predictions"), _predict),
    ):
        command = commands.add_parser(name, help=text, description=description, add_help=False)
        command.set_defaults(run=run, is_raw=True)


def _described(what: str) -> str:
    return f"Loads the best model of a run and {what}, with loaders of --data FILE.py:FUNCTION."


def _split(given: list[str]) -> tuple[str | None, set[str], list[str]]:
    """File or folder, flags, and the other options."""
    path = given[0] if given and not given[0].startswith("-") else None
    rest = given[1:] if path is not None else given
    return path, {part for part in rest if part in _FLAGS}, [p for p in rest if p not in _FLAGS]


def _fit(options: argparse.Namespace) -> int:
    from boltax._configure._configuration import Configuration, Named, fit, read_configuration
    from boltax._configure._mapping import changed

    path, flags, rest = _split(options.given)
    mapping, folder = ({}, None) if path is None else read_configuration(path)
    logger_params = mapping.get("logger_params") or {}
    logger_params.pop("log_dir", None) if folder is not None else None
    mapping = changed(mapping, rest)
    _note_file(options, mapping)
    if flags & {"--help", "-h"}:
        print(f"{_FIT}\n\n{Named.of(mapping).options.help}")
        return 0
    if "--resume" in flags and folder is not None:
        mapping["logger_params"] = {**(mapping.get("logger_params") or {}), "log_dir": str(folder)}
    elif "--resume" in flags and not (mapping.get("logger_params") or {}).get("log_dir"):
        raise ConfigurationError(
            "Received --resume without the folder of a run; expected one to go on with. Write "
            "boltax fit RUN --resume, or --logger_params.log_dir RUN."
        )
    where, metrics = fit(Configuration.of(mapping), resume="--resume" in flags)
    print(f"{where}: {_shown(metrics)}")
    return 0


def _test(options: argparse.Namespace) -> int:
    from boltax._configure._stored_run import evaluate_run

    path, _, rest = _run_of(options, "test", "[--data FILE.py:FUNCTION] [--trainer FILE.py:CLASS]")
    if path is None:
        return 0
    print(f"{path}: {_shown(evaluate_run(path, rest))}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from boltax._configure._mapping import changed
    from boltax._configure._stored_run import predict_run, write_predictions

    usage = "[--data FILE.py:FUNCTION] [--output predictions.npz] [--trainer FILE.py:CLASS]"
    path, _, rest = _run_of(options, "predict", usage)
    if path is None:
        return 0
    asked = changed({}, rest)
    output = Path(str(asked.get("output", "predictions.npz"))).expanduser().absolute()
    if output.suffix not in (".npy", ".npz"):
        raise ConfigurationError(
            f"Received --output {output.name}; expected a file of NumPy. Write --output "
            "predictions.npz, or .npy for one array."
        )
    at = [n for n, part in enumerate(rest) if part.partition("=")[0] == "--output"]
    for place in reversed(at):
        del rest[place : place + (1 if "=" in rest[place] else 2)]
    write_predictions(output, predict_run(path, rest))
    print(f"written to {output}")
    return 0


def _run_of(
    options: argparse.Namespace, name: str, usage: str
) -> tuple[str | None, set[str], list[str]]:
    from boltax._configure._mapping import changed

    path, flags, rest = _split(options.given)
    if flags & {"--help", "-h"}:
        print(f"usage: boltax {name} RUN {usage}\n\n{_described('does so')}")
        return None, flags, rest
    if path is None:
        raise ConfigurationError(
            f"Received boltax {name} without a run; expected its folder. Write boltax {name} RUN "
            f"{usage}."
        )
    check_folder(path)
    _note_file(options, changed({}, rest))
    return path, flags, rest


def _note_file(options: argparse.Namespace, mapping: dict[str, Any]) -> None:
    """So that an error in the user's file is told with its line."""
    for key in ("trainer", "data"):
        if isinstance(mapping.get(key), str) and ".py:" in mapping[key]:
            options.file = mapping[key]
            return


def _shown(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{n} {v:.4g}" for n, v in metrics.items() if isinstance(v, int | float))
