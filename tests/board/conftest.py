"""A results folder and the real server over it; for requests, http.client, which sends a path as it is written."""

import http.client
import os
import threading
import time
from pathlib import Path

import pytest

from lm.analysis.report import Report, Section
from lm.board.app import listen, prepared
from tests.board.folder import NASTY, experiment, run, work_on

STATES = {("MQA", 0): "running", ("MHA", 1): "failed", ("GQA", 1): "interrupted", ("MQA", 1): "new"}
POINT = {"tokens": 40 * 2048, "flops": 1e9, "seed": 0, "point": {}}


def made(root: Path) -> list[int]:
    """Fills `root`; the descriptors of the locks that its runs in work hold."""
    folder = experiment(root, "mixers", ["MHA", "GQA", "MQA"], states=STATES)
    sections = (
        Section(heading="Question", items=("Is <b>sharing</b> free & easy?", "More words.")),
        Section(heading="Answer", items=("Yes.", "With care.")),
    )
    Report(title="mixers", sections=sections).write(folder)
    experiment(root, "nasty & co", [NASTY, "plain"], seeds=1, steps=40)
    run(root / "runs" / "alone", POINT, "done", 40, offset=0.0)
    return [work_on(root / "runs" / "mixers-2-0")]


class Board:
    """A server of the board in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server, self.socket = prepared(root), listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> "Board":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def ask(self, path: str, method: str = "GET", **headers: str | None) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of the answer. A header of None is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("board") / "results"
    locks = made(root)
    with Board(root) as board:
        yield board
    for lock in locks:
        os.close(lock)
