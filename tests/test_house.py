"""The numbers of `scripts/house.py`, on a package small enough to count by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "scripts" / "house.py"
FILES = {
    "__init__.py": "from boltax.trainer import TrainerModule\n",
    "trainer.py": '''"""The class."""
from boltax._loop import _fit

class TrainerModule:
    def train_model(self, data):
        """Trains."""
        return _fit.fit(self, data)
    def train_epoch(self, data):
        from boltax._loop._epoch import run_epoch
        return run_epoch(self, data)
    def on_step_end(self): ...
''',
    "_loop/__init__.py": "",
    "_loop/_fit.py": '''"""The loop; nnx and jax.devices are words here."""
from typing import TYPE_CHECKING, Any
if TYPE_CHECKING:
    from boltax.trainer import TrainerModule

def fit(trainer: "TrainerModule", data: Any):
    # each epoch
    return _epochs(trainer, data)

def _epochs(trainer, data):
    return trainer.train_epoch(data)  # of the user, perhaps
''',
    "_loop/_epoch.py": '''"""An epoch."""

class Run: ...

def run_epoch(parts: "boltax.trainer.TrainerModule", run: Run, hooks: "Hooks | None" = None):
    import jax
    jax.device_put(1)  # noqa: B018
    return parts.steps.train(run)
''',
    "tune/__init__.py": "",
    "tune/_loop.py": "def one(): ...\ndef other(): ...\n",
}


@pytest.fixture(scope="module")
def house():
    spec = importlib.util.spec_from_file_location("house", FILE)
    sys.modules["house"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["house"]


@pytest.fixture
def checkout(tmp_path):
    for name, text in FILES.items():
        (path := tmp_path / "boltax" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def numbers(table):
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {name.strip(): values for name, *values in rows[1:]}


def test_each_number_is_the_one_counted_by_hand(house, checkout):
    found = numbers(house.table([house.Package.read(checkout)]))
    assert {name: value for name, (value,) in found.items()} == {
        "files at the package's root": "2",
        "functions that take the trainer": "3",
        "... and the run as well": "1",
        "functions that take `Hooks`": "1",
        "modules in the largest circle of imports": "none",
        "... imports inside functions counted too": "none",
        "... types counted too": "3",
        "`Any` in 1,000 lines": f"{1000 / lines():.1f}",
        "... of the loop": f"{1000 / lines('_loop'):.1f}",
        "... of the steps": "-",
        # `_fit` has two comments beside 7 lines of code, `_epoch` 5 lines and a word to a tool
        "lines with a comment in 1,000 lines of the loop's code": f"{2000 / 12:.1f}",
        "lines of the population's own loop": "2",
        "calls from `train_model` to the compiled step": "6",
        "files that name a kind of model": "0",
        "files that ask about devices": "1",
        "files that name a hook": "1",
    }


def lines(folder=""):
    return sum(len(text.splitlines()) for name, text in FILES.items() if name.startswith(folder))


def test_the_calls_are_named_from_the_user_to_the_step(house, checkout):
    assert house.calls(house.Package.read(checkout)) == [
        *("TrainerModule.train_model", "fit", "_epochs", "TrainerModule.train_epoch"),
        *("run_epoch", "parts.steps.train"),
    ]


def test_circles_are_the_sets_that_reach_each_other(house):
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert house.circles(graph) == [{"a", "b", "c"}, {"d", "e"}]


def test_two_checkouts_stand_beside_each_other(house, checkout, capsys):
    house.main(["--repo", str(checkout), "--repo", str(FILE.parents[1])])
    printed = capsys.readouterr().out
    assert printed.startswith("| | before | after |\n|---|---:|---:|\n")
    before, after = numbers(printed)["files at the package's root"]
    assert before == "2"
    assert after.isdecimal()


def test_a_folder_that_is_no_checkout_is_refused(house, tmp_path):
    with pytest.raises(SystemExit, match=r"holds no boltax/\*\.py; expected a checkout"):
        house.main(["--repo", str(tmp_path)])
