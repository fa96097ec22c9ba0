import sys

import pytest

from boltax._process._user_files import find_in_file, refuse_training
from boltax.errors import ConfigurationError, TrainingError, UnknownNameError


@pytest.fixture(autouse=True)
def imports(monkeypatch):
    """What is imported, and where from, is as before when a test ends."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def script(tmp_path):
    (tmp_path / "helper_of_script.py").write_text("VALUE = 3\n")
    path = tmp_path / "my_script.py"
    path.write_text("from helper_of_script import VALUE\nclass Mine:\n    value = VALUE\n")
    return path


def test_a_class_is_found_beside_what_it_imports(script):
    assert find_in_file(f"{script}:Mine").value == 3


def test_a_file_named_like_a_module_does_not_take_its_place(tmp_path):
    import json

    path = tmp_path / "json.py"
    path.write_text("class Mine:\n    value = 3\n")
    assert find_in_file(f"{path}:Mine").value == 3
    assert json.loads("3") == 3
    assert sys.modules["json"] is json


def test_a_misspelt_name_is_suggested(script):
    with pytest.raises(UnknownNameError, match="Did you mean 'Mine'"):
        find_in_file(f"{script}:mine")


@pytest.mark.parametrize("text", ["nowhere.py:Mine", "my_script.py", ":Mine"])
def test_what_names_no_file_is_an_error(text):
    with pytest.raises(ConfigurationError, match=r"Write train\.py:MyTrainer"):
        find_in_file(text)


def test_a_file_is_run_once(tmp_path):
    for name in ("once_only.py", "json.py"):  # the second stands for a module that is there
        path = tmp_path / name
        path.write_text("class Mine:\n    pass\n")
        assert find_in_file(f"{path}:Mine") is find_in_file(f"{path}:Mine")


def test_a_file_that_fails_leaves_no_half_of_a_module(tmp_path):
    path = tmp_path / "half_a_module.py"
    path.write_text("class Mine:\n    pass\n1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            find_in_file(f"{path}:Mine")
    assert "half_a_module" not in sys.modules


def test_training_is_refused_only_while_a_file_is_loaded(tmp_path):
    path = tmp_path / "asks_to_train.py"
    refuse = "from boltax._process._user_files import refuse_training\n"
    path.write_text(f"{refuse}refuse_training()\n")
    with pytest.raises(TrainingError, match=r"begins as asks_to_train\.py is loaded"):
        find_in_file(f"{path}:Mine")
    assert refuse_training() is None
