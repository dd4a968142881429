// The section of hypotheses: which set and which one or two evaluations, and the views of their rows.

function makeHypothesesSection(runs) {
  const names = listSetNames(runs);
  if (!names.length) {
    const isUnread = runs.some((run) => run.unread.length);
    const why = isUnread ? "No hypotheses can be read: see Notes." : "No evaluation has written hypotheses yet.";
    return makeSection("hypotheses", "Hypotheses", calm(why));
  }
  const box = make("div", {});
  const showSet = (name) => replace(box, makeSetView(runs, name));
  showSet(names[0]);
  const chooser =
    names.length > 1 &&
    make(
      "div",
      { class: "controls" },
      makeSelect(
        "Set",
        names.map((name) => [name, name]),
        names[0],
        showSet,
      ),
    );
  return makeSection("hypotheses", "Hypotheses", chooser, box);
}

function makeSetView(runs, name) {
  const columns = listColumns(runs, name);
  const runPlaces = [...new Set(columns.map((column) => column.run))];
  const state = {
    a: findBestColumn(columns, runPlaces[0]),
    b: runPlaces.length > 1 ? findBestColumn(columns, runPlaces[1]) : null,
    search: "",
  };
  const find = (id) => columns.find((column) => column.id === id) ?? null;
  const options = columns.map((column) => [column.id, column.label]);
  const about = make("div", {});
  const context = {};
  const tabs = makeTabs("Views of the hypotheses", [
    ["Rows", () => makeRowList({ ...context, search: takeSearch() })],
    ["Scores by kind of row", () => makeBucketView(context)],
    ["N-grams", () => makeNgramView(context, searchFor)],
  ]);
  function takeSearch() {
    const { search } = state;
    state.search = "";
    return search;
  }
  function searchFor(text) {
    state.search = text;
    tabs.choose(0);
    tabs.element.querySelector("[role=tab]").focus();
  }
  function update(change, show) {
    Object.assign(state, change);
    const { a, b } = state;
    Object.assign(context, {
      rows: makeRows(a, b),
      names: b ? [a.label, b.label] : [a.label],
      set: a.set,
      tally: null,
    });
    replace(about, describeChoice(state, context.rows));
    show();
  }
  update({}, () => tabs.choose(0));
  const chooseA = makeSelect("Evaluation A", options, state.a.id, (id) => update({ a: find(id) }, tabs.refresh));
  const others = [["", "no other"], ...options];
  const chooseB = makeSelect("Evaluation B", others, state.b?.id ?? "", (id) => update({ b: find(id) }, tabs.refresh));
  if (columns.length < 2) chooseB.hidden = true;
  return make("div", {}, make("div", { class: "controls" }, chooseA, chooseB), about, tabs.element);
}

/** What is compared with what, and how it went, in sentences. */
function describeChoice({ a, b }, rows) {
  const { set } = a;
  const sampled =
    set.is_sampled && `${formatCount(set.rows.id.length)} of ${formatCount(set.num_rows)} rows are in this report.`;
  const left = set.rows.id.length - rows.length;
  if (!rows.length) return [calm(b ? "A and B have no row in common." : "This evaluation has no row of these.")];
  const whose = b ? "not in both A and B, by id and source," : "not in this evaluation";
  const other = b && b.set.score_name !== set.score_name;
  const scores =
    other && `The rows of B have another score (${b.set.score_name}) than those of A, which is not compared.`;
  const unmatched = left > 0 && `${formatSome(left, "row")} ${left === 1 ? "is" : "are"} ${whose} and left out.`;
  const sentences = [sampled, unmatched, scores].filter(Boolean).join(" ");
  return [b && !other && makeVerdict(rows, set), sentences && make("p", { class: "key" }, sentences)];
}

/** How many rows B has better and worse than A, as words and as a bar. */
function makeVerdict(rows, set) {
  const { better, worse, equal, differing } = countChanges(rows);
  const unknown = rows.length - better - worse - equal;
  if (unknown === rows.length)
    return make(
      "p",
      {},
      `${formatSome(differing, "text")} of ${formatCount(rows.length)} differ; the rows have no score of their own.`,
    );
  const parts = [
    ["better", better, "better"],
    ["same", equal, "as good"],
    ["worse", worse, "worse"],
  ];
  const bar = make("div", { class: "verdict-bar", "aria-hidden": "true" });
  for (const [kind, number] of parts) {
    const part = make("span", { class: `part-${kind}` });
    part.style.flexGrow = String(number);
    bar.append(part);
  }
  const items = parts.map(([kind, number, text]) =>
    make("li", {}, make("b", { class: `word-${kind}` }, formatCount(number)), ` ${text}`),
  );
  const { mean, half } = summarise(rows.map((row) => row.difference));
  const interval = half > 0 ? ` ± ${formatNumber(half)}` : "";
  const change = `Mean change of ${set.score_name ?? "the score"} from A to B: ${formatChange(mean)}${interval}`;
  return make(
    "div",
    { class: "verdict" },
    make("ul", {}, make("li", {}, "B against A:"), items, make("li", { class: "soft" }, change)),
    bar,
  );
}
