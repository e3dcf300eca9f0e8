"""The report in a real browser, which costs as much as a hundred other tests: CI runs them by `make slow-browser`."""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mathlete.problems import Problem
from mathlete.report import open_server, write_report
from mathlete.sampling.harvest import Harvest
from tests.conftest import Extras
from tests.recorded import EVIL, LONG_TEXTS, answers, list_shown, problem, record, six, train_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("lean")]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, lean: Extras) -> Path:
    """The report of a run of six problems, beside the run."""
    folder = record(tmp_path_factory.mktemp("report") / "base", six())
    return write_report([folder], out=folder / "report.html")


@pytest.fixture(scope="module")  # playwright keeps an event loop in this thread, in which others could run none
def browser_page() -> Iterator[Any]:
    """An empty page of a browser; a context of its own for each test would cost a third of a CPU second."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        page = chromium.new_context().new_page()
        page.set_default_timeout(20_000)
        yield page
        chromium.close()


@pytest.fixture
def open_report(browser_page: Any) -> Iterator[Callable[..., Any]]:
    """Opens a report; at the end there must have been no message, no error and no request but for the file itself."""
    page, opened, heard = browser_page, set[str](), list[str]()
    listeners: dict[str, Callable[[Any], None]] = {
        "console": lambda message: heard.append(f"console: {message.text}"),
        "pageerror": lambda error: heard.append(f"error: {error}"),
        "request": lambda request: None if request.url in opened else heard.append(request.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)

    def open_page(file: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        opened.add(file.as_uri())
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.goto(file.as_uri())
        page.wait_for_selector("#detail .trace")
        return page

    yield open_page
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert not heard


def test_the_live_page_shows_a_run_and_nothing_comes_alive(tmp_path: Path, browser_page: Any) -> None:
    folder, heard = record(tmp_path / "run", [(problem("a"), [{"answer": "9", "text": EVIL}])]), list[object]()
    # A context of its own: with it its connections end, for which the server waits.
    with open_server([folder]) as server, closing(browser_page.context.browser.new_context()) as context:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(error))
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        page.click("#runs .lasttrace summary")
        assert "<img src=x onerror=" in page.text_content("#runs pre")
        assert page.evaluate("window.alive") is None
        server.shutdown()
        thread.join()
    assert not heard


def test_filters_order_and_search_work(report: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(report)
    for name, ids in (
        ("wrong", ["wrong", "outvoted", "silent"]),
        ("outvoted", ["outvoted"]),
        ("close", ["close"]),
        ("fallback", ["silent"]),
        ("cut", ["capped"]),
        ("all", ["wrong", "outvoted", "silent", "sure", "close", "capped"]),
    ):
        page.click(f'#filters [data-filter="{name}"]')
        assert list_shown(page, count=len(ids)) == ids
        page.wait_for_selector(f"#detail h3:text-is('{ids[0]}')")  # the first of a filter is open
    page.select_option("#sort", "longest")
    page.wait_for_selector('#list > button:first-child[data-id="capped"]')
    page.fill("#search", "no box")
    assert list_shown(page, count=1) == ["silent"]
    assert "no box" in page.text_content('#list [data-id="silent"]')
    assert page.get_attribute("#chart-losses", "aria-label").startswith("Why problems were lost. Share of all problems")
    page.fill("#search", "needle")
    assert list_shown(page, count=0) == []
    page.check("#deep")
    assert list_shown(page, count=1) == ["silent"]
    page.click('#list [data-id="silent"]')
    assert page.text_content("#detail .trace mark") == "needle"


def test_the_reader_renders_maths_marks_the_box_and_folds_tools(report: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(report)
    page.click('#list [data-id="sure"]')
    page.wait_for_selector("#detail h3:text-is('sure')")
    assert page.locator("#detail .statement .katex").count() == 1
    assert page.locator("#detail .trace .katex").count() == 2
    assert page.locator("#detail .trace .box .katex").count() == 1
    folds = page.locator("#detail .trace details.tool")
    assert folds.evaluate_all("all => all.map(one => [one.open, one.querySelector('summary').textContent])") == [
        [False, "Python run, 1 line"],
        [False, "its output, 1 line"],
    ]
    folds.first.locator("summary").click()
    assert folds.first.locator("pre").is_visible()
    page.click('#list [data-id="outvoted"]')
    page.click("#detail .samples button:nth-child(4)")
    assert "sample 3: answer 9, right" in page.text_content("#detail")
    assert page.locator("#detail .votes .won").count() == 1


def test_another_run_is_read_at_the_same_problem(report: Path, tmp_path: Path, open_report: Callable[..., Any]) -> None:
    other = record(tmp_path / "tuned", [(one, answers("9", "9", "9", "9")) for one, _ in six()])
    page = open_report(write_report([report.parent, other], out=tmp_path / "report.html"))
    page.click('#list [data-id="wrong"]')
    page.wait_for_selector("#detail:has-text('voted: 7 (wrong)')")
    page.select_option("#run", "1")
    page.wait_for_selector("#detail:has-text('voted: 9 (right)')")
    assert page.locator("#list [aria-current]").get_attribute("data-id") == "wrong"
    page.click('#filters [data-filter="gained"]')
    assert list_shown(page, count=3) == ["wrong", "outvoted", "silent"]
    assert page.locator('#list [data-id="wrong"] .bar').count() == 2
    # Both runs' traces side by side, and a card's button to what was gained.
    page.click("#detail button:text-is('beside base')")
    page.wait_for_selector("#detail .side:nth-child(2) .trace")
    assert page.locator("#detail .side h4").all_text_contents() == ["tuned", "base"]
    left, right = (page.locator("#detail .side .trace").nth(side).bounding_box() for side in (0, 1))
    assert left["x"] + left["width"] < right["x"]
    page.select_option("#run", "0")
    page.click("#answers button:text-is('3 gained')")
    page.wait_for_selector('#filters [data-filter="gained"][aria-pressed="true"]')
    assert list_shown(page, count=3) == ["wrong", "outvoted", "silent"]
    assert page.input_value("#run") == "1"


def test_keys_links_and_charts_lead_to_problems(report: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(report)
    page.keyboard.press("j")
    page.wait_for_selector("#detail h3:text-is('outvoted')")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.wait_for_url("**#base/outvoted/0")
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("#search") == "jk"
    assert list_shown(page, count=0) == []
    page.evaluate("location.hash = '#base/outvoted/3'")
    page.wait_for_selector("#detail .note:has-text('sample 3: answer 9, right')")
    assert page.input_value("#search") == ""
    page.evaluate("location.hash = '#base/none of these'")
    place = """(() => { const chart = Chart.getChart("chart-votes"), bar = chart.getDatasetMeta(0).data[0];
        chart.canvas.scrollIntoView();
        const at = chart.canvas.getBoundingClientRect();
        return [at.x + bar.x, at.y + chart.chartArea.bottom - 5, content(chart)];
        function content(chart) { return chart.data.datasets[0].run; } })()"""
    x, y, run = page.evaluate(place)
    assert run == 0
    page.mouse.click(x, y)
    page.wait_for_selector("#detail h3:text-is('sure')")
    page.evaluate("document.getElementById('chart-losses').scrollIntoView()")
    place = """(() => { const chart = Chart.getChart("chart-losses"), at = chart.canvas.getBoundingClientRect();
        return [at.x + chart.chartArea.left + 3, at.y + chart.getDatasetMeta(0).data[0].y]; })()"""
    x, y = page.evaluate(place)
    page.mouse.click(x, y)
    page.wait_for_selector("#filters button:has-text('lost: right but outvoted')")
    assert list_shown(page, count=1) == ["outvoted"]


def test_problems_are_numbered_round_and_layers_named_apart(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    run = record(tmp_path / "run", [(problem(f"p{number}"), answers("9", "8")) for number in range(60)])
    page = open_report(write_report([run, train_run(tmp_path / "t")], out=tmp_path / "report.html"), width=390)
    ticks = 'Chart.getChart(document.querySelector("canvas[id^=chart-%s]")).scales.%s.ticks.map((tick) => tick.label)'
    assert page.evaluate(ticks % ("votes", "x")) == [*range(10, 61, 10)]
    assert page.evaluate(ticks % ("layers", "y")) == ["0.q_proj", "1.q_proj", "2.q_proj"]


def test_a_legend_of_many_runs_takes_no_height_from_the_plot(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    runs = [record(tmp_path / f"a-run-of-the-day-{name}", six()) for name in "abcdefgh"]
    heights = "Object.values(Chart.instances).map((one) => Math.round(one.chartArea.bottom - one.chartArea.top))"
    page = open_report(write_report(runs, out=tmp_path / "report.html"), width=390)
    assert min(page.evaluate(heights)) >= 120
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert min(page.evaluate(heights)) >= 100
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_the_span_with_loss_is_marked(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(write_report([train_run(tmp_path / "t")], out=tmp_path / "t" / "report.html"))
    text = page.text_content("#detail .trace .loss")
    assert text.startswith("loss from hereso")
    assert "Q?" not in text


def test_nothing_of_a_model_comes_alive(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    evil = Problem(id=EVIL, statement=EVIL, gold=EVIL, subset=EVIL)
    math = r"$\href{javascript:alive=4}{x}$ $\includegraphics{https://example.org/x.png}$ $\htmlStyle{color:red}{y}$"
    samples = [
        {
            "answer": EVIL,
            "text": EVIL + math + f"\n```python\n{EVIL}\n```\n" + "\ud800".encode("utf-8", "replace").decode(),
        }
    ]
    folder = record(tmp_path / "evil", [(evil, samples), (problem("tame"), answers("9"))])
    page = open_report(write_report([folder, train_run(tmp_path / "t")], out=tmp_path / "report.html"))
    assert page.evaluate("window.alive") is None
    assert page.locator("#reader img, #reader b > b, #facts img, #reader a, #reader script").count() == 0
    assert "<img src=x onerror=" in page.text_content("#detail .trace")
    assert "<img src=x onerror=" in page.text_content("#detail h3")
    page.select_option("#run", "1")
    page.click("#list button:has-text('left out')")
    page.wait_for_selector("#detail .trace:has-text('onerror')")
    assert page.evaluate("window.alive") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_switch(
    report: Path, open_report: Callable[..., Any], scheme: str
) -> None:
    page = open_report(report, scheme=scheme)
    colour = "getComputedStyle(document.body).backgroundColor"
    shades = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    assert page.evaluate(colour) == shades[scheme]
    page.click("#theme")
    assert page.evaluate(colour) == shades["dark" if scheme == "light" else "light"]


def test_a_phone_needs_no_sideways_scrolling(report: Path, open_report: Callable[..., Any]) -> None:
    page = open_report(report, width=360)
    assert page.evaluate("[document.documentElement.scrollWidth, scrollY]") == [360, 0]
    assert page.locator("canvas").evaluate_all("all => all.every(one => one.width > 200 && one.height > 100)")


def test_a_thousand_problems_load_in_three_seconds_from_twenty_megabytes(
    tmp_path: Path, open_report: Callable[..., Any]
) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(3000)]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(5000)]

    def sample() -> dict[str, Any]:
        answer = draw.choice(["9", "9", "7", "8", None])
        said = [f"{line} $x_{draw.randint(0, 9)} = {draw.random():.4f}$." for line in draw.choices(lines, k=60)]
        text = "\n".join([*said, "</think>", "" if answer is None else f"\\boxed{{{answer}}}"])
        return {"answer": answer, "text": text, "tokens": draw.randint(500, 8000), "seconds": draw.uniform(5, 90)}

    asked = [problem(f"p{number}", subset=f"level {number % 5}") for number in range(1000)]
    folder = record(tmp_path / "big", [(one, [sample() for _ in range(32)]) for one in asked])
    file = write_report([folder], out=folder / "report.html")
    assert file.stat().st_size <= 20_000_000
    tried = []
    for _ in range(3):
        started = time.monotonic()
        page = open_report(file)
        tried.append(time.monotonic() - started)
    seconds = min(tried)  # a busy machine is no fault of the page
    page.select_option("#sort", "order")
    page.wait_for_selector('#list > button:first-child[data-id="p0"]')
    assert list_shown(page, count="1,000")[:2] == ["p0", "p1"]
    assert page.locator("#list > button").count() == 101
    page.click('#list [data-id="p7"]')
    page.wait_for_selector("#detail h3:text-is('p7')")
    assert page.locator("#detail .samples button").count() == 32
    assert seconds <= 3, f"{file.stat().st_size} bytes in {seconds:.2f} s"


# ---- odd runs: endless traces, words without end, numbers that are none ----


@pytest.mark.parametrize("name", [*LONG_TEXTS])
def test_a_megabyte_in_one_trace_opens_in_two_seconds(
    tmp_path: Path, open_report: Callable[..., Any], name: str
) -> None:
    said = LONG_TEXTS[name]
    long = problem("long", statement=said)
    folder = record(tmp_path / "long", [(problem("short"), answers("9")), (long, [{"answer": "9", "text": said}])])
    page = open_report(write_report([folder], out=folder / "report.html"))
    # Measured in the page, to its first frame, and the best of three: a busy machine is no fault of the page.
    tried = []
    for _ in range(3):
        page.click('#list [data-id="short"]')
        page.wait_for_selector("#detail h3:text-is('short')")
        page.evaluate("""() => { window.began = performance.now();
            document.querySelector('#list [data-id="long"]').click(); }""")
        page.wait_for_selector("#detail h3:text-is('long')")
        tried.append(page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout("
                                   "() => done(performance.now() - window.began))))"))  # fmt: skip
    assert min(tried) <= 2000
    assert page.text_content("#detail .trace .more").startswith("show more: about ")


def test_a_long_trace_is_rendered_as_it_is_read_and_the_button_shows_the_rest(
    tmp_path: Path, open_report: Callable[..., Any]
) -> None:
    said = "".join(f"Step {number}: $x_{{{number}}}$.\n```python\nprint({number})\n```\n" for number in range(250))
    folder = record(tmp_path / "long", [(problem("long"), [{"answer": "9", "text": f"{said}The end."}])])
    page = open_report(write_report([folder], out=folder / "report.html"))
    first = page.locator("#detail .trace .katex").count()
    assert 30 < first < 200
    before = page.text_content("#detail .trace .more")
    page.dispatch_event("#detail .trace .more", "click")
    assert page.locator("#detail .trace .katex").count() > first
    assert page.text_content("#detail .trace .more") != before
    for _ in range(300):
        if not page.locator("#detail .trace .more").count():
            break
        # Scrolling to the button is enough.
        page.evaluate("document.querySelector('#detail .trace .more')?.scrollIntoView()")
        page.wait_for_timeout(50)
    assert page.locator("#detail .trace .katex").count() == 250
    assert page.locator("#detail .trace details").count() == 250
    assert page.text_content("#detail .trace").endswith("The end.")


ODD_WORDS = {
    "long": "9" * 1000,
    "longer": "x" * 20_000,
    "wide": "W" * 400 + "\u200b" + "漢" * 700,
    "NUL and control": "a\x00b\x07\x1b[31m\x7f\u2028\u202e",
    "half a character": "\ud83d and \udfff",
    "a name of JavaScript's": "__proto__",
    "markup": EVIL * 30,
    "dollars": "$" * 1001,
    "combining": "e" + "\u0301" * 1000,
}


@pytest.mark.parametrize("name", [*ODD_WORDS])
def test_odd_words_neither_widen_nor_break_the_page(tmp_path: Path, open_report: Callable[..., Any], name: str) -> None:
    word = ODD_WORDS[name]
    odd = Problem(id=word, statement=word, gold=word, subset=word)
    told = [{"answer": word, "text": f"{word}</think>{word}"}, {"answer": "7", "text": word}]
    folder = record(tmp_path / "odd", [(odd, told), (problem("tame"), answers("9", "9"))])
    file = write_report([folder], out=folder / "report.html")
    for width in (1280, 360):
        page = open_report(file, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.click("#detail .samples button:nth-child(2)")
        page.click('#list [data-id="tame"]')
        page.wait_for_selector("#detail h3:text-is('tame')")
        page.click("#list > button:first-child")
        page.wait_for_selector("#detail .sub")
        assert page.evaluate("document.documentElement.scrollWidth") == width


ODD_NUMBERS: list[dict[str, Any]] = [
    {"logprob_mean": float("-inf")},
    {"logprob_mean": float("nan"), "logprob_tail": float("nan")},
    {"seconds": 2.0**31, "logprob_mean": -1e300},
    {"tokens": 2**31, "seconds": 0.0},
    {"tokens": 0},
]


def test_numbers_that_are_none_do_not_break_the_reader(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    drawn = [
        (problem(f"p{place}"), [{"answer": "9", "text": "so", **odd}] * 2) for place, odd in enumerate(ODD_NUMBERS)
    ]
    folder = record(tmp_path / "odd", drawn)
    page = open_report(write_report([folder], out=folder / "report.html"))
    assert list_shown(page, count=len(drawn)) == [f"p{place}" for place in range(len(drawn))]
    for place in range(len(drawn)):
        page.click(f'#list [data-id="p{place}"]')
        page.wait_for_selector(f"#detail h3:text-is('p{place}')")
        assert page.text_content("#detail .trace") == "so"


def test_a_forced_answer_stands_behind_the_text_and_is_marked(tmp_path: Path, open_report: Callable[..., Any]) -> None:
    forced = Harvest(text="</think>\\boxed{9}" + EVIL, answer="9", tokens=2, finish="boxed", seconds=0.1)
    run = record(tmp_path / "run", [(problem("a"), [{"answer": None, "finish": "length", "harvest": forced}])])
    page = open_report(write_report([run], out=tmp_path / "report.html"))
    assert page.text_content("#detail .samples button") == "#0 –  · 40 · forced ✓ 9"
    assert "40 tokens, ended by length, 1 s; then forced: answer 9, right, 2 tok" in page.text_content("#detail")
    assert page.locator("#detail .trace .forced .box").count() == 1
    assert page.evaluate("window.alive") is None
