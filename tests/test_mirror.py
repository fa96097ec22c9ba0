"""`tests/` mirrors `boltax/`: each source file has a test file of its name, or one named here.

`boltax/_step/_loss.py` has `tests/_step/test_loss.py`. What several files do together, a run or a
population, is tested as one; the list says where.
"""

import pytest

from source_tree import PACKAGE, ROOT, modules

TESTED_IN = {
    "__main__": "test_cli",
    "_base/_evaluation": "_loop/test_validations",
    "_base/_on_demand": "test_import_cost",
    "_base/_types": "test_surface",
    "_build/_constructed": "test_trainer",
    "_build/_copies": "test_trainer",
    "_build/_hooks": "test_overrides",
    "models/_remat_arrays": "models/test_remat",
    "models/_remat_nnx": "models/test_remat",
    "models/_wrapped": "models/test_precision",
    "parallel/_coordination": "parallel/test_group",
    "_build/_optional_hooks": "_step/test_on_gradients",
    "_build/_parts": "test_trainer",
    "_commands/_arguments": "test_cli",
    "_commands/_checkpoints": "test_cli",
    "_commands/_demo": "test_cli",
    "_commands/_fit": "_configure/test_configuration",
    "_commands/_preflight": "test_cli",
    "_commands/_replay": "test_cli",
    "_commands/_runs": "_runs/test_table",
    "_commands/_tune": "tune/test_command",
    "_commands/_export": "_export/test_export",
    "_configure/_named": "_configure/test_configuration",
    "_configure/_parser": "_configure/test_configuration",
    "_configure/_stored_run": "_configure/test_configuration",
    "_configure/_study": "_configure/test_configuration",
    "_export/_program": "_export/test_export",
    "_export/_standalone": "_export/test_export",
    "_inspect/_batch_size": "_inspect/test_preflight",
    "_inspect/_found": "_inspect/test_preflight",
    "_inspect/_preflight_file": "test_cli",
    "_inspect/_course": "_inspect/test_gradients",
    "_build/_no_files": "_inspect/test_fast_dev_run",
    "_inspect/_shown": "_inspect/test_fast_dev_run",
    "_inspect/_questions": "test_trainer",
    "_inspect/_replay": "_loop/test_nonfinite",
    "_process/_moments": "_process/test_allocator",
    "_loop/_accumulators": "_step/test_fused",
    "_loop/_advice": "test_bad_input",
    "_loop/_asked": "_loop/test_midway",
    "_loop/_begin": "test_bad_input",
    "_loop/_best_files": "_loop/test_resume",
    "_loop/_compile_ahead": "_step/test_programs",
    "_loop/_layers": "_step/test_layers",
    "_loop/_spikes": "optim/test_spikes",
    "_loop/_data_module": "data/test_module",
    "_loop/_notify": "_loop/test_fit",
    "_loop/_one": "_loop/test_fit",
    "_loop/_predict": "test_trainer",
    "_loop/_single": "_loop/test_fit",
    "_loop/_start": "_loop/test_fit",
    "_loop/_trainees": "_loop/test_fit",
    "_loop/_validate": "test_trainer",
    "_runs/_chart": "_runs/test_page",
    "_runs/_style": "_runs/test_page",
    "_step/_metric_names": "_step/test_loss",
    "metrics/_occurrences": "optim/test_spikes",
    "data/_split": "data/test_module",
    "tune/_ensemble": "tune/test_cross_validate",
    "tune/_folds": "tune/test_cross_validate",
    "checkpoint/_constructor_call": "checkpoint/test_spec",
    "checkpoint/_rules": "checkpoint/test_foreign",
    "checkpoint/_sources": "checkpoint/test_foreign",
    "data/_first_batches": "_inspect/test_gradients",
    "data/_order": "data/test_array_loader",
    "loggers/_csv": "loggers/test_logger_contract",
    "metrics/_means": "metrics/test_accumulate",
    "metrics/_places": "metrics/test_totals",
    "models/_equinox_summary": "models/test_equinox",
    "models/_equinox_template": "models/test_equinox",
    "models/_functional_adapter": "models/test_functional",
    "models/_mapped": "models/test_vmap",
    "models/_summary_table": "models/test_summary",
    "parallel/_jitted": "parallel/test_placement",
    "parallel/_mesh": "parallel/test_parallel",
    "parallel/_table": "parallel/test_placement",
    "models/_variables_table": "models/test_summary",
    "optim/_celo": "optim/test_learned_parity",
    "optim/_learned_features": "optim/test_learned_parity",
    "optim/_learned_network": "optim/test_learned_parity",
    "optim/_learned_scheduler": "optim/test_learned_parity",
    "optim/_velo": "optim/test_learned_parity",
    "tune/_configuration": "tune/test_study",
    "tune/_content": "tune/test_resumed_population",
    "tune/_layout": "tune/test_population",
    "tune/_layouts": "tune/test_population",
    "tune/_member_folders": "tune/test_population",
    "tune/_member_records": "tune/test_population",
    "tune/_members": "tune/test_population",
    "tune/_memory": "tune/test_measure",
    "tune/_requests": "tune/test_population",
    "tune/_member_rows": "tune/test_spread_population",
    "tune/_search": "tune/test_study",
    "tune/_states": "tune/test_population",
    "tune/_on_test_set": "tune/test_trainees",
    "tune/_used": "tune/test_population_errors",
    "tune/_validate": "tune/test_trainees",
    "tune/_values": "tune/test_population_errors",
}


def own(source: str) -> str:
    """The name of the test file that a source file has for itself."""
    folder, _, name = source.rpartition("/")
    return f"{folder}/test_{name.lstrip('_')}".lstrip("/")


def sources() -> set[str]:
    """Every source file by its path in the package, without its ending."""
    files = (m.path for m in modules().values() if not m.is_package)
    return {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in files}


def exists(test: str) -> bool:
    return (ROOT / "tests" / f"{test}.py").is_file()


def test_each_source_file_has_a_test_file() -> None:
    lacking = {name for name in sources() if not exists(own(name))} - TESTED_IN.keys()
    assert not lacking, f"write {sorted(map(own, lacking))}, or say in TESTED_IN who tests them"


def test_the_list_names_only_what_is_there_and_has_no_file_of_its_own() -> None:
    assert not TESTED_IN.keys() - sources(), "these source files are gone"
    assert not {test for test in TESTED_IN.values() if not exists(test)}, "these tests are gone"
    assert not {n for n in TESTED_IN if exists(own(n))}, "these have a file of their own by now"


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ("cli", "test_cli"),
        ("_step/_loss", "_step/test_loss"),
        ("data/augment", "data/test_augment"),
    ],
)
def test_names_follow_from_each_other(source, test) -> None:
    assert own(source) == test
    assert exists(test)
