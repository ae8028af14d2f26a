"""Each tutorial's notebook has the page's code, and its results without an error."""

import base64
import json
import re

import pytest

from tests import notebooks, pages

PAGES = sorted(notebooks.TUTORIALS.glob("*.md"))
# Bytes of a file that opens at once everywhere.
MOST = 1_000_000


def saved(page):
    return json.loads((notebooks.NOTEBOOKS / f"{page.stem}.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_says_and_runs_what_its_page_does(page):
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in saved(page)]
    assert found == notebooks.cells(page), f"{page.name} has changed: run make notebooks"
    # Apart from how cells are cut: every line that the page runs, in its order.
    own = [
        code.strip()
        for kind, code in found
        if kind == "code" and code != notebooks.SETUP and not code.startswith("Image(")
    ]
    expected = [code.strip() for _, code in pages.blocks(page)]
    assert [re.sub(r"^!", "", code, flags=re.MULTILINE) for code in own] == expected
    assert f"../notebooks/{page.stem}.ipynb" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_has_its_results(page):
    cells = [cell for cell in saved(page) if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert any("text/plain" in output.get("data", {}) or "text" in output for output in outputs)
    shown = [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]
    assert len(shown) == len(pages.pictures(page))
    assert all(picture.startswith(b"\x89PNG") for picture in shown)
    file = notebooks.NOTEBOOKS / f"{page.stem}.ipynb"
    assert file.stat().st_size < MOST
    # Nothing of the machine that ran it.
    assert not re.search(r"/(tmp|home|root|work)/", file.read_text(encoding="utf-8"))


def test_every_notebook_has_its_page():
    assert {file.stem for file in notebooks.NOTEBOOKS.glob("*.ipynb")} == {page.stem for page in PAGES}


def test_printed_lines_are_kept_as_a_terminal_leaves_them():
    printed = "\x1b[?25l\r\x1b[2K10%\r\x1b[2K100%\r\n\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1mdone\x1b[0m \r\n"
    assert notebooks.plain(printed) == "done\n"
    outputs = [{"output_type": "stream", "name": name, "text": name} for name in ("stdout", "stderr", "stdout")]
    assert notebooks.tidy(outputs) == [{"output_type": "stream", "name": "stdout", "text": "stdoutstdout"}]
