"""What a reader does with a report, and what the reader sees, in a browser."""

from tests.browser.browser import Page


def text_of(page: Page, selector: str) -> str:
    text: str = page.evaluate(f"document.querySelector({selector!r}).innerText")
    return text


def choose(page: Page, label: str, text: str) -> None:
    """Choose the option of a field that begins with a text."""
    page.evaluate(
        f"""(() => {{
            const label = [...document.querySelectorAll('label')].find(each => each.textContent === {label!r});
            const select = document.getElementById(label.htmlFor);
            select.value = [...select.options].find(each => each.textContent.startsWith({text!r})).value;
            select.dispatchEvent(new Event('change', {{bubbles: true}}));
        }})()"""
    )
    page.frame()


def click(page: Page, text: str) -> None:
    """Click the button or tab that says this."""
    page.evaluate(
        f"[...document.querySelectorAll('button')].find(each => each.textContent.trim() === {text!r}).click()"
    )
    page.frame()


def show_view(page: Page, name: str) -> None:
    """Choose a view of the hypotheses, and wait until nothing is being counted."""
    click(page, name)
    page.until("!document.querySelector('[role=tabpanel]').innerText.includes('Counting')")


def chart(title: str) -> str:
    """The chart with this title, as an expression."""
    return f"([...document.querySelectorAll('.chart')].find(each => each.querySelector('h4').textContent.startsWith({title!r})))"


def count_pixels(page: Page, title: str, condition: str) -> int:
    """How many pixels of a chart fulfil a condition on red, green, blue and alpha; `wanted` is the first curve's colour."""
    number: int = page.evaluate(
        f"""(() => {{
            const canvas = {chart(title)}.querySelector('canvas');
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {{willReadFrequently: true}});
            copy.drawImage(canvas, 0, 0);
            const {{data}} = copy.getImageData(0, 0, canvas.width, canvas.height);
            const wanted = [1, 3, 5].map(at => parseInt(colour('series-0').slice(at, at + 2), 16));
            let found = 0;
            for (let at = 0; at < data.length; at += 4) {{
                const [red, green, blue, alpha] = data.subarray(at, at + 4);
                if ({condition}) found += 1;
            }}
            return found;
        }})()"""
    )
    return number


def count_drawn(page: Page, title: str) -> int:
    """How many pixels of a chart are in the colour of the first curve, or close to it."""
    near = "[red, green, blue].every((each, place) => Math.abs(each - wanted[place]) < 40)"
    return count_pixels(page, title, f"alpha > 200 && {near}")


def plot_box(page: Page, title: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of the plotting area, scrolled into view."""
    page.evaluate(f"{chart(title)}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    page.frame()
    box = page.evaluate(f"{chart(title)}.querySelector('.u-over').getBoundingClientRect().toJSON()")
    return box["left"], box["top"], box["width"], box["height"]


def legend(page: Page, title: str) -> str:
    text: str = page.evaluate(f"{chart(title)}.querySelector('.legend').innerText.replace(/\\s+/g, ' ')")
    return text


def first_value(page: Page, title: str) -> float:
    """The value of the first curve in the legend."""
    return float(page.evaluate(f"{chart(title)}.querySelector('.legend b').innerText"))


def steps_shown(page: Page) -> list[int]:
    """The first and the last step shown."""
    inputs = page.evaluate(
        "[...document.querySelectorAll('#curves input[type=number]')].map(each => Number(each.value))"
    )
    return [int(each) for each in inputs]


def rows_shown(page: Page) -> list[str]:
    """The ids of the rows shown."""
    ids: list[str] = page.evaluate("[...document.querySelectorAll('.rows .facts th')].map(each => each.innerText)")
    return ids


def status(page: Page) -> str:
    """What the table of rows says of what it shows."""
    return text_of(page, ".pager [role=status]")


def search(page: Page, text: str) -> None:
    """Type a text into the search for rows, and wait until it has been looked for."""
    page.evaluate("document.querySelector('#hypotheses input[type=search]').focus()")
    page.evaluate("document.activeElement.select()")
    if text:
        page.type(text)
    else:
        page.press("Backspace")
    page.evaluate("new Promise(done => setTimeout(() => done(0), 200))")


def read_table(page: Page, title: str) -> list[list[str]]:
    """The cells of the table of the hypotheses under a heading."""
    cells: list[list[str]] = page.evaluate(
        f"""(() => {{
            const heading = [...document.querySelectorAll('#hypotheses h4')].find(each => each.textContent === {title!r});
            const rows = [...heading.parentElement.querySelectorAll('tbody tr')];
            return rows.map(row => [...row.children].map(cell => cell.innerText.replace(/\\s+/g, ' ').trim()));
        }})()"""
    )
    return cells
