"""The page of runs: it parses, needs nothing else, and holds the right numbers."""

import html.parser
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from boltax import cli
from boltax._runs._chart import HEIGHT, Line, chart
from boltax.checkpoint._lock import RunLock
from run_folders import CURVES, add_picture, make_run

VOID = {"meta", "input", "img", "circle", "path", "line"}
NAME = "<script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """Notes the elements of a page, and refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


@pytest.fixture
def text(tmp_path, capsys):
    runs = tmp_path / "runs"
    make_run(runs / "version_0", lr=0.1, acc=0.625)
    make_run(runs / "version_1", lr=0.02, acc=0.875, how="failed", reason=NAME, model=NAME)
    add_picture(runs / "version_0", "digits_000007.png")
    assert cli.main(["report", str(runs), "--output", "page.html", "--title", "Mine & yours"]) == 0
    assert "2 runs" in capsys.readouterr().out
    return Path("page.html").read_text()


def test_it_needs_nothing_else(text):
    page = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert not re.search(r"@import|<link|<iframe|<object", text)
    sources = [a["src"] for _, a in page.elements if "src" in a]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,iVBOR")
    assert not [a for tag, a in page.elements if "href" in a or (tag == "script" and "src" in a)]


def test_it_holds_the_numbers_and_shows_no_code_of_others(text):
    page = Page(text)
    cells = " ".join(page.texts)
    for value in ("0.625", "0.875", "0.3125", "0.1", "0.02", "failed", "Mine & yours", NAME):
        assert value in cells
    assert "digits, step 7" in cells
    assert "a <table> of layers" in cells
    assert [tag for tag, _ in page.elements].count("script") == 1
    widths = [a["style"] for tag, a in page.elements if tag == "b"]
    assert [w.partition(";")[0] for w in widths[:2]] == ["width:75.00%", "width:25.00%"]


def test_curves_are_the_history(text):
    page = Page(text)
    for metric in ("loss", "acc"):
        at = next(i for i, (tag, a) in enumerate(page.elements) if a.get("aria-label") == metric)
        svg = page.elements[at][1]
        curves, style = {}, None
        for tag, attributes in page.elements[at + 1 :]:
            if tag == "svg":
                break
            if tag == "g":
                style = attributes["class"]
            elif tag == "path":
                curves[style] = [p.split(",") for p in re.split("[ML]", attributes["d"])[1:]]
        names = (
            {"train run0": "train", "val run1": "val"} if metric == "loss" else {"val run1": "val"}
        )
        for style, phase in names.items():
            ys = [float(y) for _, y in curves[style]]
            xs = [float(x) for x, _ in curves[style]]
            assert ys == pytest.approx(places(CURVES[f"{phase}/{metric}"], svg), abs=0.01)
            assert xs == pytest.approx([60, 264, 468], abs=0.1)


def places(values, svg):
    """Where values are on a linear axis, computed here from its ends."""
    low, high = float(svg["data-low"]), float(svg["data-high"])
    assert svg["data-log"] == "0"
    return [HEIGHT - 32 - (value - low) / (high - low) * (HEIGHT - 32 - 12) for value in values]


def test_large_quotients_get_a_logarithmic_axis_and_gaps_stay_open():
    points = [(1.0, 1000.0), (2.0, math.nan), (3.0, 10.0), (4.0, 1.0)]
    drawn = chart("loss", [Line(0, "a", points, "val")])
    assert 'data-log="1"' in drawn
    (path,) = re.findall(r'<path d="([^"]*)"', drawn)
    pieces = [[float(p.split(",")[1]) for p in part.split("L")] for part in path.split("M")[1:]]
    top, bottom = 12, HEIGHT - 32
    assert pieces == [
        [pytest.approx(top)],
        [pytest.approx(bottom - (bottom - top) / 3, abs=0.01), pytest.approx(bottom)],
    ]
    assert chart("loss", [Line(0, "a", [(1.0, math.nan)], "val")]) == ""


def test_a_run_that_is_under_way_has_a_page_too(tmp_path, capsys):
    folder = tmp_path / "MLP/version_0"
    with RunLock(folder):
        assert cli.main(["report", str(folder)]) == 2  # it has written nothing yet
        (folder / "hparams.json").write_text('{"model_class": "MLP"}')
        assert cli.main(["report", str(folder)]) == 0
    assert "running" in Page(Path("report.html").read_text()).texts


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")
def test_a_browser_draws_it_without_an_error(text):
    script = "document.title=String([...document.querySelectorAll('svg path')].filter("
    script += (
        "p=>p.getTotalLength()>50).length)+' '+(document.documentElement.scrollWidth<=innerWidth)"
    )
    Path("page.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"),
        *("--user-data-dir=" + str(Path("profile").absolute()), "--dump-dom"),
        Path("page.html").absolute().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    (title,) = re.findall("<title>(.*?)</title>", done.stdout.partition("<style>")[0])
    assert title == "6 true"  # curves with a length; nothing is wider than the window
