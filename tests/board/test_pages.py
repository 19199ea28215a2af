"""What the board answers: the pages, what they say of the runs, and that it only reads."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from lm.board.app import listen, serve
from lm.errors import UserError
from tests.board.conftest import STATES, Board
from tests.board.folder import NASTY, rows, run

NASTY_PAGES = ("/", f"/e/{quote('nasty & co')}", "/run/nasty%20%26%20co-0-0", "/run/mixers-0-1")
PAGES = (
    "/",
    "/e/mixers",
    "/run/mixers-0-0",
    "/run/mixers-2-0",
    "/diff?a=mixers-0-0&b=mixers-1-0",
    "/other",
    *NASTY_PAGES,
)
OTHERS = (
    "/api/e/mixers",
    "/api/other",
    "/api/curves?run=mixers-0-0",
    "/static/chart.js",
    "/e/mixers/files/report.html",
)


class Page(HTMLParser):
    """The words of a page, the scripts and styles it loads, and whatever would run or load something else."""

    def __init__(self, text):
        super().__init__()
        self.words, self.loaded, self.bad = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loaded += [
            attributes[name] for name in ("src", "href") if name in attributes and tag in ("script", "link")
        ]
        known = (
            "html head meta title link script body header nav main span a h1 h2 h3 p div section table thead tbody tr"
        )
        known += " th td code pre form fieldset legend label input button ul dl dt dd details summary svg rect progress"
        self.bad += [tag] if tag not in [*known.split(), "noscript"] else []
        self.bad += [name for name in attributes if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def data(board, path):
    status, headers, text = board.ask(path)
    assert (status, headers["content-type"]) == (200, "application/json"), text
    return json.loads(text)


@pytest.mark.parametrize("path", [*PAGES, *OTHERS])
def test_everything_that_is_linked_is_there_and_loads_only_the_boards_own_files(board, path):
    status, headers, text = board.ask(path)
    assert status == 200
    assert board.ask(path, "HEAD")[::2] == (200, "")
    if headers["content-type"].startswith("text/html") and "/files/" not in path:
        page = Page(text)
        assert not page.bad
        assert page.loaded and all(board.ask(address)[0] == 200 for address in page.loaded)
        links = re.findall(r'<a href="([^"]+)"', text)
        assert links and all(board.ask(link.replace("&amp;", "&"))[0] == 200 for link in links)


def test_the_list_counts_runs_and_names_the_best_and_the_question(board):
    text = Page(board.ask("/")[2]).text
    assert "2 done, 1 running, 1 interrupted, 1 failed, 1 new" in text
    assert "Is <b>sharing</b> free & easy?" in text and "More words." not in text
    assert f"{rows(200, 0.0)[-1]['loss']:.4f} MHA" in text
    assert "runs of no experiment" in text and "alone" in Page(board.ask("/run/alone")[2]).text


def test_an_experiments_runs_have_their_states_progress_and_errors(board):
    found = data(board, "/api/e/mixers")
    runs = {(run["arm"], run["seed"]): run for run in found["runs"]}
    assert {key: run["status"] for key, run in runs.items()} == {key: STATES.get(key, "done") for key in runs}
    assert len(runs) == 6 and found["axes"] == ["model.block.mixer.kv_heads"]
    assert [runs[arm, 0]["point"][found["axes"][0]] for arm in ("MHA", "GQA", "MQA")] == [1, 2, 4]
    working = runs["MQA", 0]
    assert (working["step"], working["steps"], working["fraction"]) == (100, 200, 0.5)
    assert working["eta"] == pytest.approx(100 * 2048 / 1e4)  # what is left, at the speed of its newest row
    assert found["eta"] == pytest.approx(
        (100 + 200 * 2 / 3 + 200) * 2048 / 1e4, rel=0.01
    )  # MQA, GQA seed 1, MQA seed 1
    assert runs["MHA", 1]["error"].startswith("loss is nan at step 50")
    assert runs["MQA", 1]["heldout_loss"] is None and runs["MQA", 1]["step"] is None


def test_curves_are_the_rows(board):
    found = data(board, "/api/curves?run=mixers-0-0&run=mixers-2-1")
    own = rows(200, 0.0)
    for split in ("train", "heldout"):
        part = [row for row in own if row["split"] == split]
        assert found["mixers-0-0"][split]["step"] == [row["step"] for row in part]
        assert found["mixers-0-0"][split]["loss"] == pytest.approx([row["loss"] for row in part], rel=1e-5)
    assert found["mixers-0-0"]["flops_per_token"] == pytest.approx(5.7e6)
    assert found["mixers-2-1"]["train"]["step"] == []  # not begun
    smooth = data(board, "/api/curves?run=mixers-0-0&smooth=0.9")["mixers-0-0"]
    assert smooth["heldout"] == found["mixers-0-0"]["heldout"] and smooth["train"] != found["mixers-0-0"]["train"]


def test_an_answer_is_sent_again_only_when_it_changed(tmp_path):
    run(tmp_path / "runs" / "one", {"tokens": 1, "flops": 1, "seed": 0, "point": {}}, "interrupted", 60, offset=0.0)
    with Board(tmp_path) as board:
        _, headers, text = board.ask("/api/curves?run=one")
        assert board.ask("/api/curves?run=one", If_None_Match=headers["etag"])[::2] == (304, "")
        with (tmp_path / "runs" / "one" / "rows.jsonl").open("a") as file:
            file.write(
                '{"step": 21, "split": "train", "loss": null, "nonfinite": {"loss": "nan"}, "tokens": 9}\n{"step"'
            )
        status, _, newer = board.ask("/api/curves?run=one", If_None_Match=headers["etag"])
        assert status == 200 and json.loads(newer)["one"]["train"]["loss"] == [
            *json.loads(text)["one"]["train"]["loss"],
            None,
        ]


def test_the_diff_names_exactly_what_differs(board):
    text = board.ask("/diff?a=mixers-0-0&b=mixers-1-1")[2]
    config = text[text.index("<h2>Config</h2>") : text.index("<h2>Results</h2>")]
    rows_of = re.findall(r"<td><code>(.*?)</code></td><td>(.*?)</td><td>(.*?)</td>", config)
    assert rows_of == [("model.block.mixer.kv_heads", "1", "2"), ("seed", "0", "1")]
    assert "No difference." in board.ask("/diff?a=mixers-0-0&b=mixers-0-0")[2]


def test_a_run_shows_its_config_where_it_came_from_and_why_it_failed(board):
    text = Page(board.ask("/run/mixers-0-1")[2]).text
    assert "model.block.mixer.position.base 10000.0" in text and "model.block.mixer Attention" in text
    assert "lm sweep run experiments/x.py" in text and "45079393e38db804fe2931b31c91901f0f501ca5, with changes" in text
    assert "jax 0.10.2" in text and "fb80e4a055ec6c44" in text
    assert "loss is nan at step 50" in text and "Traceback: <script>alert(2)</script>" in text


def test_names_and_errors_are_only_ever_text(board):
    for path in NASTY_PAGES:
        text = board.ask(path)[2]
        assert not Page(text).bad, path
        assert "<img" not in text and "<i>" not in text and "alert(2)</script>" not in text
    assert NASTY in Page(board.ask("/")[2]).text


# ---- what it refuses


def test_only_reading_methods_are_answered(board):
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        for path in ("/", "/api/e/mixers", "/static/chart.js", "/nowhere"):
            status, headers, _ = board.ask(path, method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_only_hosts_that_are_this_machine_are_answered(board):
    for host in ("127.0.0.1", f"localhost:{board.port}", "LOCALHOST", f"[::1]:{board.port}"):
        assert board.ask("/", Host=host)[0] == 200
    for host in ("example.com", "127.0.0.1.example.com", "localhost.example.com:80", "10.0.0.1", "", "a b", None):
        status, _, text = board.ask("/api/e/mixers", Host=host)
        assert status == 400 and "MHA" not in text


def test_nothing_outside_the_results_is_served(tmp_path):
    root, secret = tmp_path / "results", tmp_path / "secret.html"
    secret.write_text("SECRET")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"word": "SECRET"}')
    run(root / "runs" / "one", {"tokens": 1, "flops": 1, "seed": 0, "point": {}}, "done", 10, offset=0.0)
    (root / "x").mkdir()
    (root / "x" / "manifest.jsonl").write_text(
        '{"id": "one", "arm": "a", "seed": 0, "tokens": 1, "flops": 1, "point": {}}\n'
    )
    (root / "x" / "report.html").write_text("fine <script>alert(1)</script>")
    (root / "x" / "runs.csv").write_text("a,b")
    for name in (".hidden.html", "odd.py"):
        (root / "x" / name).write_text("SECRET")
    (root / "x" / "link.html").symlink_to(secret)
    (root / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "loose.html").write_text("SECRET")
    with Board(root) as board:
        status, headers, _ = board.ask("/e/x/files/report.html")
        policy = headers["content-security-policy"]
        assert status == 200 and policy.endswith("; sandbox") and "script-src" not in policy
        assert board.ask("/e/x/files/runs.csv")[1]["content-type"].startswith("text/plain")
        tried = [
            f"{start}{steps}{name}"
            for start in ("/", "/e/", "/e/x/files/", "/static/", "/run/", "/api/e/")
            for steps in (
                "../",
                "..%2f",
                "%2e%2e/",
                "%2e%2e%2f",
                "..%5c",
                "../../",
                "..%2f..%2f",
                "....//",
                "%00../",
                "",
            )
            for name in (
                "secret.html",
                "loose.html",
                "link.html",
                ".hidden.html",
                "odd.py",
                "link",
                "elsewhere",
                "etc/passwd",
            )
        ]
        tried += [
            f"/e/x/files/{secret}",
            f"/e/x/files/{quote(str(secret), safe='')}",
            "/e/runs/files/one",
            "/e/../files/secret.html",
        ]
        for path in tried:
            status, _, text = board.ask(path)
            assert status in (400, 404) and "SECRET" not in text and "root:" not in text, path


def test_every_answer_carries_its_policy_errors_too(board):
    for path in (*PAGES, *OTHERS, "/nowhere", "/api/nowhere", "/run/nobody", "/diff"):
        for method in ("GET", "POST"):
            headers = board.ask(path, method)[1]
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'") and "http" not in policy
            assert ("unsafe-inline" in policy) == ("sandbox" in policy)
            assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nowhere", 404, "Not Found"),
        ("/e/nothing", 404, "no experiment"),
        ("/run/nobody", 404, "no run"),
        ("/diff?a=mixers-0-0", 400, "two runs"),
        ("/diff?a=mixers-0-0&b=nobody", 404, "no run"),
        ("/api/e/nothing", 404, "no experiment"),
        ("/api/curves?run=nobody", 404, "no run"),
        ("/api/curves?smooth=much", 400, "from 0 to below 1"),
        ("/api/curves?smooth=nan", 400, "from 0 to below 1"),
        ("/api/curves?smooth=1", 400, "from 0 to below 1"),
        ("/api/curves?" + "&".join(["run=mixers-0-0"] * 65), 400, "too many"),
    ],
)
def test_what_is_not_there_is_said(board, path, status, said):
    got, _, text = board.ask(path)
    assert got == status and said in (json.loads(text)["error"] if path.startswith("/api") else Page(text).text)


def test_reading_leaves_no_trace(board):
    def state():
        return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in board.root.rglob("*")}

    before = state()
    for path in (*PAGES, *OTHERS):
        board.ask(path)
    assert state() == before


def test_damaged_files_are_named_in_one_line(tmp_path):
    home = tmp_path / "runs" / "one"
    run(home, {"tokens": 1, "flops": 1, "seed": 0, "point": {}}, "interrupted", 60, offset=0.0)
    (home / "rows.jsonl").write_text(
        '{"step": 1, "split": "train"\n{"step": 2, "split": "train", "loss": 1, "tokens": 1}\n'
    )
    with Board(tmp_path) as board:
        for path in ("/api/curves?run=one", "/api/other", "/run/one"):
            status, _, text = board.ask(path)
            assert status == 500 and "rows.jsonl" in text and "remove that line" in text


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with Board(tmp_path) as board:
        assert "lm sweep run" in Page(board.ask("/")[2]).text


# ---- the command


def test_a_port_in_use_an_open_host_and_a_missing_folder_give_one_line(tmp_path):
    with listen("127.0.0.1", 0) as taken, pytest.raises(UserError, match=r"port \d+ is in use; take another"):
        serve(tmp_path, port=taken.getsockname()[1])
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com"):
        with pytest.raises(UserError, match=r"this machine alone.*ssh -L"):
            serve(tmp_path, host=host, port=0)
    with pytest.raises(UserError, match="no folder"):
        serve(tmp_path / "nowhere", port=0)
    with pytest.raises(UserError, match="65535"):
        serve(tmp_path, port=70000)


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    code = f"from lm.commands.board import Board; raise SystemExit(Board(results={str(tmp_path)!r}, port=0)())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            said = re.match(r"(http://127\.0\.0\.1:\d+/) shows ", process.stdout.readline())
            assert said and urllib.request.urlopen(said[1], timeout=20).status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
