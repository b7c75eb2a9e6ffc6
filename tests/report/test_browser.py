"""The report in a real browser: what people click, read and wait for. Needs Chromium and its driver."""

from __future__ import annotations

import shutil
import time
from itertools import pairwise
from urllib.parse import quote

import pytest
import report_cases as cases
import test_html

from wrongturn.report import write
from wrongturn.signals import Signals
from wrongturn.tasks.graphs import ERRORS
from wrongturn.trace import Problem, Trace

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


class Viewer:
    """A page in the browser."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.js = driver.execute_script

    def open(self, path, hash: str = "") -> float:
        """Load a report; the seconds until it can be used."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        start = time.monotonic()
        self.driver.get(path.as_uri() + hash)
        self.until("return document.documentElement.dataset.ready === 'true'")
        return time.monotonic() - start

    def until(self, condition: str, seconds: float = 20):
        return WebDriverWait(self.driver, seconds, poll_frequency=0.02).until(lambda _: self.js(condition))

    def one(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def size(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, value: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def choose(self, field: str, value: str) -> None:
        self.js(f"document.querySelector('#{field}').scrollIntoView()")
        Select(self.one(f"#{field}")).select_by_value(value)

    def show(self, trace: Trace) -> None:
        """Open a trace by its address, as a link would."""
        self.js("location.hash = arguments[0]", f"#trace={quote(trace.id, safe='')}")
        self.until(f"return document.querySelector('#open-title')?.textContent === {trace.id!r}")
        self.until("return document.querySelector('.reader .t, .detail .absent')")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def nodes(self) -> int:
        return self.js("return document.querySelectorAll('*').length")


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def viewer(driver):
    """The browser, wide and light; nothing may have gone wrong in its console by the end."""
    viewer = Viewer(driver)
    viewer.size(1280)
    viewer.scheme("light")
    yield viewer
    assert [entry["message"] for entry in driver.get_log("browser")] == []


@pytest.fixture(scope="module")
def run():
    return cases.run(90, 2)


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    traces, problems = run
    findings = cases.study(traces, problems)
    target = tmp_path_factory.mktemp("report") / "report.html"
    comparison = cases.comparison()
    return write(target, traces=traces, problems=problems, study=findings, comparison=comparison, meta=cases.meta())


@pytest.fixture(scope="module")
def lost(run) -> Trace:
    """A failure whose wrong turn has tokens after it."""
    return next(t for t in run[0] if t.correct is False and 5 < t.onset < len(t) - 10)


# -- reading a failure -------------------------------------------------------------------------------------------------


def test_from_failures_to_the_wrong_token(viewer, path, run, lost):
    viewer.open(path)
    viewer.choose("outcome", "failures")
    failures = [t for t in run[0] if t.correct is False]
    viewer.until(f"return document.querySelector('#count').textContent.startsWith('{len(failures)} of')")
    outcomes = {node.text for node in viewer.all(".row .outcome")}
    assert outcomes == {"wrong"}

    position = failures.index(lost)
    viewer.js(f"document.querySelector('#list').scrollTop = {58 * position}")
    viewer.until(f"return document.querySelector('[aria-posinset=\"{position + 1}\"]')")
    viewer.one(f'[aria-posinset="{position + 1}"]').click()
    viewer.until(f"return document.querySelector('#open-title').textContent === {lost.id!r}")

    token = viewer.one(".reader .t.onset")
    assert token.get_attribute("data-i") == str(lost.onset)
    assert token.text == cases.graphs.pieces(lost.ids)[lost.onset]
    assert viewer.one(".turn").text == f"↑ first wrong token: {lost.error} — {ERRORS[lost.error]}"
    shown = [node.text for node in viewer.all(".reader .t")]
    pieces = [piece or "end" for piece in cases.graphs.pieces(lost.ids)]
    assert shown == pieces
    steps = len(cases.TASK.check(run[1][lost.problem], lost.ids).segments)
    assert len(viewer.all(".reader .step")) == steps
    assert viewer.one(".prompt").text == run[1][lost.problem].prompt
    assert f"number {lost.onset + 1} of {len(lost)}" in viewer.one(".verdict").text


def test_a_token_tells_its_figures_to_pointer_and_keyboard(viewer, path, lost):
    viewer.open(path)
    viewer.show(lost)
    pieces = cases.graphs.pieces
    token = viewer.one(".reader .t.onset")
    ActionChains(viewer.driver).move_to_element(token).perform()
    viewer.until("return !document.querySelector('#tip').hidden")
    said = viewer.one("#tip").text
    assert f"first wrong token: {lost.error}" in said
    assert f"{lost.signals.entropy[lost.onset]:.2f} nats" in said
    rows = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in viewer.all("#tip tr")]
    assert [row[0] or "(no text)" for row in rows] == [p or "(no text)" for p in pieces(lost.top_ids[lost.onset])]
    chances = [float(row[2]) for row in rows]
    assert chances == pytest.approx(2.718281828 ** lost.top_logprobs[lost.onset], abs=0.011)
    assert viewer.one("#tip .chosen td").text == pieces(lost.ids)[lost.onset]

    viewer.js("arguments[0].focus()", token)
    viewer.press(Keys.ARROW_RIGHT)
    assert viewer.js("return document.activeElement.dataset.i") == str(lost.onset + 1)
    assert f"token {lost.onset + 2} of {len(lost)}" in viewer.one("#tip").text
    assert viewer.js("return document.activeElement.getAttribute('aria-describedby')") == "tip"
    viewer.press(Keys.ESCAPE)
    assert viewer.js("return document.querySelector('#tip').hidden")


def test_entropy_is_shaded_in_order(viewer, path, lost):
    viewer.open(path)
    viewer.show(lost)
    tokens = viewer.js(
        """const dark = (node) => {
             const c = document.createElement('canvas').getContext('2d');
             c.fillStyle = getComputedStyle(node).backgroundColor; c.fillRect(0, 0, 1, 1);
             const [r, g, b] = c.getImageData(0, 0, 1, 1).data; return r + g + b; };
           return [...document.querySelectorAll('.reader .t')].map(dark);"""
    )
    order = sorted(range(len(lost)), key=lambda i: lost.signals.entropy[i])
    darkness = [tokens[i] for i in order]
    assert all(a >= b - 3 for a, b in pairwise(darkness))
    assert darkness[0] - darkness[-1] > 60


def test_the_rescued_branch_stands_beside_the_lost_one(viewer, path, run):
    viewer.open(path)
    viewer.choose("outcome", "rescued")
    viewer.until(
        "return document.querySelectorAll('.row').length && document.querySelector('#count').textContent.includes('of')"
    )
    child = next(t for t in run[0] if t.lineage)
    parent = next(t for t in run[0] if t.id == child.lineage.parent)
    for trace, other in ((child, parent), (parent, child)):
        viewer.show(trace)
        viewer.until("return document.querySelector('.pair')")
        heads = [node.get_attribute("title") for node in viewer.all(".pair h4")]
        assert heads == [trace.id, other.id]
        firsts = [
            column.find_element(By.CSS_SELECTOR, ".t").get_attribute("data-i") for column in viewer.all(".pair > div")
        ]
        assert firsts == [str(child.lineage.at)] * 2
        assert f"the first {child.lineage.at} tokens are the same" in viewer.one(".fork").text
    viewer.show(child)
    assert "spike: entropy 0.91, chosen counterfactual" in viewer.one(".flag").text
    viewer.choose("beside", "-1")
    viewer.until(f"return document.querySelectorAll('.reader > :not(.pair) .t').length == {len(child)}")
    assert not viewer.all(".pair")


# -- finding a trace ---------------------------------------------------------------------------------------------------


def ids_shown(viewer) -> list[str]:
    return [node.text for node in viewer.all(".row .name")]


def test_filters_orders_and_search(viewer, path, run):
    traces, problems = run
    viewer.open(path)
    texts = [f"{t.id}\n{problems[t.problem].prompt}\n{cases.graphs.decode(t.ids)}\n{t.answer}" for t in traces]
    needle = cases.graphs.decode(traces[40].ids)[3:14]
    viewer.one("#query").send_keys(needle)
    expected = [t.id for t, text in zip(traces, texts, strict=True) if needle in text]
    viewer.until(f"return document.querySelector('#count').textContent.startsWith('{len(expected)} of')")
    assert ids_shown(viewer) == expected[: len(ids_shown(viewer))]
    assert viewer.one(".row mark").text == needle

    viewer.all(".row")[0].click()
    viewer.until(f"return document.querySelector('#open-title').textContent === {expected[0]!r}")
    viewer.until("return document.querySelector('.reader .t.hit')")
    assert needle in "".join(node.text for node in viewer.all(".reader .t.hit"))

    viewer.one("#query").clear()
    viewer.one("#query").send_keys(" ", Keys.BACKSPACE)
    viewer.until(f"return document.querySelector('#count').textContent === '{len(traces)} traces'")
    for order, key, wanted in (
        ("longest", lambda t: -len(t), traces),
        ("early", lambda t: t.onset, [t for t in traces if t.onset >= 0]),
        ("unsure", lambda t: -round(float(t.signals.entropy.mean()), 4), traces),
    ):
        viewer.choose("sort", order)
        first = min(wanted, key=key).id
        viewer.until(f"return document.querySelector('.row .name').textContent === {first!r}")
    slips = [t for t in traces if t.correct and t.onset >= 0]
    viewer.choose("sort", "collected")
    viewer.choose("outcome", "slips")
    viewer.until(f"return document.querySelector('#count').textContent.startsWith('{len(slips)} of')")
    assert ids_shown(viewer)[0] == slips[0].id


def test_keys(viewer, path, run):
    viewer.open(path)
    viewer.show(run[0][3])
    viewer.press("j")
    viewer.until(f"return document.querySelector('#open-title').textContent === {run[0][4].id!r}")
    viewer.press("k", "k")
    viewer.until(f"return document.querySelector('#open-title').textContent === {run[0][2].id!r}")
    assert viewer.js("return decodeURIComponent(location.hash)") == f"#trace={run[0][2].id}"
    viewer.press("/")
    assert viewer.js("return document.activeElement.id") == "query"
    viewer.press("j", Keys.ESCAPE, Keys.ESCAPE)  # a letter there is a letter; then it is gone, then the field is left
    assert viewer.one("#query").get_attribute("value") == ""
    assert viewer.js("return document.activeElement.id") != "query"
    viewer.press(Keys.ESCAPE)
    viewer.until("return document.querySelector('.detail .empty')")
    assert viewer.js("return location.hash") == ""


def test_a_link_opens_its_trace(viewer, path, run):
    trace = run[0][77]
    viewer.open(path, f"#trace={quote(trace.id, safe='')}")
    assert viewer.one("#open-title").text == trace.id
    row = viewer.one('.row[aria-selected="true"]')
    assert row.is_displayed()
    assert trace.id in row.text
    viewer.open(path, "#trace=%E0%A4%A")  # no valid text
    viewer.open(path, "#trace=nobody")
    assert viewer.one("#open-title")


# -- safety, sight -----------------------------------------------------------------------------------------------------


def test_markup_in_a_prompt_stays_text(viewer, tmp_path):
    nasty = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
    ids = test_html.np.arange(3, dtype=test_html.np.int32)
    trace = Trace(nasty, nasty, nasty, ids, ids, Signals.empty(3), nasty, nasty, answer=nasty, error=nasty)
    trace.strategy, trace.correct, trace.onset, trace.events = nasty, False, 1, [{"event": nasty, "at": 1}]
    problem = Problem(nasty, nasty, nasty, (1,), nasty, nasty)
    path = tmp_path / "r.html"
    write(
        path, traces=[trace], problems={nasty: problem}, meta={"title": nasty}, pieces=lambda _, ids: [nasty] * len(ids)
    )
    viewer.open(path)
    assert viewer.one(".prompt").text == nasty
    assert [node.text for node in viewer.all(".reader .t")] == [nasty] * 3
    ActionChains(viewer.driver).move_to_element(viewer.one(".reader .t")).perform()
    viewer.one("#query").send_keys("onerror")
    viewer.until("return document.querySelector('.row mark')")
    assert viewer.js("return window.pwned") is None
    assert viewer.all("img") == []


CONTRAST = """
const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = (colour) => { context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
                           return [...context.getImageData(0, 0, 1, 1).data]; };
const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] / 255 + below[i] * (1 - top[3] / 255));
const ground = (node) => { const layers = [];
  for (let n = node; n; n = n.parentElement) layers.unshift(rgba(getComputedStyle(n).backgroundColor));
  return layers.reduce((below, top) => over(top, below), rgba('Canvas')); };
const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
const worst = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || node.closest('script, style, option, noscript')) continue;
  if (!node.getClientRects().length) continue;
  const below = ground(node), text = over(rgba(getComputedStyle(node).color), below);
  const [a, b] = [light(text), light(below)], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  const name = `${node.tagName.toLowerCase()}.${node.className}`;
  worst.set(name, Math.min(worst.get(name) ?? 99, ratio));
}
return [...worst];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_looks(viewer, path, lost, scheme, width, tmp_path):
    """Every text stands out from its ground (WCAG AA), and nothing is wider than the window. Leaves pictures behind."""
    viewer.size(width)
    viewer.scheme(scheme)
    viewer.open(path)
    viewer.show(lost)
    shade = "document.querySelectorAll('.reader .t').forEach((t) => t.style.setProperty('--e', arguments[0]))"
    for value in ("100%", "50%"):
        viewer.js(shade, value)
        found = dict(viewer.js(CONTRAST))
        assert "span.t" in found
        assert "span.chip no" in found
        assert {name: round(ratio, 2) for name, ratio in found.items() if ratio < 4.5} == {}
    assert viewer.js("return document.documentElement.scrollWidth") <= width
    viewer.open(path, f"#trace={quote(lost.id, safe='')}")
    for name, selector in (("top", "header"), ("onset", "#onset"), ("traces", "#traces"), ("detail", "#detail")):
        viewer.js(f"document.querySelector('{selector}').scrollIntoView()")
        time.sleep(0.1)
        assert viewer.driver.save_screenshot(str(tmp_path / f"{scheme}-{width}-{name}.png"))


def test_charts_are_drawn_and_redrawn_in_the_dark(viewer, path):
    viewer.open(path)
    ink = "return ['onset', 'entropy'].map((n) => document.querySelector(`#chart-${n} canvas`).toDataURL().length)"
    assert min(viewer.js(ink)) > 5000
    before = viewer.js("return document.querySelector('#chart-onset canvas').toDataURL()")
    viewer.scheme("dark")
    viewer.until("return document.querySelectorAll('#chart-onset canvas').length === 1")
    viewer.until(f"return document.querySelector('#chart-onset canvas').toDataURL().length !== {len(before)}")
    viewer.size(700)
    viewer.until("return document.querySelector('#chart-onset canvas').clientWidth < 700")


def test_an_empty_report_opens(viewer, tmp_path):
    viewer.open(write(tmp_path / "r.html", traces=[], problems={}))
    assert viewer.one("#count").text == "0 traces"
    assert "no traces" in viewer.one(".detail").text


# -- size --------------------------------------------------------------------------------------------------------------


def test_five_thousand_traces(viewer, tmp_path):
    traces, problems = test_html.many(5000, 150)
    path = write(tmp_path / "r.html", traces=traces, problems=problems)
    assert viewer.open(path) < 5
    assert viewer.nodes() < 1500
    viewer.js("document.querySelector('#list').scrollTop = 1e9")
    viewer.until("return document.querySelector('.row:last-child .name').textContent === 'trace-4999'")
    assert viewer.nodes() < 1500
    viewer.all(".row")[-1].click()
    viewer.until("return document.querySelector('#open-title').textContent === 'trace-4999'")
    viewer.until("return document.querySelectorAll('.reader .t').length === 150")

    start = time.monotonic()
    viewer.one("#query").send_keys("trace-4321")
    viewer.until("return document.querySelector('#count').textContent === '1 of 5\\u202f000 traces'")
    assert time.monotonic() - start < 5
    assert viewer.driver.save_screenshot(str(tmp_path / "many.png"))


def test_a_hundred_thousand_tokens(viewer, tmp_path):
    trace, problem = cases.long_trace(100_000)
    assert trace.onset < 100
    pieces = cases.graphs.pieces(trace.ids)
    path = write(tmp_path / "r.html", traces=[trace], problems={problem.id: problem})
    assert viewer.open(path) < 5
    assert viewer.one(".reader .t.onset").get_attribute("data-i") == str(trace.onset)
    at_top = """const r = document.querySelector('.reader').getBoundingClientRect();
        return [...document.querySelectorAll('.reader .t')].filter((t) => t.getBoundingClientRect().top >= r.top)
          .slice(0, 5).map((t) => [Number(t.dataset.i), t.textContent])"""
    for share in (0.25, 0.5, 0.75, 1.0):
        viewer.js(f"const r = document.querySelector('.reader'); r.scrollTop = r.scrollHeight * {share}")
        viewer.until(f"return (() => {{ {at_top} }})().length", 5)
        seen = viewer.js(at_top)
        assert abs(seen[0][0] / len(trace) - share) < 0.1
        assert all(pieces[i] == text for i, text in seen)
        assert viewer.nodes() < 5000
    over = viewer.one(".spark .u-over")
    viewer.js("document.querySelector('.spark').scrollIntoView()")
    ActionChains(viewer.driver).move_to_element(over).click().perform()
    viewer.until("return document.querySelector('.t.cursor')")
    token = viewer.one(".t.cursor")
    assert abs(int(token.get_attribute("data-i")) - 50_000) < 1_000
    box, reader = token.rect, viewer.one(".reader").rect
    assert reader["y"] <= box["y"] <= reader["y"] + reader["height"]
    viewer.press("o")
    viewer.until("return document.querySelector('.t.onset.cursor')")
    assert viewer.driver.save_screenshot(str(tmp_path / "long.png"))
