"""The page in a real browser, opened from disk: every part, missing parts, hostile texts, keys, phones, dark, print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.actions import choose, count_drawn, show_view, text_of
from tests.browser.browser import Page
from tests.browser.documents import make_document, make_run, write_page

Show = Callable[[dict[str, Any]], Page]

SECTIONS = ["summary", "curves", "hypotheses", "audit", "settings", "timeline", "notes"]
MARKUP = '<img src=x onerror="window.ran=1"><script>window.ran=1</script></script><script>window.ran=1</script>'
HOSTILE = [
    MARKUP,
    '" onmouseover="window.ran=1',
    "javascript:window.ran=1",
    "{{script}}",
    "a\u2028b\u2029c",
    "pay \u202e100\u202c to \u2066x",
    "null \0 bell \x07 escape \x1b[31m",
    "\ud800 alone",
    "word " * 200_000,
    "x" * 1_000_000,
]


def test_every_section_is_there_with_what_the_document_says(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run, notes=["Rarity is counted in all rows."]))
    assert page.evaluate("[...document.querySelectorAll('main > section')].map(each => each.id)") == SECTIONS
    assert page.evaluate("document.title") == "one"
    assert f"{run['metrics'][1]['curves'][0]['value'][-1]:.4f}" in text_of(page, ".headline-value")
    assert "google/mt5-small" in text_of(page, "#summary")
    assert "look at this" in text_of(page, "#audit")
    assert "preempted: SIGTERM" in text_of(page, "#timeline")
    assert "4 % of the hypotheses are cut" in text_of(page, "#timeline")
    assert text_of(page, "#notes li") == "Rarity is counted in all rows."


def test_the_summary_begins_with_why_a_run_is_in_its_state_and_what_to_do(show: Show) -> None:
    failed = {
        **make_run("one", seed=1),
        "state": "failed",
        "why": "rank 0: no room on the disk",
        "advice": "free some space",
    }
    page = show(make_document(failed))
    assert text_of(page, "#summary .notice") == "Failed: rank 0: no room on the disk\n\nWhat to do: free some space"
    assert page.evaluate("document.querySelector('#summary h2').nextElementSibling.matches('.notice')")
    stopped = {**make_run("two", seed=2), "state": "stopped", "why": "received SIGTERM"}
    page = show(make_document(failed, stopped, make_run("three", seed=3)))
    assert page.evaluate("[...document.querySelectorAll('.notice')].map(each => each.innerText.split('\\n')[0])") == [
        "one: failed: rank 0: no room on the disk",
        "two: stopped: received SIGTERM",
    ]


def test_settings_that_differ_come_first(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=2)))
    keys = page.evaluate(
        "[...document.querySelector('#settings table').querySelectorAll('tbody th')].map(each => each.innerText)"
    )
    assert keys == ["training.learning_rate", "seed"]
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=1)))
    assert "The runs have the same settings." in text_of(page, "#settings")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sets": [], "metrics": [], "best": None}, "Nothing has been evaluated yet."),
        ({"sets": []}, "No evaluation has written hypotheses yet."),
        ({"audit": None}, "The data of this run have not been audited."),
        ({"settings": []}, "The recipe of this run is not in the report."),
        ({"attempts": [], "warnings": []}, "No attempt is recorded."),
        ({"summary": [], "best": None}, "The run has recorded nothing yet."),
        ({"train": {"step": [], "columns": []}, "metrics": [], "marks": [], "sets": []}, "No step has been logged"),
    ],
)
def test_a_part_that_is_missing_has_a_sentence_in_its_place(show: Show, change: dict[str, Any], sentence: str) -> None:
    page = show(make_document({**make_run("one", seed=1), **change}))
    assert sentence in text_of(page, "main")


def test_a_run_of_which_only_the_name_is_known_is_shown(show: Show) -> None:
    page = show(make_document({"name": "empty"}))
    assert text_of(page, "h1") == "empty"
    assert page.evaluate("document.querySelectorAll('main > section').length") == len(SECTIONS)


def test_one_point_and_one_evaluation_are_drawn(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1, steps=[100], points=1)))
    assert "One step has been logged so far" in text_of(page, "#curves")
    assert page.evaluate("document.querySelectorAll('.chart canvas').length") == 8
    for title in ("Word accuracy", "Loss", "Learning rate"):
        assert count_drawn(page, title) > 20, title


def test_a_document_without_runs_says_so(browser: Page, tmp_path: Path) -> None:
    browser.call("Page.navigate", url=write_page(make_document(), folder=tmp_path).as_uri())
    browser.until("document.getElementById('loading')?.textContent === 'This report holds no run.'")


def test_without_scripts_or_unpacking_a_sentence_says_what_is_needed(browser: Page, tmp_path: Path) -> None:
    path = write_page(make_document(make_run("one", seed=1, rows=3)), folder=tmp_path)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=path.as_uri())
        browser.until("document.querySelector('noscript')?.innerText.includes('needs JavaScript') ?? false")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    hidden = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.DecompressionStream")[
        "identifier"
    ]
    try:
        browser.call("Page.navigate", url=path.as_uri())
        browser.until("document.getElementById('loading')?.textContent.includes('DecompressionStream') ?? false")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=hidden)


def make_hostile() -> dict[str, Any]:
    run = make_run(MARKUP, seed=1, rows=len(HOSTILE))
    text = (
        json.dumps(run)
        .replace("preempted", json.dumps(MARKUP)[1:-1])
        .replace("google/mt5-small", json.dumps(MARKUP)[1:-1])
    )
    run = json.loads(
        text.replace("evaluation of step", json.dumps(MARKUP)[1:-1]).replace(
            "rows that repeat", json.dumps(MARKUP)[1:-1]
        )
    )
    rows = run["sets"][0]
    rows["rows"].update(source=HOSTILE, reference=[[text] for text in HOSTILE], group=HOSTILE, id=HOSTILE)
    rows["hypotheses"] = [[text] * 5 + [text + " more"] for text in HOSTILE]
    run["settings"] = [[MARKUP, text] for text in HOSTILE[:8]]
    run.update(why=MARKUP, advice=MARKUP)
    return run


def test_hostile_texts_are_shown_and_never_run(show: Show) -> None:
    page = show(make_document(make_hostile(), damage=HOSTILE[:8], notes=HOSTILE[:8]))
    for name in ("Scores by kind of row", "N-grams", "Rows"):
        show_view(page, name)
    assert page.evaluate("window.ran === undefined")
    assert (
        page.evaluate(
            "document.querySelectorAll('img, iframe, object, main script, main style, a[href^=javascript]').length"
        )
        == 0
    )
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    attributes = "[...document.querySelectorAll('*')].flatMap(each => [...each.attributes])"
    assert page.evaluate(f"{attributes}.filter(each => each.name.startsWith('on')).length") == 0
    assert MARKUP in page.evaluate("document.querySelector('#hypotheses').textContent")
    text = page.evaluate("document.body.textContent")
    assert [code for code in "\u202e\u202c\u2066\u2028\u2029\0\x07\x1b" if code in text] == []
    for code in ("U+202E", "U+2066", "U+2028", "U+0000", "U+001B", "U+D800"):
        assert code in text


def test_the_policy_stops_what_would_run_if_it_were_inserted(show: Show, browser: Page) -> None:
    page = show(make_document(make_run("one", seed=1, rows=3)))
    tries = [
        "document.body.innerHTML += '<img src=x onerror=\"window.ran=1\">'",
        "document.body.appendChild(Object.assign(document.createElement('script'), {textContent: 'window.ran=1'}))",
        "document.body.setAttribute('onclick', 'window.ran=1'); document.body.click()",
        "fetch('data:text/plain,x')",
    ]
    for each in tries:
        page.evaluate(f"(async () => {{ try {{ {each} }} catch {{}} }})()")
    page.frame()
    assert page.evaluate("window.ran === undefined")
    browser.events.clear()  # the broken rules are the point here


def test_a_long_text_begins_with_its_start_and_is_shown_whole_when_asked_for(show: Show) -> None:
    run = make_run("one", seed=1, rows=1)
    run["sets"][0]["hypotheses"] = [["word " * 200_000] * 6]
    page = show(make_document(run))
    length = "[...document.querySelectorAll('.rows dd')].at(-1).textContent.length"
    assert page.evaluate(length) < 2000
    page.evaluate("[...document.querySelectorAll('.rows dd')].at(-1).querySelector('button').click()")
    assert page.evaluate(length) == 1_000_000


def test_dark_follows_the_system_and_the_switch_overrules_it(show: Show, browser: Page) -> None:
    browser.prefer("dark")
    page = show(make_document(make_run("one", seed=1)))
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    assert count_drawn(page, "Loss") > 100
    choose(page, "Colours", "Light")
    light = page.evaluate(background)
    assert count_drawn(page, "Loss") > 100  # `wanted` is the colour of the theme, so that the chart has changed too
    assert brightness(light) > 230
    assert brightness(dark) < 40
    choose(page, "Colours", "As the system")
    assert page.evaluate(background) == dark
    page.prefer("light")
    page.frame()
    assert page.evaluate(background) == light


def brightness(colour: str) -> float:
    red, green, blue = (float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_stand_out_from_their_background(show: Show, browser: Page, theme: str) -> None:
    browser.prefer(theme)
    page = show(make_document(make_run("one", seed=1, rows=3)))
    for name, least in {
        "ink": 7.0,
        "soft": 4.5,
        "accent": 4.5,
        "better": 4.5,
        "worse": 4.5,
        **{f"series-{place}": 3.0 for place in range(6)},
    }.items():
        one, other = (luminance(page.evaluate(f"colour('{each}')")) for each in (name, "paper"))
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= least, name


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("runs", [1, 2])
def test_a_phone_scrolls_in_one_direction_only(show: Show, browser: Page, runs: int) -> None:
    browser.size(390, 844, is_phone=True)
    page = show(make_document(*[make_run(f"a run with a long name {place}", seed=place + 1) for place in range(runs)]))
    for name in ("Rows", "Scores by kind of row", "N-grams"):
        show_view(page, name)
        assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_menu_marks_the_section_that_is_read_and_shows_its_mark(show: Show, browser: Page, width: int) -> None:
    browser.size(width, 844, is_phone=width < 600)
    page = show(make_document(make_run("one", seed=1, rows=30)))
    marked = """(() => {
        const links = [...document.querySelectorAll('#contents a[aria-current]')];
        const {left, right} = links[0].getBoundingClientRect();
        return [links.map(link => link.hash.slice(1)).join(), left >= 0 && right <= innerWidth];
    })()"""
    assert page.evaluate(marked) == ["summary", True]
    for section in SECTIONS:
        page.evaluate(f"document.querySelector('#contents a[href=\"#{section}\"]').click()")
        page.frame()
        assert page.evaluate(marked) == [section, True]
    for section in SECTIONS[:4]:  # the others fit into a window together
        page.evaluate(f"scrollTo(0, document.getElementById('{section}').offsetTop + 100)")
        page.frame()
        assert page.evaluate(marked) == [section, True]
    page.evaluate("scrollTo(0, 1e9)")
    page.frame()
    assert page.evaluate(marked) == ["notes", True]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_table_that_is_cut_off_has_a_shadow_there_and_scrolls_by_keys(
    show: Show, browser: Page, tmp_path: Path, theme: str
) -> None:
    browser.prefer(theme)
    browser.size(390, 844, is_phone=True)
    run = make_run("one", seed=1, rows=3)
    for evaluation in run["sets"][0]["evaluations"]:
        more = [{"name": f"score_{number}", "label": f"Score {number}", "value": 0.5} for number in range(8)]
        evaluation["scores"] += more
    page = show(make_document(run))
    table = "document.querySelector('.scores')"
    page.evaluate(f"{table}.scrollIntoView({{block: 'center', behavior: 'instant'}})")

    def shades() -> tuple[bool, bool]:
        """Whether there is a shadow at the left and at the right, in the middle between two lines of the table."""
        page.frame()
        box = page.evaluate(f"{table}.getBoundingClientRect().toJSON()")
        page.screenshot(tmp_path / "page.png")
        picture = Image.open(tmp_path / "page.png").convert("L")
        row = int(box["bottom"]) - 6
        paper = picture.getpixel((2, row))
        edges = (int(box["left"]) + 1, int(box["right"]) - 2)
        left, right = (abs(picture.getpixel((x, row)) - paper) > 15 for x in edges)
        return left, right

    assert shades() == (False, True)
    page.evaluate(f"{table}.focus()")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Scores on evaluation"
    page.press("ArrowRight", times=2)
    page.until(f"{table}.scrollLeft > 0")
    page.evaluate(f"{table}.scrollLeft = 60")
    assert shades() == (True, True)
    page.evaluate(f"{table}.scrollLeft = 1e6")
    assert shades() == (True, False)


def test_keys_alone_reach_and_use_everything(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=2)))
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen: list[list[Any]] = []
    for _ in range(400):
        page.press("Tab")
        seen.append(page.evaluate(FOCUSED))
        if seen[-1][0] == "BODY":
            break
    reached = {tuple(each[:2]) for each in seen}
    wanted = page.evaluate(
        """[...document.querySelectorAll('main button, main select, main input, main summary, main .plot')]
            .filter(each => each.checkVisibility() && !each.disabled && each.tabIndex >= 0).length"""
    )
    assert sum(each[3] for each in seen) == wanted
    assert {name for _, name in reached} >= {"Log scale", "Next", "Rows"}
    assert all(each[2] for each in seen if each[0] != "BODY"), "the focus is seen everywhere"


FOCUSED = """(() => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const isSeen = style.outlineStyle !== 'none' && style.outlineWidth !== '0px';
    const isControl = element.matches('main button, main select, main input, main summary, main .plot');
    return [element.tagName, element.textContent.trim().slice(0, 40), isSeen, isControl];
})()"""


def test_tabs_turn_with_arrows_and_every_field_has_a_name(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    page.evaluate("document.querySelector('[role=tab][aria-selected=true]').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "Scores by kind of row"
    assert "By length of the reference" in text_of(page, "[role=tabpanel]")
    fields = "[...document.querySelectorAll('select, input, button')]"
    nameless = f"{fields}.filter(each => !(each.labels?.length || each.textContent.trim())).length"
    assert page.evaluate(nameless) == 0
    assert (
        page.evaluate("[...document.querySelectorAll('table')].filter(each => !each.caption?.textContent).length") == 0
    )
    assert page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map(each => each.id)).size === document.querySelectorAll('[id]').length"
    )


def test_paper_is_light_and_has_no_controls(show: Show, browser: Page) -> None:
    browser.prefer("dark")
    page = show(make_document(make_run("one", seed=1)))
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 230
    page.call("Emulation.setEmulatedMedia", media="print")
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.controls, #contents')].filter(each => each.checkVisibility()).length"
        )
        == 0
    )
    page.call("Emulation.setEmulatedMedia", media="")
    page.prefer("dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 40
