"""The tutorials as notebooks: their prose, their code and what it prints, from the pages, which stay the one source.

`make notebooks` runs `python -m tests.notebooks`, with the names of pages to make only those.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

from tests import pages

TUTORIALS, NOTEBOOKS = pages.DOCS / "tutorials", pages.DOCS / "notebooks"
# What a page takes for granted: a folder for its pictures, libraries' warnings left out. All results are shown, not the
# last of a cell alone.
SETUP = """\
import warnings
from pathlib import Path

from IPython.display import Image

from pelton.engine.errors import ConvergenceWarning

%config InteractiveShell.ast_node_interactivity = "all"
Path("pictures").mkdir(exist_ok=True)
warnings.simplefilter("ignore", ConvergenceWarning)
warnings.filterwarnings("ignore", module="arviz|matplotlib|xarray")"""
_PART = re.compile(rf"{pages.BLOCK.pattern}|(?P<picture>{pages.PICTURE.pattern})", re.DOTALL)
_LINK = re.compile(r"\]\((?!\.\.|https?:|#)([^)]+)\)")
_DOWNLOAD = re.compile(r"^\[Download this page as a notebook\].*\n+", re.MULTILINE)
# Longer results are for the reader's own screen.
MOST = 20_000
TIME = 3600


def cells(page):
    """("markdown" or "code", text) of each cell that a page becomes."""
    text = _DOWNLOAD.sub("", page.read_text(encoding="utf-8"))
    found, at = [], 0

    def prose(until):
        words = _LINK.sub(r"](../tutorials/\1)", text[at:until]).strip()
        if words:
            found.append(("markdown", words))

    for match in _PART.finditer(text):
        elsewhere, _, kind, code, hidden = match.groups()[:5]
        if elsewhere:
            continue
        prose(match.start())
        at = match.end()
        if match["picture"]:
            words, path = pages.PICTURE.fullmatch(match["picture"]).groups()
            found.append(("code", f"Image({path.removeprefix('../')!r}, width=800, alt={words!r})"))
        else:
            found.append(("code", _commands(code) if kind == "sh" else (code or hidden).strip()))
    prose(len(text))
    first = 1 if found[0][0] == "markdown" else 0
    return [*found[:first], ("code", SETUP), *found[first:]]


def _commands(code):
    """A shell block as a cell: an exclamation mark before each command, none before what continues it."""
    lines = code.strip().splitlines()
    goes_on = [False, *(line.endswith("\\") for line in lines)]
    return "\n".join(line if on else f"!{line}" for line, on in zip(lines, goes_on, strict=False))


def make(page):
    """Runs a page as a notebook and writes it, with its results, to docs/notebooks/."""
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, (kind, text) in enumerate(cells(page)):
        new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        made.cells.append(new(text, id=f"{page.stem}-{number}"))
    # Pictures are shown from their files; the commands are those of this environment.
    os.environ.update(MPLBACKEND="agg", COLUMNS="110", JAX_PLATFORMS="cpu", NO_COLOR="1")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(made, timeout=TIME, kernel_name="python3", record_timing=False, resources=where).execute()
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    # Of the language its name says enough: versions would change with the machine.
    made.metadata["language_info"] = {"name": "python"}
    NOTEBOOKS.mkdir(exist_ok=True)
    nbformat.validate(made)
    text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
    (NOTEBOOKS / f"{page.stem}.ipynb").write_text(text + "\n", encoding="utf-8")


def tidy(outputs):
    """Results as they are kept: what was printed as a terminal leaves it, the others without forms too long to read."""
    printed = "".join("".join(one["text"]) for one in outputs if one.get("name") == "stdout")
    kept = [one for one in outputs if one["output_type"] != "stream"]
    for one in kept:
        if "data" in one:
            found = one["data"].items()
            one["data"] = {form: value for form, value in found if form == "image/png" or len(value) < MOST}
    return [{"output_type": "stream", "name": "stdout", "text": plain(printed)}, *kept] if printed.strip() else kept


def plain(text):
    r"""What a terminal shows in the end: no colours, no line that was written over or taken back.

    >>> plain("10%\r20%\r\n\x1b[1A\x1b[2K\x1b[1mdone\x1b[0m \r\n")
    'done\n'
    """
    text = text.replace("\r\n", "\n")
    text = re.sub(r"[^\n]*\n[^\n]*\x1b\[1A\x1b\[2K", "", text)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "\n".join(line.rpartition("\r")[2].rstrip() for line in text.split("\n"))


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(page.stem for page in TUTORIALS.glob("*.md")):
        print(name, flush=True)
        make(TUTORIALS / f"{name}.md")
