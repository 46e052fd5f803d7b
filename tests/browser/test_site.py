"""The documentation site in a browser, from the disk: nothing is wider than the screen or comes from another host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAGES = [
    "index.html",
    "tutorial/tutorial.html",
    "how-to/trust.html",
    "reference/commands/explain.html",
    "reference/python.html",
    "explanation/related.html",
    "design/0003-generator.html",
    "evaluation.html",
    "coverage.html",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=repository,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=600,
    )
    return folder


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_the_screen(site: Path, watched: Any, width: int) -> None:
    opened = watched(width=width)
    for name in PAGES:
        page = opened.open(site / name)
        assert page.locator("article h1").first.is_visible(), name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_the_way_from_the_home_page_to_an_option(site: Path, watched: Any) -> None:
    page = watched(width=1440).open(site / "index.html")
    page.locator("nav.md-tabs").get_by_text("Reference").click()
    page.locator("article").get_by_role("link", name="Commands", exact=True).click()
    page.locator("article").get_by_role("link", name="fsagn-onnx explain", exact=True).click()
    page.locator("article td", has_text="--measure").first.wait_for(state="visible")
    assert page.locator("article h1").inner_text().startswith("fsagn-onnx explain")
