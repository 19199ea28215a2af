"""Reports: whole, self-contained, at full precision, and safe to write."""

import ast
import base64
import itertools
import pathlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import lm.analysis
from lm.analysis.report import Code, Plot, Report, ReportError, Section, Table, render
from lm.analysis.text import Column, plain_table, si
from lm.errors import UserError

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what a page loads and shows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.tags, self.words = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def figure():
    fig = Figure(figsize=(2, 1))
    fig.subplots().plot([1, 2], [3, 4])
    return fig


FRAME = pd.DataFrame({"arm": ["MHA", "<b>MQA</b>"], "loss": [1 / 3, np.nan], "runs": [4, 0]})


def report(**changes):
    parts = {
        "title": "A & B <script>alert(1)</script>",
        "sections": (
            Section(heading="First", items=("Words with <i>marks</i>.", Code("lm sweep run x.py --n 3 > out"))),
            Section(heading="Table", items=(Table(name="main", frame=FRAME, caption="Two arms."),)),
            Section(
                heading="Figures", items=(Plot(name="curve", figure=figure(), caption='A "line"'),), terminal=False
            ),
        ),
    }
    return Report(**{**parts, **changes})


def test_writes_every_file(tmp_path):
    page = report().write(tmp_path / "new" / "folder")
    folder = page.parent
    assert sorted(p.name for p in folder.iterdir()) == ["curve.png", "curve.svg", "main.csv", "report.html"]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (folder / "curve.svg").read_text()
    assert not (folder / "report.html").stat().st_mode & 0o111


def test_csv_keeps_full_precision_and_gaps(tmp_path):
    report().write(tmp_path)
    back = pd.read_csv(tmp_path / "main.csv", float_precision="round_trip")
    assert back["loss"][0] == 1 / 3 and np.isnan(back["loss"][1])
    assert (tmp_path / "main.csv").read_text().splitlines()[2] == "<b>MQA</b>,,0"


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path):
    text = report().write(tmp_path).read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "b" not in page.tags
    assert page.sources and all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not re.search(r"url\(|@import|https?://", text)
    assert base64.b64decode(page.sources[0].split(",")[1]) == (tmp_path / "curve.png").read_bytes()
    words = "".join(page.words).replace("\N{NO-BREAK SPACE}", " ").replace("\N{WORD JOINER}", "")
    for part in ("A & B <script>alert(1)</script>", "<i>marks</i>", "--n 3 > out", "<b>MQA</b>", "Two arms."):
        assert part in words


def test_the_same_figure_gives_the_same_bytes():
    assert render(figure(), "svg") == render(figure(), "svg")
    assert render(figure(), "png") == render(figure(), "png")


def test_a_missing_value_is_never_a_zero():
    column = Column("loss", ("{loss:.4f} ± {sd:.4f}", "{loss:.4f}"))
    assert column.cell({"loss": 1.0, "sd": 0.5}) == "1.0000 ± 0.5000"
    assert column.cell({"loss": 1.0, "sd": np.nan}) == "1.0000"
    assert column.cell({"loss": None, "sd": 0.5}) == "-" == column.cell({"sd": 0.5})
    assert Column("x", ("{a.b:si}",)).cell({"a.b": 1234567}) == "1.23M"
    assert report().tables[0].cells == [["MHA", "0.333333", "4"], ["<b>MQA</b>", "-", "0"]]


@pytest.mark.parametrize(
    "x, text",
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00k"),
        (999_999, "1.00M"),
        (1_234_567, "1.23M"),
        (6.9e9, "6.90G"),
        (0.25, "0.25"),
    ],
)
def test_si(x, text):
    assert si(x) == text


def test_text_is_for_the_terminal():
    text = report().text()
    assert "Words with" in text and "0.333333" in text and "lm sweep run" in text
    assert "Figures" not in text


def test_wide_tables_are_cut_into_blocks_that_repeat_the_first_column():
    frame = pd.DataFrame({"arm": ["first", "second"], **{f"column{i}": [i, 10 * i] for i in range(12)}})
    columns = Table(name="t", frame=frame).shown
    text = plain_table(frame, columns, width=40)
    assert all(len(line) <= 40 for line in text.splitlines())
    assert text.count("second") > 1 and all(f"column{i}" in text for i in range(12))
    assert plain_table(frame, columns, width=400).count("second") == 1


def test_names_are_checked():
    twice = (Section(heading="x", items=(Table(name="a", frame=FRAME), Plot(name="a", figure=figure()))),)
    with pytest.raises(ReportError, match="two items of the report are called 'a'"):
        report(sections=twice)
    with pytest.raises(ReportError, match="can't name"):
        report(sections=(Section(heading="x", items=(Table(name="../a", frame=FRAME),)),))


def test_a_folder_that_cant_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match=r"can't be written to .*file"):
        report().write(tmp_path / "file")


def test_a_write_that_fails_leaves_the_old_page(tmp_path, monkeypatch):
    page = report().write(tmp_path)
    before = page.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("lm.files.os.replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        report(title="Another").write(tmp_path)
    assert page.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_needs_no_jax_and_leaves_pyplot_alone():
    folder = pathlib.Path(lm.analysis.__file__).parent
    names = set()
    files = set(folder.rglob("*.py")) - {folder / "scaling" / "importers" / "results.py"}  # reads our own store, lazily
    for node in itertools.chain.from_iterable(ast.walk(ast.parse(p.read_text())) for p in files):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    own = {name for name in names if name.split(".")[0] == "lm"}
    assert own and all(name in ("lm.errors", "lm.files") or name.startswith("lm.analysis.") for name in own)
    assert not {"jax", "flax", "optax"} & {name.split(".")[0] for name in names}
    assert "matplotlib.pyplot" not in names
    said = "import lm.analysis.scaling, sys; assert not {'jax', 'flax', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True)
