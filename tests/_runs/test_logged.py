"""What loggers wrote: metrics by step, and the newest picture of each key."""

from pathlib import Path

from boltax._runs._logged import read_logged, thinned
from boltax.loggers import CsvLogger, TensorBoardLogger
from run_folders import add_picture, make_run


def test_csv_and_pictures(tmp_path):
    folder = make_run(tmp_path / "run")
    logger = CsvLogger(folder)
    for step in (1, 2, 3):
        logger.log_metrics({"train/step/loss": 1 / step}, step)
    for name in ("digits_000002.png", "digits_000010.png", "plain.png"):
        add_picture(folder, name)
    add_picture(folder, "evil_000001.png").write_bytes(b"<svg onload=...>")
    (folder / "images" / "link_000001.png").symlink_to(folder / "images" / "plain.png")
    logged = read_logged(folder)
    assert logged.series["train/step/loss"] == [(1.0, 1.0), (2.0, 0.5), (3.0, 1 / 3)]
    assert [(p.key, p.step) for p in logged.pictures] == [("digits", 10), ("plain", None)]


def test_tensorboard(trained):
    logged = read_logged(Path(trained.log_dir))
    assert [step for step, _ in logged.series["train/step/loss"]] == [1, 2, 3, 4]
    last = trained.run.history[-1]["train/loss"]
    assert abs(logged.series["train/loss"][-1][1] - last) < 1e-6  # TensorBoard has float32
    assert [(p.key, p.step) for p in logged.pictures] == [("samples", 4)]


def test_what_a_resumed_run_wrote_again_counts(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for step in (1, 2, 3):
        logger.log_metrics({"lr": float(step)}, step)
    logger.resume(1)
    logger.log_metrics({"lr": 20.0}, 2)
    logger.finalize()
    assert read_logged(tmp_path).series["lr"] == [(1.0, 1.0), (2.0, 20.0)]
    path = min(tmp_path.glob("events*"))
    path.write_bytes(path.read_bytes()[:-3])  # cut short, as by a kill
    assert (2.0, 20.0) in read_logged(tmp_path).series["lr"]


def test_thinned_keeps_both_ends():
    points = [(float(n), float(n)) for n in range(1000)]
    few = thinned(points, 10)
    assert (len(few), few[0], few[-1]) == (10, points[0], points[-1])
    assert thinned(points[:5], 10) == points[:5]
