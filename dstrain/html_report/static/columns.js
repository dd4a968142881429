// The hypotheses of one evaluation, or of two beside each other, as rows that can be searched, filtered and sorted.
// A column: {id, run, set, place, label, isBest}. A row: {place, id, source, references, group, length, rarity, a, b, scoreA,
// scoreB, difference, gain}; `b` and what follows of it is null where one evaluation stands alone.

/** Names of the sets that have hypotheses in any run. */
function listSetNames(runs) {
  const filled = runs.flatMap((run) => run.sets.filter((set) => set.evaluations.length && set.rows.id.length));
  return [...new Set(filled.map((set) => set.name))];
}

/** Every evaluation of a set, of all runs. */
function listColumns(runs, setName) {
  return runs.flatMap((run, runPlace) =>
    run.sets
      .filter((set) => set.name === setName)
      .flatMap((set) =>
        set.evaluations.map((evaluation, place) => {
          const isBest = run.best?.set === set.name && run.best.step === evaluation.step;
          const name = evaluation.label ?? `step ${evaluation.step}`;
          const label = (runs.length > 1 ? `${run.name}, ${name}` : name) + (isBest ? " (best)" : "");
          return { id: `${runPlace}.${place}`, run: runPlace, set, place, label, isBest };
        }),
      ),
  );
}

/** The best column of a run; without one the last. */
function findBestColumn(columns, run) {
  const own = columns.filter((column) => column.run === run);
  return own.find((column) => column.isBest) ?? own[own.length - 1] ?? null;
}

/** Place in the second set of every row of the first, by id and source, or null. Equal rows are matched in order. */
function matchRows(one, other) {
  if (one === other) return one.rows.id.map((_, place) => place);
  const places = new Map();
  other.rows.id.forEach((id, place) => {
    const key = JSON.stringify([id, other.rows.source[place]]);
    if (!places.has(key)) places.set(key, []);
    places.get(key).push(place);
  });
  return one.rows.id.map((id, place) => places.get(JSON.stringify([id, one.rows.source[place]]))?.shift() ?? null);
}

/** Rows of column `a`, with those of `b` beside them unless it is null; only rows that each has a hypothesis for. */
function makeRows(a, b) {
  const { rows } = a.set;
  const matches = b ? matchRows(a.set, b.set) : null;
  const isComparable = b?.set.score_name === a.set.score_name;
  const sign = a.set.score_higher_is_better ? 1 : -1;
  return rows.id.flatMap((id, place) => {
    const match = matches?.[place];
    const [textA, textB] = [
      a.set.hypotheses[place]?.[a.place] ?? null,
      b && match !== null ? (b.set.hypotheses[match]?.[b.place] ?? null) : null,
    ];
    if (textA === null || (b && textB === null)) return [];
    const scoreA = a.set.row_scores[place]?.[a.place] ?? null;
    const scoreB = isComparable ? (b.set.row_scores[match]?.[b.place] ?? null) : null;
    const difference = scoreA === null || scoreB === null ? null : scoreB - scoreA;
    return [
      {
        place,
        id: String(id),
        source: rows.source[place] ?? "",
        references: rows.reference[place] ?? [],
        group: rows.group[place],
        length: rows.length[place],
        rarity: rows.rarity[place],
        scoreA,
        scoreB,
        difference,
        a: textA,
        b: textB,
        gain: difference === null ? null : difference * sign, // above 0: B is better
      },
    ];
  });
}

/** Numbers of rows in which B is better, worse, as good; and how many texts differ. */
function countChanges(rows) {
  const count = (test) => rows.filter(test).length;
  return {
    better: count((row) => row.gain > 0),
    worse: count((row) => row.gain !== null && row.gain < 0),
    equal: count((row) => row.gain === 0),
    differing: count((row) => row.a !== row.b),
  };
}

const CHANGES = {
  all: () => true,
  better: (row) => row.gain > 0,
  worse: (row) => row.gain !== null && row.gain < 0,
  differing: (row) => row.a !== row.b,
};

/** Rows that hold the text anywhere, upper and lower case alike, and are of the group and change. */
function filterRows(rows, { search, group, change }) {
  const wanted = search.toLowerCase();
  const holds = (row) =>
    [row.id, row.source, ...row.references, row.a, row.b ?? ""].some((text) => text.toLowerCase().includes(wanted));
  return rows.filter(
    (row) => (group === null || row.group === group) && CHANGES[change](row) && (!wanted || holds(row)),
  );
}

const SORT_KEYS = {
  row: (row) => row.place,
  group: (row) => row.group,
  length: (row) => row.length,
  rarity: (row) => row.rarity,
  scoreA: (row) => row.scoreA,
  scoreB: (row) => row.scoreB,
  change: (row) => row.gain,
};

/** Rows in the order of a key of `SORT_KEYS`, as they were where it is equal; those without a value last in either direction. */
function sortRows(rows, key, isDescending) {
  const valueOf = SORT_KEYS[key];
  const compare = (one, other) => {
    const [left, right] = [valueOf(one), valueOf(other)];
    if (left === right) return one.place - other.place;
    if (left === null || left === undefined) return 1;
    if (right === null || right === undefined) return -1;
    return (left < right ? -1 : 1) * (isDescending ? -1 : 1);
  };
  return [...rows].sort(compare);
}
