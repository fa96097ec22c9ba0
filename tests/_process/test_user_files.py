import sys

import pytest

from boltax._process._user_files import find_in_file
from boltax.errors import ConfigurationError, UnknownNameError


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
