"""Processes that would not train the same are told in what they differ."""

from boltax._build._alike import check_alike
from boltax.parallel._group import ALONE
from dummies import Classifier
from group_dummies import Store, in_each


def test_other_settings_are_named():
    def check(group):
        lr = 0.1 * (1 + group.index)
        check_alike(group, Classifier, {"seed": 1, "optimizer_hparams": {"lr": lr}})

    for error in in_each(Store(), check, count=2):
        assert "different setting optimizer_hparams (the construction of Classifier)" in str(error)
        assert "process 0 has {'lr': 0.1}, process 1 {'lr': 0.2}" in str(error)


def test_where_files_go_and_what_is_shown_may_differ():
    def check(group):
        one = {"logger_params": {"log_dir": f"run{group.index}"}}
        check_alike(group, Classifier, {**one, "enable_progress_bar": group.is_first})

    assert in_each(Store(), check, count=2) == [None, None]
    check_alike(ALONE, Classifier, {})
