"""The report in headless Chromium: opens, sorts, searches and pages 100,000 units, without the network."""

import html
import json
import re
import shutil
import subprocess

import pytest

from pelton.report.html import MAX_UNITS, embedded

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

PROBE = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table[data-name=units]"), section = table.closest("section");
  const input = section.querySelector("input"), heads = table.querySelectorAll(".sort");
  const first = () => table.tBodies[0].rows[0].cells[0].textContent;
  const state = () => section.querySelector("[role=status]").textContent;
  const found = { opened: performance.now(), rows: table.tBodies[0].rows.length, state: state() };
  let before = performance.now();
  heads[1].click();
  found.sorting = performance.now() - before;
  found.most = first();
  heads[1].click();
  found.least = first();
  input.value = "SHOP 77 <";
  before = performance.now();
  input.dispatchEvent(new Event("input"));
  found.searching = performance.now() - before;
  found.found = first();
  found.matches = table.tBodies[0].rows.length;
  input.value = "";
  input.dispatchEvent(new Event("input"));
  [...section.querySelectorAll("button")].find((button) => button.textContent === "Next").click();
  found.turned = state();
  found.markup = table.querySelector("bdi b, bdi script") !== null;
  found.focus = [...table.querySelectorAll("thead button")].every((button) => button.tabIndex === 0);
  const probe = { id: "probe", textContent: JSON.stringify(found) };
  document.body.append(Object.assign(document.createElement("pre"), probe));
});
</script>"""


def opened(page, tmp_path):
    """What the probe found in the page."""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    # Nothing may be fetched: no name resolves.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.long
def test_100000_units_open_in_three_seconds(simulated, tmp_path):
    from pelton.report.write import write_report

    tree = simulated(300, names=[f"shop {i} <b>" for i in range(300)])
    write_report(tree, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # The same page with as many rows as the table takes: the text of a row is what a browser sees of a unit.
    rows = json.loads(re.search(r'id="units-rows">(.*?)</script>', page, re.DOTALL).group(1))
    many = [[f"shop {i} <b>", f"{i:,}", *rows[i % 300][2:]] for i in range(100_000)]
    page = page.replace(str(embedded(rows)), str(embedded(many))).replace('data-total="300"', 'data-total="100000"')
    found = opened(page, tmp_path)
    assert found["opened"] < 3000
    assert found["sorting"] < 3000
    assert found["searching"] < 1000
    assert found["rows"] == MAX_UNITS
    assert found["state"] == "1 to 200 of 100,000"
    assert (found["most"], found["least"]) == ("shop 99999 <b>", "shop 0 <b>")
    assert (found["found"], found["matches"]) == ("shop 77 <b>", 1)
    assert found["turned"] == "201 to 400 of 100,000"
    assert found["markup"] is False
    assert found["focus"] is True


def test_names_cannot_end_the_script():
    rows = [["</script><script>alert(1)</script>", "1"], ["<!--", "2"], ["ü—'\"", "3"]]
    text = str(embedded(rows))
    assert "<" not in text
    assert json.loads(text) == rows
