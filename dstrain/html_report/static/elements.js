// Elements of the page. What a document says becomes text nodes here, and never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Functions among the attributes become listeners ("onclick"); null and false leave one out. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a drawing. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : visibleText(String(child)));
  }
  return element;
}

function replace(element, ...children) {
  element.replaceChildren();
  return fill(element, {}, children);
}

/** A calm sentence where a part has nothing to show. */
function calm(text) {
  return make("p", { class: "calm" }, text);
}

/** A section with its heading, to which the contents lead. */
function makeSection(id, title, ...children) {
  return make(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    make("h2", { id: `${id}-title` }, title),
    ...children,
  );
}

/** A table that scrolls within itself where the window is narrow; `rows` hold texts, elements, or cells made by `cell`. */
function makeTable({ head, rows, label, numeric = [], rowHeads = true }) {
  const align = (index) => (numeric.includes(index) ? "number" : null);
  const headCells = head.map((each, index) => make("th", { scope: "col", class: align(index) }, each));
  const body = rows.map((row) => {
    const cells = row.map((each, index) => {
      if (each instanceof HTMLTableCellElement) return each;
      return index === 0 && rowHeads
        ? make("th", { scope: "row", class: align(index) }, each)
        : make("td", { class: align(index) }, each);
    });
    return make("tr", {}, cells);
  });
  const table = make(
    "table",
    {},
    make("caption", { class: "unseen" }, label),
    make("thead", {}, make("tr", {}, headCells)),
    make("tbody", {}, body),
  );
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

let numberOfFields = 0;

/** A field with its label; options are [value, text]. */
function makeSelect(label, options, value, onChange) {
  const id = `field-${(numberOfFields += 1)}`;
  const select = make("select", { id, onchange: () => onChange(select.value) });
  for (const [each, text] of options) select.append(make("option", { value: each }, text));
  select.value = value;
  return make("div", { class: "field" }, make("label", { for: id }, label), select);
}

function makeInput(label, attributes, onInput) {
  const id = `field-${(numberOfFields += 1)}`;
  const input = make("input", { id, ...attributes, oninput: () => onInput(input.value) });
  return make("div", { class: "field" }, make("label", { for: id }, label), input);
}

function makeCheck(label, isChecked, onChange) {
  const input = make("input", { type: "checkbox", onchange: () => onChange(input.checked) });
  input.checked = isChecked;
  return make("label", { class: "check" }, input, make("span", {}, label));
}

/** One of several views, chosen by tabs; `views` are [name, function that makes the view]. */
function makeTabs(label, views) {
  const panel = make("div", { class: "panel", role: "tabpanel", tabindex: "0" });
  const tabs = views.map(([name], index) => {
    const id = `tab-${(numberOfFields += 1)}`;
    return make("button", { type: "button", role: "tab", id, onclick: () => choose(index) }, name);
  });
  let chosen = 0;
  function choose(index) {
    chosen = index;
    tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === index));
      tab.tabIndex = each === index ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", tabs[index].id);
    replace(panel, views[index][1]());
  }
  function onKey(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    choose((chosen + move + tabs.length) % tabs.length);
    tabs[chosen].focus();
  }
  const list = make("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: onKey }, tabs);
  return { element: make("div", {}, list, panel), choose, refresh: () => choose(chosen) };
}
