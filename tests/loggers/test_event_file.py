import gc
import subprocess
import sys
import threading

import pytest
from tensorboardX import SummaryWriter

from boltax.loggers._event_file import EventWriter


def scalars(events):
    return [
        (value.tag, event.step, value.simple_value)
        for event in events
        for value in event.summary.value
    ]


def test_it_is_a_summary_writer_without_a_thread(tmp_path, events):
    threads = threading.active_count()
    writer = EventWriter(str(tmp_path))
    assert isinstance(writer, SummaryWriter)
    writer.add_scalar("a", 0.5, 3)
    writer.add_values([{"tag": "b c", "simple_value": 1.0}, {"tag": "d", "simple_value": 2.0}], 4)
    assert threading.active_count() == threads
    writer.flush()
    assert scalars(events(tmp_path)) == [("a", 3, 0.5), ("b c", 4, 1.0), ("d", 4, 2.0)]
    writer.close()


def test_writing_after_close_opens_another_file(tmp_path, events):
    writer = EventWriter(str(tmp_path))
    for step in range(3):
        writer.add_scalar("a", step, step)
        writer.close()
        writer.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(scalars(events(tmp_path))) == [("a", 0, 0.0), ("a", 1, 1.0), ("a", 2, 2.0)]


def test_two_writers_of_one_folder_have_files_of_their_own(tmp_path, events):
    writers = [EventWriter(str(tmp_path)) for _ in range(2)]
    for writer in writers:
        writer.add_scalar("a", 1.0, 1)
        writer.close()
    assert len(scalars(events(tmp_path))) == 2


def test_a_write_that_fails_raises_and_does_not_hang(tmp_path, events, monkeypatch):
    writer = EventWriter(str(tmp_path))
    writer.add_scalar("a", 1.0, 1)

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("tensorboardX.record_writer.RecordWriter.write", fail)
        for _ in range(100):
            with pytest.raises(OSError, match="no space left"):
                writer.add_scalar("a", 2.0, 2)
    writer.add_scalar("a", 3.0, 3)
    writer.close()
    assert scalars(events(tmp_path)) == [("a", 1, 1.0), ("a", 3, 3.0)]


def test_metadata_for_a_block(tmp_path, events):
    writer = EventWriter(str(tmp_path))
    with writer.use_metadata(global_step=7, walltime=12.0):
        writer.add_scalar("a", 1.0)
        writer.add_scalar("b", 1.0, 8)
    writer.add_scalar("c", 1.0)
    writer.close()
    found = [event for event in events(tmp_path) if event.summary.value]
    assert [event.step for event in found] == [7, 8, 0]
    assert [event.wall_time == 12.0 for event in found] == [True, True, False]


def test_a_writer_that_is_dropped_keeps_its_events(tmp_path, events):
    writer = EventWriter(str(tmp_path))
    writer.add_scalar("a", 1.0, 1)
    writer.add_scalar("a", 2.0, 2)
    del writer
    gc.collect()
    assert len(scalars(events(tmp_path))) == 2


def test_events_are_on_disk_when_a_script_ends_without_closing(tmp_path, events):
    code = f"""
from boltax.loggers import TensorBoardLogger
logger = TensorBoardLogger({str(tmp_path)!r})
for step in range(5):
    logger.log_metrics({{"a": step}}, step)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert len(scalars(events(tmp_path))) == 5


def test_a_further_file_is_read_last_although_a_clock_was_ahead(tmp_path, events):
    ahead = tmp_path / "events.out.tfevents.9000000000.other.host.1.0"
    writer = EventWriter(str(tmp_path))
    writer.add_scalar("a", 1.0, 1)
    writer.close()
    next(tmp_path.iterdir()).rename(ahead)
    writer.restart(1)
    writer.add_scalar("a", 1.0, 1)  # the other file has it
    writer.add_scalar("a", 2.0, 1)  # another value
    writer.add_scalar("a", 3.0, 2)
    writer.close()
    assert max(path.name for path in tmp_path.iterdir()) > ahead.name
    found = events(tmp_path)
    assert [event.step for event in found if event.session_log.status == 1] == [2]
    assert scalars(found) == [("a", 1, 1.0), ("a", 1, 2.0), ("a", 2, 3.0)]
