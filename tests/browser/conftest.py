"""The browser of the tests, started once; without one a reason, or a failure where one is required."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.browser import NAMES, Page, find_browser, start_browser
from tests.browser.documents import write_page

REQUIRED = "DSTRAIN_BROWSER_REQUIRED"
"""If set, the tests fail instead of being skipped where no browser is installed."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a headless browser."""
    if not find_browser():
        reason = f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}; {REQUIRED} is set")
        pytest.skip(reason)
    with start_browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def show(browser: Page, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Page]]:
    """Opens the report of a document in a window of ordinary size; the page must not complain until the end of the test."""

    def show_document(document: dict[str, Any]) -> Page:
        browser.open(write_page(document, folder=tmp_path))
        return browser

    browser.size(1280, 900)
    browser.prefer("light")
    yield show_document
    assert browser.complaints() == []
