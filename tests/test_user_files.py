import pytest

from boltax._user_files import find_in_file
from boltax.errors import ConfigurationError, UnknownNameError


@pytest.fixture
def script(tmp_path):
    (tmp_path / "helper_of_script.py").write_text("VALUE = 3\n")
    path = tmp_path / "my_script.py"
    path.write_text("from helper_of_script import VALUE\nclass Mine:\n    value = VALUE\n")
    return path


def test_a_class_is_found_beside_what_it_imports(script):
    assert find_in_file(f"{script}:Mine").value == 3


def test_a_misspelt_name_is_suggested(script):
    with pytest.raises(UnknownNameError, match="Did you mean 'Mine'"):
        find_in_file(f"{script}:mine")


@pytest.mark.parametrize("text", ["nowhere.py:Mine", "my_script.py", ":Mine"])
def test_what_names_no_file_is_an_error(text):
    with pytest.raises(ConfigurationError, match=r"Write train\.py:MyTrainer"):
        find_in_file(text)
