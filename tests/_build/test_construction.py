"""In each way of construction a trainer makes what the table says, and its constructor ends."""

from pathlib import Path

import jax
import pytest

import boltax as bx
from boltax._build._construction import NEW, current, described_by, previewing
from boltax._build._remade import describe_trainer, rebuild, variant, write_variant
from boltax.checkpoint._files import read_json
from boltax.errors import TrainingError
from dummies import Classifier, Mlp, classes, classifier, loader


class Counted(Classifier):
    """A subclass with code behind the constructor, and a hyperparameter of its own."""

    def __init__(self, *args, width=8, **kwargs):
        super().__init__(*args, **kwargs)
        self.width = width


class WithTeacher(Classifier):
    """Makes another trainer in its constructor, and counts that one's parameters."""

    def __init__(self, *args, teacher_folder, **kwargs):
        self.teacher = classifier(teacher_folder)
        self.parameters = sum(x.size for x in jax.tree.leaves(self.teacher.state.params))
        self.total = sum(float(abs(x).sum()) for x in jax.tree.leaves(self.teacher.state.params))
        super().__init__(*args, **kwargs)


def is_of_shapes(trainer):
    return all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(trainer.state.params))


def entries(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def test_a_new_trainer_has_a_folder_its_arguments_values_and_a_summary(tmp_path):
    trainer = classifier(tmp_path, Counted)
    folder = Path(trainer.log_dir)
    assert not is_of_shapes(trainer)
    assert {"hparams.json", "model.txt"} <= {p.name for p in folder.iterdir()}
    assert trainer._made.construction is NEW


def test_a_loaded_trainer_leaves_the_folder_as_it_is(tmp_path):
    folder = Path(classifier(tmp_path, Counted, width=3).log_dir)
    before = {p: (folder / p).stat().st_mtime_ns for p in entries(folder)}
    loaded = rebuild(Counted, folder, None, {})
    assert is_of_shapes(loaded)
    assert (loaded.width, loaded.log_dir) == (3, str(folder))
    assert {p: (folder / p).stat().st_mtime_ns for p in entries(folder)} == before


def test_a_trainer_that_is_described_runs_its_constructor_to_the_end_and_makes_nothing(tmp_path):
    described = describe_trainer(lambda: classifier(tmp_path / "runs", Counted, width=5))
    assert (described.width, described.optimizer_hparams["lr"], described.state) == (5, 1e-2, None)
    assert not (tmp_path / "runs").exists()
    assert current() is NEW


def test_a_described_trainer_is_the_one_that_is_returned_and_not_the_first_that_is_made(tmp_path):
    def make():
        classifier(tmp_path, Counted, width=1)
        return classifier(tmp_path, Counted, width=2)

    assert describe_trainer(make).width == 2


def test_what_needs_a_state_after_the_constructor_leaves_the_description_as_it_is(tmp_path):
    class Late(Classifier):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.parameters = sum(x.size for x in jax.tree.leaves(self.state.params))

    def make():
        trainer = classifier(tmp_path, Late, seed=7)
        trainer.load_weights(tmp_path / "nothing")
        return trainer

    assert describe_trainer(make).seed == 7
    assert classifier(tmp_path, Late).parameters > 0


def test_what_fails_before_a_trainer_is_described_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError):
        described_by(lambda: classifier(tmp_path, seed=1 // 0))
    with pytest.raises(bx.errors.UnknownNameError, match="adam"):
        described_by(lambda: classifier(tmp_path, optimizer_hparams={"optimizer": "adm"}))


def test_a_described_trainer_cannot_be_trained(tmp_path):
    described = describe_trainer(lambda: classifier(tmp_path))
    with pytest.raises(TrainingError, match="while the trainers of a study are described"):
        described.train_model(loader(), num_epochs=1)


def test_a_previewed_trainer_has_shapes_in_a_folder_that_goes_away(tmp_path):
    with previewing():
        trainer = classifier(tmp_path / "runs")
        assert Path(trainer.log_dir).is_dir()
    assert is_of_shapes(trainer)
    assert not Path(trainer.log_dir).exists()
    assert entries(tmp_path) == []


def test_a_member_has_shapes_and_a_folder_with_its_arguments(tmp_path):
    trainer = classifier(tmp_path, Counted, width=4)
    member = variant(trainer, tmp_path / "member", {"seed": 3})
    assert is_of_shapes(member)
    assert (member.seed, member.width, member.enable_progress_bar) == (3, 4, False)
    assert entries(tmp_path / "member") == ["hparams.json"]


def test_the_arguments_of_a_member_are_the_same_whether_it_is_made_or_described(tmp_path):
    trainer = classifier(tmp_path, Counted, width=4)
    variant(trainer, tmp_path / "made", {"seed": 3})
    (tmp_path / "described").mkdir()
    write_variant(trainer, tmp_path / "described", {"seed": 3})
    made, described = (
        (tmp_path / name / "hparams.json").read_text().replace(name, "folder")
        for name in ("made", "described")
    )
    assert made == described


@pytest.mark.parametrize("is_member", [False, True])
def test_a_teacher_in_the_constructor_has_its_values_however_the_student_is_made(
    tmp_path, is_member
):
    student = classifier(tmp_path / "a", WithTeacher, teacher_folder=str(tmp_path / "teachers"))
    if is_member:
        again = variant(student, tmp_path / "member", {"seed": 1})
    else:
        again = rebuild(WithTeacher, Path(student.log_dir), None, {})
    assert is_of_shapes(again)
    assert again.total == student.total > 0


def test_a_run_is_loaded_into_a_folder_of_its_own_when_asked_for(tmp_path):
    folder = Path(classifier(tmp_path).log_dir)
    new = {"logger_params": {"base_log_dir": str(tmp_path / "new"), "logger_type": "none"}}
    again = rebuild(Classifier, folder, classes(4), new)
    assert not is_of_shapes(again)
    assert read_json(Path(again.log_dir) / "hparams.json")["model_class"] == Mlp.__name__
