"""Folders of runs that somebody made to do harm: a table of builders, each changes a good run.

`HOSTILE` maps a name to the builder and to what loading has to answer; an empty answer means that
the harmful part is never looked at. Builders get the run and a folder outside it, which holds files
with `SECRET` in them that nobody may open. `seal` gives a changed checkpoint a manifest that fits,
as an attacker would, so that it is not the checksums that refuse it.

Run as a program, it loads the runs that it is given and prints what happened as JSON.
"""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import checkpoint_project as project
from boltax.checkpoint import _manifest
from boltax.checkpoint._best import BestCheckpoints
from boltax.checkpoint._constructor_call import ConstructorCall, read_call
from boltax.checkpoint._files import MAX_JSON_BYTES, write_json
from boltax.checkpoint._manifest import write_manifest
from boltax.checkpoint._partial import load_variables
from boltax.checkpoint._report import compare_checkpoints, describe_checkpoint, list_checkpoints
from boltax.checkpoint._resume_checkpoints import ResumeCheckpoints, locate_resume
from boltax.checkpoint._rundir import RunDirectory
from boltax.errors import BoltaxError

SECRET = "the-content-of-a-file-outside"
CANARY = "code-ran"

Builder = Callable[[RunDirectory, Path], None]
HOSTILE: dict[str, tuple[Builder, str]] = {}


def variables() -> dict[str, Any]:
    return {"params": {"w": jnp.arange(300.0)}}


def good_run(path: Path) -> RunDirectory:
    """A run with its arguments, a best model and a resume checkpoint."""
    run = RunDirectory(path)
    call = ConstructorCall.of(project.Trainer, (project.Mlp,), {"seed": 3})
    write_json(run.hparams, call.to_json(np.ones((2, 3), np.float32)))
    BestCheckpoints(run.best).save(300, variables(), {"val/loss": 0.5})
    arrays = {"state": variables() | {"batch_stats": None}, "interval": None, "epoch": None}
    ResumeCheckpoints(run.resume).save(400, arrays, {"epoch": 4, "best_steps": [300]})
    return run


class Evil:
    """Its pickle leaves a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (CANARY,)


def best(run: RunDirectory) -> Path:
    return run.best / "300"


def resume(run: RunDirectory) -> Path:
    return run.resume / "400"


def seal(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    write_manifest(folder)


def hostile(name: str, answer: str = "") -> Callable[[Builder], Builder]:
    def add(build: Builder) -> Builder:
        HOSTILE[name] = (build, answer)
        return build

    return add


@hostile("pickles that nobody asked for")
def _(run: RunDirectory, outside: Path) -> None:
    for folder in (run.path, best(run), resume(run)):
        for name in ("exmp_input.pkl", "hparams.pkl", "params.npy", "checkpoint"):
            (folder / name).write_bytes(pickle.dumps(Evil()))
    seal(best(run))
    seal(resume(run))


@hostile("pickles in place of files", "cannot be read")
def _(run: RunDirectory, outside: Path) -> None:
    for path in (run.hparams, best(run) / "structure.json", resume(run) / "progress.json"):
        path.write_bytes(pickle.dumps(Evil()))
    seal(best(run))
    seal(resume(run))


@hostile("a pickle in place of arrays", "cannot be read")
def _(run: RunDirectory, outside: Path) -> None:
    for path in (best(run) / "variables").rglob("*"):
        if path.is_file():
            path.write_bytes(pickle.dumps(Evil()))
    seal(best(run))


def _argument(value: Any) -> Builder:
    def build(run: RunDirectory, outside: Path) -> None:
        hparams = json.loads(run.hparams.read_text())
        hparams["constructor"]["named"]["seed"] = value
        run.hparams.write_text(json.dumps(hparams))

    return build


for _text in ("os:system", "trainer:system", "jax.numpy:load", "subprocess:Popen", "../x:y"):
    HOSTILE[f"the name {_text} as an argument"] = (
        _argument({"__name__": _text}),
        "Received the na",
    )
    _partial = {"__partial__": {"name": _text, "args": [f"mkdir {CANARY}"], "kwargs": {}}}
    HOSTILE[f"a partial of {_text} as an argument"] = (_argument(_partial), "Received")


@hostile("an example batch of many terabytes", "example batch of")
def _(run: RunDirectory, outside: Path) -> None:
    hparams = json.loads(run.hparams.read_text())
    hparams["exmp_input"] = {"array": [10**6, 10**7], "dtype": "float32"}
    run.hparams.write_text(json.dumps(hparams))


@hostile("names that lead out of the manifest", "is missing")
def _(run: RunDirectory, outside: Path) -> None:
    manifest = best(run) / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    for name in ("../../../../outside/secret.json", str(outside / "secret.json")):
        files[name] = files["structure.json"]
    manifest.write_text(_manifest._text(files))


def _file(find: Callable[[RunDirectory], Path], name: str, text: str | bytes) -> Builder:
    def build(run: RunDirectory, outside: Path) -> None:
        (find(run) / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        if find is not _folder:
            seal(find(run))

    return build


def _folder(run: RunDirectory) -> Path:
    return run.path


_DEEP = '{"a":' * 200_000
_STRUCTURES = {
    "giant": ('{"params": {"w": "float32[999999, 999999, 999]"}}', "declares|does not fit"),
    "many axes": ('{"params": {"w": "float32[' + "1, " * 40 + '1]"}}', "Received"),
    "paths": ('{"..": {"..": {"/etc/passwd": "float32[300]"}}}', "Received"),
    "a class": ('{"__node__": {"type": "os.system", "children": {}}}', r"in structure\.json"),
    "another type": ('["float32[300]"]', "Received"),
    "a random generator": ('{"params": {"w": "key<os>[300]"}}', "Received"),
    "deep": (_DEEP, "nested more than"),
    "a key twice": ('{"params": {}, "params": {}}', "a key occurs twice"),
}
for _name, (_text, _answer) in _STRUCTURES.items():
    HOSTILE[f"structure.json: {_name}"] = (_file(best, "structure.json", _text), _answer)

_RECORD = '{"step": 400, "saved": 1, "time": "", "progress": %s}'
_PROGRESSES = {
    "a list": ("[]", "damaged"),
    "a number": ("3", "damaged"),
    "another type of progress": (_RECORD % "[1, 2]", "damaged"),
    "a huge number": (_RECORD % ('{"epoch": %s}' % ("9" * 5000)), "damaged"),
    "NaN": (_RECORD % '{"epoch": NaN}', "damaged"),
    "a tag of its own": (_RECORD % '{"epoch": {"__float__": "1e5"}}', "one of the words"),
    "another step": (_RECORD.replace("400", "7") % "{}", "damaged"),
    "a negative step": (_RECORD.replace("400", "-1") % "{}", "damaged"),
    "a huge step": (_RECORD.replace("400", "9" * 30) % "{}", "damaged"),
    "a negative number of the save": (_RECORD.replace("1,", "-1,") % "{}", "damaged"),
    "a huge number of the save": (_RECORD.replace("1,", "9" * 30 + ",") % "{}", "damaged"),
    "a key twice": (_RECORD % '{"a": 1, "a": 2}', "damaged"),
    "deep": (_RECORD % ("[" * 90_000 + "]" * 90_000), "damaged"),
}
for _name, (_text, _answer) in _PROGRESSES.items():
    HOSTILE[f"progress.json: {_name}"] = (_file(resume, "progress.json", _text), _answer)

_HPARAMS = {
    "deep": (_DEEP, "nested more than"),
    "a key twice": ('{"constructor": {}, "constructor": {}}', "a key occurs twice"),
    "no object": ("[]", "lacks the constructor's arguments"),
    "no arguments": ('{"constructor": {"positional": {}, "named": []}}', "lacks the constructor"),
    "no text": (b"\xff\xfe{}", "cannot be read"),
}
for _name, (_text, _answer) in _HPARAMS.items():
    HOSTILE[f"hparams.json: {_name}"] = (_file(_folder, "hparams.json", _text), _answer)


@hostile("huge JSON", r"more than 67,108,864")
def _(run: RunDirectory, outside: Path) -> None:
    os.truncate(run.hparams, MAX_JSON_BYTES + 1)


@hostile("folders that are named like no step")
def _(run: RunDirectory, outside: Path) -> None:
    for name in ("-1", "0400", "9" * 200, "²", "4e2", "..."):
        if name == "9" * 200:
            (run.resume / name).mkdir()
        else:
            shutil.copytree(resume(run), run.resume / name)


def _link(find: Callable[[RunDirectory], Path]) -> Builder:
    """Puts a part of the run outside, as it was, and a link to it in its place."""

    def build(run: RunDirectory, outside: Path) -> None:
        path = find(run)
        path.rename(outside / "moved")
        path.symlink_to(outside / "moved")

    return build


_LINKS: dict[str, Callable[[RunDirectory], Path]] = {
    "hparams.json": lambda run: run.hparams,
    "checkpoints": lambda run: run.path / "checkpoints",
    "checkpoints/best": lambda run: run.best,
    "checkpoints/resume/400": resume,
    "structure.json": lambda run: best(run) / "structure.json",
    "metrics.json": lambda run: best(run) / "metrics.json",
    "manifest.json": lambda run: best(run) / "manifest.json",
    "progress.json": lambda run: resume(run) / "progress.json",
    "the arrays": lambda run: resume(run) / "arrays",
    "a file of arrays": lambda run: next(p for p in best(run).rglob("d/*") if p.is_file()),
}
for _name, _find in _LINKS.items():
    HOSTILE[f"a link: {_name}"] = (_link(_find), "symbolic link|is damaged")


@hostile("a link to a secret in place of a file", "symbolic link|damaged")
def _(run: RunDirectory, outside: Path) -> None:
    for path in (run.hparams, best(run) / "structure.json", resume(run) / "progress.json"):
        path.unlink()
        path.symlink_to(outside / "secret.json")


@hostile("pipes", "it is not a file")
def _(run: RunDirectory, outside: Path) -> None:
    for path in (run.hparams, best(run) / "structure.json", resume(run) / "progress.json"):
        path.unlink()
        os.mkfifo(path)


def load(run: RunDirectory) -> None:
    """Everything that loads from a run's folder, each on its own; raises what they raised."""
    like, resume_like = variables(), {"state": ..., "interval": ..., "epoch": ...}
    calls: list[Callable[[], object]] = [
        lambda: read_call(run.path, project.Trainer).arguments(exmp_input=None, given={}),
        lambda: BestCheckpoints(run.best).restore(like),
        lambda: BestCheckpoints(run.best).restore(),
        lambda: ResumeCheckpoints(run.resume).restore(resume_like),
        lambda: ResumeCheckpoints(run.resume).best_steps(),
        lambda: locate_resume(run.path),
        lambda: load_variables(run.path, like),
        lambda: load_variables(resume(run), like, partial=True),
        lambda: list_checkpoints(run.path),
        lambda: describe_checkpoint(best(run)),
        lambda: describe_checkpoint(resume(run), verify=False),
        lambda: compare_checkpoints(run.path, resume(run)),
    ]
    errors: list[Exception] = []
    for call in calls:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - each is looked at
            errors.append(error)
    if errors:
        raise ExceptionGroup("loading", errors)


FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork")


def _is_below(path: object, folder: str) -> bool:
    return isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(folder)


def main(folders: list[str]) -> None:
    outside = os.path.realpath(folders[0])
    seen: list[str] = []

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith("pickle.") or event in FORBIDDEN:
            seen.append(f"{event} {args!r}"[:300])
        elif event in ("open", "os.listdir", "os.scandir") and _is_below(args[0], outside):
            seen.append(f"{event} {args[0]!r}")

    load(RunDirectory(folders[1]))  # imports and compiles all that is needed
    sys.addaudithook(watch)
    results: dict[str, Any] = {}
    for folder in folders[1:]:
        seen.clear()
        errors: list[Exception] = []
        try:
            load(RunDirectory(folder))
        except ExceptionGroup as group:
            errors = list(group.exceptions)
        results[folder] = {
            "errors": [str(error) for error in errors],
            "foreign": [
                repr(error)[:500] for error in errors if not isinstance(error, BoltaxError)
            ],
            "seen": list(seen),
            "called": list(project.CALLS),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
