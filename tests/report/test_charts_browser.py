"""Interactive charts in headless Chromium: they answer pointer and keys, leave paper to the pictures, fetch nothing."""

import pytest

from pelton.report import write_report
from pelton.report.charts import literal
from tests.report.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HOSTILE = [
    "<b>bold</b>",
    "</script><script>window.evil = 1</script>",
    "a & b &lt;",
    "%{x} $x^2$",
    "#ffffff",
    "tab\tname",
]
CHARTS = "[...document.querySelectorAll('figure[data-title]')]"
FIRST = "document.querySelector('figure[data-title] .plot')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def report(simulated, tmp_path):
    names = HOSTILE + [f"shop {i}" for i in range(14)]
    write_report(simulated(len(names), names=names), tmp_path)
    return tmp_path / "report.html"


def draw(browser, number=0):
    """Brings a chart into view and waits until it stands still."""
    browser.js(f"{CHARTS}[{number}].scrollIntoView()")
    browser.until(f"{CHARTS}[{number}].querySelector('.main-svg .hoverlayer') !== null")


def place(browser, number, curve, point):
    """Where on the screen a chart's trace has a point."""
    return browser.js(f"""(() => {{
      const plot = {CHARTS}[{number}].querySelector('.plot'), trace = plot._fullData[{curve}];
      const x = plot._fullLayout[trace.xaxis.replace('x', 'xaxis')];
      const y = plot._fullLayout[trace.yaxis.replace('y', 'yaxis')];
      const box = plot.getBoundingClientRect();
      return [box.x + x._offset + x.d2p(trace.x[{point}]), box.y + y._offset + y.d2p(trace.y[{point}])];
    }})()""")


def told(browser, number):
    """The curve that has words, and what they are, as the reader sees them."""
    return browser.js(f"""(() => {{
      const data = {CHARTS}[{number}].querySelector('.plot').data;
      const curve = data.findIndex((trace) => trace.hovertext);
      return [curve, data[curve].hovertext];
    }})()""")


def test_pointing_at_a_unit_says_its_name_its_interval_and_its_counts(browser, report):
    browser.show(report)
    draw(browser, 1)
    curve, words = told(browser, 1)
    for name in HOSTILE:
        shown = name.replace("\t", "\\t")
        escaped = literal(shown)
        point = next(at for at, text in enumerate(words) if text.startswith(escaped + "<br>"))
        browser.point(*place(browser, 1, curve, point))
        label = f"{CHARTS}[1].querySelector('.hoverlayer .nums')"
        browser.until(f"{label} && {label}.textContent.startsWith({shown!r})")
        assert "94% interval" in browser.js(f"{label}.textContent")
        assert browser.js(f"{label}.querySelectorAll('a, b, script').length") == 0
    assert browser.js("window.evil") is None


def test_keys_go_from_point_to_point_and_zoom(browser, report):
    browser.show(report)
    draw(browser)
    said = f"{CHARTS}[0].querySelector('[role=status]').textContent"
    browser.js(f"{FIRST}.focus()")
    browser.press("ArrowRight")
    first = browser.until(said)
    assert first.startswith("pooled against raw. ")
    browser.press("ArrowRight")
    assert browser.js(said) not in ("", first)
    browser.press("PageDown")
    assert browser.js(said).startswith("how far pooling moves a unit. ")
    assert browser.js(f"{CHARTS}[0].querySelector('.hoverlayer .nums') !== null")
    browser.press("Escape")
    assert browser.js(said) == ""
    ends = f"{FIRST}._fullLayout.xaxis.range"
    whole = browser.js(ends)
    browser.press("+")
    near = browser.until(f"{ends}[0] > {whole[0]} && {ends}")
    assert near[1] < whole[1]
    browser.press("0")
    browser.until(f"Math.abs({ends}[0] - {whole[0]}) < 1e-9")
    assert len(browser.js(f"{FIRST}.getAttribute('aria-label')")) > 40
    assert browser.js(f"{FIRST}.tabIndex") == 0


def test_paper_shows_the_pictures(browser, report):
    def displayed():
        looks = f"{CHARTS}.map((one) => ['img', '.live'].map((part) => one.querySelector(part)).map("
        return browser.js(looks + "(part) => part && getComputedStyle(part).display !== 'none'))")

    browser.show(report, height=4000)
    browser.until(f"{CHARTS}.every((one) => one.querySelector('.main-svg'))")
    assert displayed() == [[False, True]] * 2
    browser.media(kind="print")
    assert displayed() == [[True, False]] * 2


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser, report):
    browser.requests.clear()
    browser.complaints.clear()
    browser.show(report, height=4000)
    browser.until(f"{CHARTS}.every((one) => one.querySelector('.main-svg'))")
    assert {address.partition(":")[0] for address in browser.requests} == {"file", "data"}
    assert [address for address in browser.requests if address.startswith("file:")] == [report.as_uri()]
    assert browser.complaints == []
    # The page's policy: its scripts cannot fetch, and no text becomes a script.
    assert browser.js("(() => { try { return eval('1') } catch (error) { return error.name } })()") == "EvalError"
    assert browser.js("fetch('data:text/plain,x').then(() => 'came', () => 'refused')") == "refused"


def test_colours_follow_the_theme(browser, report):
    from pelton.report.canvas import DARK, LIGHT

    browser.show(report)
    draw(browser, 1)
    dots = f"{CHARTS}[1].querySelector('.plot').data.map((trace) => trace.marker && trace.marker.color)"
    assert LIGHT["pooled"] in browser.js(dots)
    browser.media("dark")
    browser.until(f"{dots}.includes({DARK['pooled']!r})")
    assert LIGHT["pooled"] not in browser.js(dots)
    # A unit that is called like a colour keeps its name.
    assert "#ffffff" in browser.js(f"{CHARTS}[1].querySelector('.plot').layout.yaxis.ticktext")


def test_on_a_phone_panels_stand_one_below_the_other_within_its_width(browser, report):
    browser.show(report, width=390)
    draw(browser)
    upper, lower, across = (browser.js(f"{FIRST}._fullLayout.{name}.domain") for name in ("yaxis", "yaxis2", "xaxis2"))
    assert upper[0] > lower[1]
    assert across == [0, 1]
    draw(browser, 1)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    assert browser.js(f"{CHARTS}.every((one) => one.scrollWidth <= one.clientWidth)")


def test_a_browser_that_cannot_unpack_keeps_the_pictures(browser, report):
    page = report.read_text(encoding="utf-8")
    report.write_text(
        page.replace("<body>", "<body><script>delete window.DecompressionStream</script>"), encoding="utf-8"
    )
    browser.show(report)
    browser.js(f"{CHARTS}[0].scrollIntoView()")
    picture = f"{CHARTS}[0].querySelector('img')"
    browser.until("document.getElementById('plotly') !== null && !document.querySelector('.drawn')")
    assert browser.js(f"getComputedStyle({picture}).display") == "block"
    assert browser.js("document.querySelector('.live')") is None
