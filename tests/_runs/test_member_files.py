"""Members of a population among the runs."""

import numpy as np
import pytest

from boltax._runs._found import Columns, find_runs
from boltax._runs._logged import of_history
from boltax.checkpoint import BestCheckpoints, RunDirectory
from run_folders import make_run


@pytest.fixture
def population(tmp_path):
    folder = tmp_path / "version_0"
    for number, (lr, acc) in enumerate([(0.1, 0.75), (0.2, 0.5)]):
        member = make_run(folder / f"members/{number:03d}", lr=lr, how=None)
        for name in ("history.csv", "metrics/best_eval.json", "metrics/test.json"):
            (member / name).unlink()
        best = BestCheckpoints(RunDirectory(member).best)
        best.save(8, {"params": {"w": np.ones(1)}}, {"val/acc": acc})
    (folder / "epochs.csv").write_text(
        "member,epoch,step,train/loss,val/acc\n0,1,4,2.0,0.25\n1,1,4,3.0,0.5\n0,2,8,1.0,0.75\n"
    )
    (folder / "members.csv").write_text(
        "member,lr,status,reason,epoch,step\n0,0.1,finished,trained for 2 epochs,2,8\n"
        "1,0.2,stopped,lost,1,4\n"
    )
    return folder


def test_a_member_has_its_rows_its_best_and_its_status(population):
    first, second = find_runs([population])
    assert (first.state, first.step, first.epoch) == ("finished", 8, 2)
    assert (second.state, second.reason, second.step) == ("stopped", "lost", 4)
    assert of_history(first.history)["val/acc"] == [(4.0, 0.25), (8.0, 0.75)]
    assert of_history(second.history)["train/loss"] == [(4.0, 3.0)]
    columns = Columns.of((second, first)).sorted_by("val/acc")
    assert [run.metrics["val/acc"] for run in columns.runs] == [0.75, 0.5]


def test_a_population_that_was_killed_early(population):
    (population / "members.csv").unlink()
    (population / "epochs.csv").write_bytes(b"member,epoch\n\xff")
    first, _ = find_runs([population])
    assert (first.state, first.step, first.history) == ("interrupted", 0, ())
