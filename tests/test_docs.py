"""Every page of docs/ runs as it stands, and makes the pictures that it shows.

PELTON_WRITE_PICTURES=1 puts the pictures in docs/: `make pictures`.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests import pages

PAGES = sorted(page.relative_to(pages.DOCS).as_posix() for page in pages.DOCS.rglob("*.md") if pages.blocks(page))
MADE = "pictures/"


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_page_runs(name, tmp_path, monkeypatch):
    page = pages.DOCS / name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    Path("pictures").mkdir()
    pages.run(page)
    shown = [Path(os.path.normpath(page.relative_to(pages.DOCS).parent / path)) for _, path in pages.pictures(page)]
    for path in shown:
        if path.as_posix().startswith(MADE):
            assert Path(path).is_file(), f"{name} shows {path} and its code does not make it"
            if os.environ.get("PELTON_WRITE_PICTURES"):
                (pages.DOCS / path).parent.mkdir(exist_ok=True)
                shutil.copy(path, pages.DOCS / path)


def test_every_block_is_run():
    """Here, or by the test that the page names."""
    for page in pages.DOCS.rglob("*.md"):
        name = page.relative_to(pages.DOCS).as_posix()
        for file, _ in pages.elsewhere(page):
            assert f'pages.blocks_for(__file__, "{name}")' in (pages.ROOT / file).read_text(encoding="utf-8"), name
        fences = re.findall(r"^```(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        run = len(pages.elsewhere(page)) + len(pages.blocks(page, hidden=False))
        assert run == len([kind for kind in fences if kind != "text"]), name


@pytest.mark.parametrize("page", sorted(pages.DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_pictures_are_there_and_described(page):
    pages.alternatives(page)
    for _, path in pages.pictures(page):
        assert (page.parent / path).is_file(), f"{page.name} shows {path}, which is not in docs/"


def test_every_page_is_in_the_menu():
    menu = (pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in pages.DOCS.rglob("*.md"):
        assert page.relative_to(pages.DOCS).as_posix() in menu, page


def test_every_public_name_is_on_the_page_of_the_api():
    import pelton

    text = (pages.DOCS / "api.md").read_text(encoding="utf-8")
    owners = {**pelton._PUBLIC, **pelton._MODULES}
    for name in pelton.__all__:
        assert re.search(rf"^::: {re.escape(owners[name])}(\.{name})?$", text, re.MULTILINE), name
