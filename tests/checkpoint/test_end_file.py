"""How a run ended."""

import json

import pytest

from boltax.checkpoint._end_file import End, forget_end, read_end, write_end

END = End("stopped", "max_time is used up", 10, 2, {"device": 1.23456})


def test_it_is_read_as_it_was_written_until_the_run_goes_on(tmp_path):
    write_end(tmp_path, END)
    end = read_end(tmp_path)
    assert (end.how, end.reason, end.step, end.epoch) == ("stopped", END.reason, 10, 2)
    assert end.seconds == {"device": 1.235}
    assert end.time > 1.7e9
    forget_end(tmp_path)
    forget_end(tmp_path)
    assert read_end(tmp_path) is None


@pytest.mark.parametrize(
    "change", [{"how": "exploded"}, {"step": "many"}, {"seconds": {"a": "b"}}, {"extra": 1}]
)
def test_a_damaged_one_is_none(tmp_path, change):
    write_end(tmp_path, END)
    path = tmp_path / "end.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert read_end(tmp_path) is None
