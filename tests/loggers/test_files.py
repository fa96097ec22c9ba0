import pytest

from boltax.loggers._files import file_name, histogram_text, recall, remember, step_of_file
from boltax.loggers._values import histogram


@pytest.mark.parametrize(
    "key, step, expected",
    [
        ("loss", 3, "loss_000003.png"),
        ("val/best mistakes", 1234567, "val/best mistakes_1234567.png"),
        ("a:b*c?", None, "a_b_c_.png"),
        ("/etc/../x", None, "etc/x.png"),
        ("..", None, "unnamed.png"),
        ("", 1, "unnamed_000001.png"),
        ("ä/ö", None, "ä/ö.png"),
    ],
)
def test_a_file_name_stays_inside_its_folder(key, step, expected):
    assert file_name(key, step, ".png") == expected


def test_a_histogram_as_text():
    text = histogram_text(histogram([0.0, 1.0, 1.0], bins=2))
    assert text == "left,right,count\n0.0,0.5,1\n0.5,1.0,2\n"


@pytest.mark.parametrize(
    "name, step",
    [("a_000120.png", 120), ("a_1000000.csv", 1_000_000), ("a.txt", None), ("a_12.txt", None)],
)
def test_the_step_in_a_name(name, step):
    assert step_of_file(name) == step


def test_what_is_remembered_is_one_word(tmp_path):
    remember(str(tmp_path / "run"), "id.txt", "a-B_3")
    assert recall(str(tmp_path / "run"), "id.txt") == "a-B_3"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["id.txt"]
    assert recall(str(tmp_path), "id.txt") is None
    for other in ("", "two words", "../../a", "ä"):
        remember(str(tmp_path), "id.txt", other)
        assert recall(str(tmp_path), "id.txt") is None
