"""The table is printed once, at the start."""

from boltax.callbacks import ModelSummary


def test_prints_the_table_at_the_start(view, capsys):
    assert ModelSummary().on_training_start(view()) is None
    assert capsys.readouterr().out == "a table of layers\n"
