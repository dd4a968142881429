// Tables of what `buckets.js` and `ngrams.js` compute.

const FEW_ROWS = 10;

/** Mean scores by length, rarest word and group. */
function makeBucketView({ rows, names, set }) {
  if (!rows.some((row) => row.scoreA !== null)) return calm("The rows of this set have no score of their own.");
  const parts = [
    ["By length of the reference", divideByNumber(rows, "length", LENGTHS), "Words"],
    ["By the rarest word of the reference", divideByNumber(rows, "rarity", RARITIES), "Times in training"],
    ["By group", divideByGroup(rows), "Group"],
  ].filter(([, buckets]) => buckets.length > 0);
  const direction = set.score_higher_is_better ? "higher is better" : "lower is better";
  const text =
    `Mean ${set.score_name ?? "score"} of the rows (${direction}), with 95 % intervals from the spread of the rows. ` +
    `Buckets of fewer than ${FEW_ROWS} rows are grey.`;
  return make(
    "div",
    {},
    make("p", { class: "key" }, text),
    parts.map((part) => makeBucketTable(part, names, set)),
  );
}

function makeBucketTable([title, buckets, head], names, set) {
  const lines = summariseBuckets(buckets);
  const isPair = names.length > 1;
  const most = Math.max(...lines.flatMap((line) => [line.a.mean ?? 0, line.b.mean ?? 0]), 1e-9);
  const rows = lines.map((line) => [
    line.label,
    formatCount(line.number),
    makeMean(line.a, most, "bar-a"),
    ...(isPair ? [makeMean(line.b, most, "bar-b"), makeDifference(line.difference, set)] : []),
  ]);
  const score = set.score_name ?? "score";
  const heads = [head, "Rows", ...(isPair ? ["A", "B", "B − A"] : [score])];
  const table = makeTable({ head: heads, rows, label: title, numeric: [1, 4] });
  table
    .querySelectorAll("tbody tr")
    .forEach((row, place) => row.classList.toggle("few", lines[place].number < FEW_ROWS));
  table.classList.add("buckets");
  return make("section", { class: "part" }, make("h4", {}, title), table);
}

function makeMean({ mean, half }, most, kind) {
  const bar = make("span", { class: `bar ${kind}` });
  bar.style.width = `${Math.max(0, ((mean ?? 0) / most) * 100)}%`;
  const text = make(
    "span",
    { class: "mean" },
    formatNumber(mean),
    half > 0 && make("small", {}, ` ± ${formatNumber(half)}`),
  );
  return make("td", {}, text, make("span", { class: "track", "aria-hidden": "true" }, bar));
}

/** A difference, and in words whether its interval leaves out 0, unless there are too few rows or too little spread to say. */
function makeDifference({ number, mean, half }, set) {
  const isClear = Math.abs(mean) > half;
  const isBetter = mean > 0 === set.score_higher_is_better;
  const word = isClear
    ? make("span", { class: isBetter ? "better" : "worse" }, isBetter ? "B better" : "B worse")
    : make("span", { class: "soft" }, "within chance");
  const says = number >= FEW_ROWS && half > 0;
  return make(
    "td",
    { class: "number" },
    formatChange(mean),
    half > 0 && make("small", {}, ` ± ${formatNumber(half)}`),
    " ",
    says && word,
  );
}

const NGRAM_NAMES = {
  right: "right: in the reference too",
  many: "too many: not in the reference so often",
  missing: "missing: in the reference, not made",
  made: "made, right or not",
};
const MOST_NGRAMS = 20;

/**
 * N-grams that lean to one side; `onSearch` is called with the text of one that the reader chooses. What is counted is kept in
 * `context`, because it takes a moment.
 */
function makeNgramView(context, onSearch) {
  const { rows, names } = context;
  const box = make("div", {}, calm("Counting …"));
  const state = { kind: names.length > 1 ? "right" : "many", size: 0 };
  setTimeout(() => {
    const byCharacter = isByCharacter(rows);
    const tally = (context.tally ??= tallyNgrams(rows, byCharacter));
    const show = () => replace(results, makeNgramTables({ tally, state, names, byCharacter, onSearch }));
    const change = (name, value) => {
      state[name] = value;
      show();
    };
    const kinds = Object.entries(NGRAM_NAMES).filter(([kind]) => names.length > 1 || kind !== "made");
    const sizes = [
      [0, "1 to 4"],
      [1, "1"],
      [2, "2"],
      [3, "3"],
      [4, "4"],
    ];
    const results = make("div", {});
    const isCut = rows.some((row) =>
      [...row.references, row.a, row.b ?? ""].some((text) => text.length > MOST_COUNTED),
    );
    const cut =
      isCut &&
      make("p", { class: "key" }, `Of texts longer than ${formatCount(MOST_COUNTED)} characters the start is counted.`);
    const what = byCharacter ? "Characters" : "Words";
    const controls = make(
      "div",
      { class: "controls" },
      makeSelect("N-grams that are", kinds, state.kind, (value) => change("kind", value)),
      makeSelect(`${what} each`, sizes, state.size, (value) => change("size", Number(value))),
    );
    replace(box, controls, cut, results);
    show();
  }, 20); // so that the sentence is seen before the counting begins
  return box;
}

function makeNgramTables({ tally, state, names, byCharacter, onSearch }) {
  const [ofA, ofB] = rankNgrams(tally, { ...state, byCharacter, most: MOST_NGRAMS });
  if (names.length < 2) {
    const single = [...ofA].sort((one, other) => other.a - one.a || (one.text < other.text ? -1 : 1));
    return makeNgramTable({
      title: "Most frequent",
      found: single,
      heads: ["Times"],
      cells: (each) => [formatCount(each.a)],
      onSearch,
    });
  }
  const cells = (each) => [formatCount(each.a), formatCount(each.b), each.share.toFixed(2)];
  const heads = ["A", "B", "Share of A"];
  const note = "The share of A is of both counts with one added to each, as compare-mt has it: 0.50 is no difference.";
  return [
    make("p", { class: "key" }, note),
    make(
      "div",
      { class: "halves" },
      makeNgramTable({ title: "More often in A", found: ofA, heads, cells, onSearch }),
      makeNgramTable({ title: "More often in B", found: ofB, heads, cells, onSearch }),
    ),
  ];
}

function makeNgramTable({ title, found, heads, cells, onSearch }) {
  if (!found.length) return make("section", { class: "part" }, make("h4", {}, title), calm("None."));
  const rows = found.map((each) => [
    make(
      "button",
      { type: "button", class: "link", title: "Show rows with it", onclick: () => onSearch(each.text) },
      make("bdi", {}, each.text),
    ),
    ...cells(each),
  ]);
  const table = makeTable({
    head: ["N-gram", ...heads],
    rows,
    label: title,
    numeric: heads.map((_, place) => place + 1),
  });
  return make("section", { class: "part ngrams" }, make("h4", {}, title), table);
}
