// The table of rows: source, reference and hypotheses below each other, sorted by its heads, a page at a time.

const PAGE_SIZE = 25;
const MOST_CHARACTERS = 1500; // of a text, until the reader asks for all of it
const MOST_OF_NAMES = 120;

/** The table with its search, filters and pages. `rows` from `makeRows`; `names` say what A and B are; `set` is that of A. */
function makeRowList({ rows, names, set, search = "" }) {
  const isPair = names.length > 1;
  const state = {
    search,
    group: null,
    change: "all",
    key: "scoreA",
    isDescending: !set.score_higher_is_better,
    page: 0,
    versus: "reference",
  };
  if (!rows.some((row) => row.scoreA !== null)) Object.assign(state, { key: "row", isDescending: false });
  const body = make("div", {});
  const update = (change) => {
    Object.assign(state, { page: 0 }, change);
    show();
  };

  function show(focusKey = null) {
    const found = sortRows(filterRows(rows, state), state.key, state.isDescending);
    const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
    state.page = Math.min(state.page, pages - 1);
    const shown = found.slice(state.page * PAGE_SIZE, (state.page + 1) * PAGE_SIZE);
    const heads = listHeads(rows, names, set);
    const sort = (key) => {
      state.isDescending = state.key === key ? !state.isDescending : false;
      state.key = key;
      state.page = 0;
      show(key);
    };
    const turn = (page) => {
      state.page = page;
      show();
      body.querySelector("table")?.scrollIntoView({ block: "start" });
    };
    replace(
      body,
      makeKey(state),
      makePager({ found, all: rows, state, pages, turn }),
      found.length ? makeRowTable({ shown, heads, names, state, sort }) : calm("No row is like this."),
      pages > 1 && makePager({ found, all: rows, state, pages, turn }),
    );
    if (focusKey) body.querySelector(`button[data-key="${focusKey}"]`)?.focus();
  }

  show();
  return make("div", {}, makeRowControls({ rows, state, isPair, update, show }), body);
}

function makeRowControls({ rows, state, isPair, update, show }) {
  let waiting = null;
  const onSearch = (search) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => update({ search }), 120);
  };
  const field = makeInput(
    "Search source, reference and hypotheses",
    { type: "search", autocomplete: "off", spellcheck: "false" },
    onSearch,
  );
  field.classList.add("wide");
  field.querySelector("input").value = state.search;
  const groups = [
    ...new Set(rows.map((row) => row.group).filter((group) => group !== null && group !== undefined)),
  ].sort();
  const groupField =
    groups.length > 1 &&
    makeSelect("Group", [["", "all"], ...groups.map((group, place) => [place, shortenName(group)])], "", (place) =>
      update({ group: place === "" ? null : groups[place] }),
    );
  const counts = isPair && countChanges(rows);
  const changes = isPair && [
    ["all", `all ${formatCount(rows.length)}`],
    ["better", `B better: ${formatCount(counts.better)}`],
    ["worse", `B worse: ${formatCount(counts.worse)}`],
    ["differing", `texts differ: ${formatCount(counts.differing)}`],
  ];
  const changeField = isPair && makeSelect("Rows", changes, "all", (change) => update({ change }));
  const versus = [
    ["reference", "from the reference"],
    ["other", "of B from A"],
  ];
  const versusField =
    isPair &&
    makeSelect("Mark differences", versus, state.versus, (value) => {
      state.versus = value;
      show();
    });
  return make("div", {}, make("div", { class: "controls" }, field, groupField, changeField, versusField));
}

/** What the marks in hypotheses say. */
function makeKey({ versus }) {
  const [text, wanted] = versus === "other" ? ["B", "A"] : ["a hypothesis", "the reference"];
  return make(
    "p",
    { class: "key" },
    `In ${text}, `,
    make("ins", {}, "marked"),
    ` is not in ${wanted}, and `,
    make("del", {}, "struck out"),
    ` is in ${wanted} only.`,
  );
}

/** Heads of the columns that have values: [key, text]. */
function listHeads(rows, names, set) {
  const has = (key) => rows.some((row) => row[key] !== null && row[key] !== undefined);
  const score = set.score_name ?? "score";
  const pair = names.length > 1;
  return [
    ["row", "Row"],
    has("group") && ["group", "Group"],
    has("length") && ["length", "Length"],
    has("rarity") && ["rarity", "Rarest word"],
    has("scoreA") && ["scoreA", pair ? "A" : capitalise(score)],
    pair && has("scoreB") && ["scoreB", "B"],
    pair && has("gain") && ["change", "B − A"],
  ].filter(Boolean);
}

const CELLS = {
  row: (row) => shortenName(row.id),
  group: (row) => (row.group === null ? ABSENT : shortenName(row.group)),
  length: (row) => formatCount(row.length),
  rarity: (row) => (row.rarity === null || row.rarity === undefined ? ABSENT : `${formatCount(row.rarity)}×`),
  scoreA: (row) => formatNumber(row.scoreA),
  scoreB: (row) => formatNumber(row.scoreB),
  change: (row) =>
    make("span", { class: row.gain > 0 ? "better" : row.gain < 0 ? "worse" : null }, formatChange(row.difference)),
};

function shortenName(name) {
  const [start, isCut] = shorten(name, MOST_OF_NAMES);
  return isCut ? `${start} …` : start;
}

const ARE_TEXTS = new Set(["row", "group"]);

function makeRowTable({ shown, heads, names, state, sort }) {
  const spare = () => make("td", { class: "spare" }); // takes the room that the columns leave
  const headCells = heads.map(([key, text]) => {
    const isSorted = state.key === key;
    const order = isSorted ? (state.isDescending ? "descending" : "ascending") : "none";
    const button = make("button", { type: "button", "data-key": key, onclick: () => sort(key) }, text);
    return make("th", { scope: "col", "aria-sort": order, class: ARE_TEXTS.has(key) ? null : "number" }, button);
  });
  const bodies = shown.map((row) => {
    const facts = heads.map(([key, text]) =>
      key === "row"
        ? make("th", { scope: "rowgroup", "data-label": text }, CELLS[key](row))
        : make("td", { class: ARE_TEXTS.has(key) ? null : "number", "data-label": text }, CELLS[key](row)),
    );
    const texts = make("td", { colspan: heads.length + 1, class: "texts" }, makeTexts(row, names, state.versus));
    return make("tbody", {}, make("tr", { class: "facts" }, facts, spare()), make("tr", {}, texts));
  });
  return make(
    "table",
    { class: "rows" },
    make("caption", { class: "unseen" }, "Rows with source, reference and hypotheses"),
    make("thead", {}, make("tr", {}, headCells, spare())),
    bodies,
  );
}

function makeTexts(row, names, versus) {
  const line = (name, text, wanted = null) => [make("dt", {}, name), make("dd", {}, makeText(text, wanted))];
  const references = row.references.map((text, place) =>
    line(row.references.length > 1 ? `Reference ${place + 1}` : "Reference", text),
  );
  const isPair = names.length > 1;
  const ofA = isPair && versus === "other" ? null : findClosest(row.a, row.references.filter(isComparable));
  const ofB = isPair && (versus === "other" ? row.a : findClosest(row.b, row.references.filter(isComparable)));
  const hypotheses = [line(isPair ? "A" : "Hypothesis", row.a, ofA), isPair && line("B", row.b, ofB)];
  return make("dl", {}, line("Source", row.source), references, hypotheses.filter(Boolean));
}

function isComparable(text) {
  return text.length <= MOST_CHARACTERS;
}

/** A text with its differences from what is wanted; a long one begins with its start, without marks. */
function makeText(text, wanted) {
  if (text === "") return make("span", { class: "empty" }, "(empty)");
  const [start, isCut] = shorten(text, MOST_CHARACTERS);
  if (!isCut) {
    const isMarked = wanted !== null && wanted !== "" && wanted !== text && isComparable(wanted);
    return make("bdi", {}, isMarked ? markDifferences(text, wanted) : text);
  }
  const all = make(
    "button",
    { type: "button", class: "small", onclick: () => replace(box, make("bdi", {}, text)) },
    `Show all ${formatCount(text.length)} characters`,
  );
  const box = make("span", {}, make("bdi", {}, start), " … ", all);
  return box;
}

function makePager({ found, all, state, pages, turn }) {
  const from = state.page * PAGE_SIZE;
  const to = Math.min(found.length, from + PAGE_SIZE);
  const part = found.length === all.length ? "" : `, found among ${formatCount(all.length)}`;
  const range = found.length
    ? `Rows ${formatCount(from + 1)} to ${formatCount(to)} of ${formatCount(found.length)}${part}`
    : `0 rows${part}`;
  const button = (text, page, isOff) =>
    make("button", { type: "button", disabled: isOff, onclick: () => turn(page) }, text);
  const [isFirst, isLast] = [state.page === 0, state.page === pages - 1];
  const buttons =
    pages > 1 &&
    make(
      "span",
      { class: "buttons" },
      button("First", 0, isFirst),
      button("Previous", state.page - 1, isFirst),
      button("Next", state.page + 1, isLast),
      button("Last", pages - 1, isLast),
    );
  return make("div", { class: "pager" }, make("span", { role: "status" }, range), buttons);
}
