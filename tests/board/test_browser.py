"""The board in a real browser: what its scripts do, and that nothing they do is against the page's own policy."""

import json
import os
import shutil
import time

import pytest

from tests.board.conftest import Board
from tests.board.folder import NASTY, config, experiment, rows, work_on

selenium = pytest.importorskip("selenium", reason="selenium isn't installed")
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROME and DRIVER), reason="there is no chromium with its chromedriver here")


class Browser:
    """Chromium over one page at a time."""

    def __init__(self, url):
        options = ChromeOptions()
        options.binary_location = str(CHROME)
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.url = url
        self.driver = Chrome(options=options, service=ChromeService(DRIVER))

    def open(self, path):
        self.driver.get("about:blank")
        self.driver.get(self.url + path)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def enter(self, selector, value):
        """Sets a control as typing or sliding would."""
        script = "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        self.run(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", selector, value)

    def texts(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def until(self, condition):
        return WebDriverWait(self.driver, 30, poll_frequency=0.05).until(lambda _: condition())

    def said(self):
        """What the console has to complain about."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(board):
    found = Browser(board.url)
    yield found
    found.driver.quit()


def test_sorting_filtering_choosing_and_comparing(browser):
    browser.open("/")
    browser.until(lambda: browser.texts("#live")[0])
    browser.click("a[href='/e/mixers']")
    browser.until(lambda: len(browser.all(".curve")) == 3)  # one run of each arm, before anybody has chosen
    assert [len(browser.all(f".runs .{name}")) for name in ("pick input:checked", "c0", "c1", "c2")] == [3, 1, 1, 1]
    browser.click("#clear")
    assert not browser.all(".runs input:checked")
    browser.until(lambda: not browser.all(".curve"))

    def column(number):
        return browser.texts(f".runs tbody td:nth-child({number})")

    names = browser.texts(".runs thead th")
    loss = names.index("held-out loss") + 1
    browser.click("[data-focus='sort heldout_loss']")
    rising = column(loss)
    known = [float(text) for text in rising if text != "–"]  # noqa: RUF001
    assert known == sorted(known) and len(known) == 2 and rising[:2] == [f"{v:.4f}" for v in known]
    browser.click("[data-focus='sort heldout_loss']")
    falling = column(loss)
    assert falling[:2] == rising[1::-1] and falling[2:] == rising[2:]  # what is missing stays last
    assert browser.run("return document.querySelector('th[aria-sort=descending]').textContent") == "held-out loss"

    browser.enter("#runs input[type=search]", "mqa running")
    assert column(names.index("arm") + 1) == ["MQA"] and "1 of 6" in browser.texts(".pager")[0]
    assert "left" in column(names.index("progress") + 1)[0]
    browser.enter("#runs input[type=search]", "")
    for run in ("mixers-0-0", "mixers-1-0"):
        assert browser.run("return document.querySelector('#compare').disabled")
        browser.all(f".runs tr[data-id='{run}'] input")[0].click()
    browser.until(lambda: len(browser.all(".curve")) == 2)
    assert browser.texts(".legend a") == ["MHA seed 0", "GQA seed 0"]
    assert browser.texts(".legend .number")[0] == f"{rows(200, 0.0)[-1]['loss']:.4f}"
    browser.driver.refresh()  # the choice is in the address
    browser.until(lambda: len(browser.all(".curve")) == 2)
    browser.click("#compare")
    browser.until(lambda: "/diff?" in browser.driver.current_url)
    assert browser.texts(".diff:first-of-type td")[:3] == ["model.block.mixer.kv_heads", "1", "2"]
    assert browser.said() == []


def test_axes_splits_and_the_read_out(browser):
    browser.open("/e/mixers#runs=mixers-0-0")
    browser.until(lambda: len(browser.all(".curve")) == 1)

    def drawn():
        return browser.run("return document.querySelector('.curve').getAttribute('d')")

    def seen():
        return drawn(), *browser.texts(".axes text")

    pictures = [seen()]
    for control in ("logx", "logy", "split][value=train", "x][value=flops", "x][value=tokens"):
        browser.click(f"[name={control}]")
        pictures.append(seen())
    assert len(set(pictures)) == 6  # every control changes what is seen
    rough = drawn()
    browser.enter("[name=smooth]", 0.9)
    browser.until(lambda: drawn() != rough)
    browser.enter("[name=smooth]", 0)
    browser.until(lambda: drawn() == rough)
    browser.click("[name=split][value=both]")
    assert len(browser.all(".curve")) == 2
    frame = browser.all(".chart-frame")[0]
    ActionChains(browser.driver).move_to_element_with_offset(frame, frame.size["width"] // 2 - 20, 0).perform()
    last = {row["split"]: row["loss"] for row in rows(200, 0.0) if row["step"] == 200}
    assert browser.texts(".tip td.number") == [f"{loss:.4f}" for loss in sorted(last.values(), reverse=True)]
    assert len(browser.all(".mark")) == 2 and browser.texts(".tip-head") == ["tokens 410k"]
    before = browser.texts(".axes text")
    ActionChains(browser.driver).click_and_hold(frame).move_by_offset(200, 0).release().perform()
    zoomed = browser.texts(".axes text")
    ActionChains(browser.driver).double_click(frame).perform()
    assert zoomed != before and browser.texts(".axes text") == before
    assert browser.said() == []


def test_a_run_page_and_nasty_names_run_nothing(browser):
    browser.open("/run/mixers-0-1")
    browser.until(lambda: len(browser.all(".curve")) == 2)
    browser.enter("#config input", "heads mixer")
    shown = [e.text.split() for e in browser.all("#config dl div") if e.is_displayed()]
    assert shown == [["model.block.mixer.heads", "8"], ["model.block.mixer.kv_heads", "1"]]
    browser.open("/e/nasty%20%26%20co")
    browser.until(lambda: len(browser.all(".curve")) == 2)
    assert NASTY in browser.texts(".runs td.arm a") and not browser.all("main img")
    ActionChains(browser.driver).move_to_element(browser.all(".chart-frame")[0]).perform()
    assert any(NASTY in text for text in browser.texts(".tip td.name")) and not browser.all("main img")
    assert browser.said() == []


def test_a_page_follows_its_runs_and_keeps_what_was_chosen(browser, tmp_path):
    folder = tmp_path / "results"
    states = {("a", 0): "running", ("a", 1): "new"}
    experiment(folder, "live", ["a", "b"], states=states)
    lock = work_on(folder / "runs" / "live-0-0")
    with Board(folder) as board:
        browser.driver.get(f"{board.url}/e/live#runs=live-0-0,live-1-0")
        browser.until(lambda: len(browser.all(".curve")) == 2)
        loss = f".runs tbody td:nth-child({browser.texts('.runs thead th').index('held-out loss') + 1})"
        missing = browser.texts(loss)[0]
        for order in (sorted, lambda found: sorted(found, reverse=True)):  # what is missing comes last, either way
            browser.click("[data-focus='sort heldout_loss']")
            found = browser.texts(loss)
            assert found[2:] == [missing, missing] and found[:2] == order(found[:2])
        browser.click("[data-focus='sort heldout_loss']")
        assert browser.texts(loss)[0] == missing  # a third click gives back the experiment's own order
        first = browser.run("return document.querySelector('.curve').getAttribute('d')")
        home = folder / "runs" / "live-0-0"
        (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(200, 0.0)))
        (home / "result.json").write_text(json.dumps({"heldout_loss": 1.25, "tokens": 1, "flops": 1}))
        entry = {"point": {}, "seed": 1}
        (folder / "runs" / "live-0-1").mkdir()
        (folder / "runs" / "live-0-1" / "config.json").write_text(json.dumps(config(entry, 200)))
        browser.until(lambda: "1.2500" in browser.texts(".runs td"))
        browser.until(lambda: browser.run("return document.querySelector('.curve').getAttribute('d')") != first)
        assert browser.texts("#summary span") == ["3 done", "1 interrupted"]
        chosen = browser.run("return [...document.querySelectorAll('.runs .chosen')].map((r) => r.dataset.id)")
        assert chosen == ["live-0-0", "live-1-0"]
        assert browser.said() == []
        browser.driver.get("about:blank")
    os.close(lock)


def test_two_thousand_runs_open_at_once(browser, tmp_path):
    experiment(tmp_path, "many", [f"arm{i}" for i in range(1000)], seeds=2, steps=10)
    with Board(tmp_path) as board:
        browser.driver.get("about:blank")
        began = time.perf_counter()
        browser.driver.get(f"{board.url}/e/many")
        browser.until(lambda: "1–50 of 2,000" in browser.texts(".pager")[0])  # noqa: RUF001
        browser.until(lambda: len(browser.all(".curve")) == 8)
        assert time.perf_counter() - began < 15  # about a second where nothing else runs
        browser.click(".pager button:last-child")
        assert len(browser.all(".runs tbody tr")) == 50 and "51–100" in browser.texts(".pager")[0]  # noqa: RUF001
        browser.driver.get("about:blank")
