// The sections that are tables and sentences: summary, data audit, settings, notes.

function makeSummarySection({ runs, damage }) {
  const headlines = make(
    "div",
    { class: "headlines" },
    runs.map((run) => makeHeadline(run, runs.length > 1)),
  );
  return makeSection("summary", "Summary", makeNotices(runs, damage), headlines, makeFacts(runs), makeScores(runs));
}

/** What a reader must know before the scores: why a run is in its state, what to do about it, and whether files are damaged. */
function makeNotices(runs, damage) {
  const ofRuns = runs
    .filter((run) => run.why || run.advice)
    .map((run) => {
      const state = make("b", {}, runs.length > 1 ? `${run.name}: ${run.state}` : capitalise(run.state));
      const advice = run.advice && make("p", { class: "soft" }, `What to do: ${run.advice}`);
      return makeNotice(Boolean(advice), make("p", {}, state, run.why && `: ${run.why}`), advice);
    });
  const number = make("b", {}, formatSome(damage.length, "note"));
  const link = make("a", { href: "#notes" }, "Notes");
  const ofDamage = make("p", {}, number, " about damaged or missing files: see ", link);
  return [...ofRuns, damage.length > 0 && makeNotice(true, ofDamage)];
}

function makeNotice(isUrgent, ...lines) {
  return make("div", { class: isUrgent ? "notice urgent" : "notice" }, lines);
}

/** What each run says of itself: facts of one run, a table of several. */
function makeFacts(runs) {
  if (!runs.some((run) => run.summary.length)) return calm("The run has recorded nothing yet.");
  if (runs.length === 1)
    return make(
      "dl",
      { class: "facts" },
      runs[0].summary.map(([label, value]) =>
        make("div", {}, make("dt", {}, capitalise(label)), make("dd", {}, value)),
      ),
    );
  const labels = [...new Set(runs.flatMap((run) => run.summary.map(([label]) => label)))];
  const values = runs.map((run) => new Map(run.summary));
  const rows = labels.map((label) => [capitalise(label), ...values.map((each) => each.get(label) ?? ABSENT)]);
  const table = makeTable({ head: ["", ...runs.map((run) => run.name)], rows, label: "Summary of the runs" });
  table.classList.add("summary");
  return table;
}

/** The best score of a run in large figures, with its interval and step. */
function makeHeadline(run, hasName) {
  const name = hasName && make("p", { class: "headline-run" }, run.name);
  const metric = run.metrics.find((each) => each.name === run.best?.metric);
  const curve = metric?.curves.find((each) => each.set === run.best.set && each.group === null);
  const place = curve ? curve.step.indexOf(run.best.step) : -1;
  if (place < 0) {
    const why = run.unread.includes("rows") ? "No best score can be read: see Notes." : "No evaluation has a best score yet.";
    return make("div", { class: "headline" }, name, calm(why));
  }
  const interval = formatInterval(curve.low?.[place], curve.high?.[place]);
  return make(
    "div",
    { class: "headline" },
    name,
    make("p", { class: "headline-value" }, formatNumber(curve.value[place])),
    make(
      "p",
      { class: "headline-label" },
      make("b", {}, capitalise(metric.label)),
      ` on ${run.best.set}, best at step ${formatCount(run.best.step)}`,
    ),
    interval && make("p", { class: "headline-label" }, `95 % interval ${interval}`),
  );
}

/** Best and last evaluation of every set and run, with all scores. */
function makeScores(runs) {
  const names = [...new Set(runs.flatMap((run) => run.sets.map((set) => set.name)))];
  return names.map((name) => {
    const found = runs.flatMap((run) =>
      run.sets.filter((set) => set.name === name).flatMap((set) => pickEvaluations(run, set)),
    );
    const labels = [
      ...new Map(
        found.flatMap(({ evaluation }) => evaluation.scores.map((score) => [score.name, score.label])),
      ).entries(),
    ];
    if (!found.length || !labels.length) return null;
    const rows = found.map(({ run, evaluation, kind }) => [
      `${runs.length > 1 ? `${run.name}, ` : ""}step ${formatCount(evaluation.step)} (${kind})`,
      ...labels.map(([key]) => makeScore(evaluation.scores.find((score) => score.name === key))),
    ]);
    const head = ["Evaluation", ...labels.map(([, label]) => capitalise(label))];
    const table = makeTable({ head, rows, label: `Scores on ${name}`, numeric: labels.map((_, place) => place + 1) });
    table.classList.add("scores");
    return [make("h3", {}, `Scores on ${name}`), table];
  });
}

function pickEvaluations(run, set) {
  const last = set.evaluations[set.evaluations.length - 1];
  const best = set.evaluations.find((each) => run.best?.set === set.name && each.step === run.best.step);
  if (!last) return [];
  if (best === last) return [{ run, evaluation: last, kind: "best and last" }];
  return [best && { run, evaluation: best, kind: "best" }, { run, evaluation: last, kind: "last" }].filter(Boolean);
}

function makeScore(score) {
  const interval = formatInterval(score?.low, score?.high);
  return [formatNumber(score?.value), interval && make("small", {}, interval)];
}

function makeAuditSection(runs) {
  const title = "Data audit";
  const known = runs.filter((run) => run.audit?.length);
  if (!known.length) return makeSection("audit", title, calm("The data of this run have not been audited."));
  const seen = new Map(); // runs on the same data have the same audit, which is shown once
  for (const run of known) {
    const key = JSON.stringify(run.audit);
    if (!seen.has(key)) seen.set(key, []);
    seen.get(key).push(run);
  }
  const parts = [...seen.values()].map((same) => [
    runs.length > 1 && make("h3", {}, same.map((run) => run.name).join(", ")),
    make(
      "div",
      { class: "audit" },
      same[0].audit.map((part) => makeAuditPart(part)),
    ),
  ]);
  return makeSection("audit", title, parts);
}

function makeAuditPart({ title, rows }) {
  const cells = rows.map(([check, value, kind]) => {
    const isAlarm = kind === "alarm";
    return [
      capitalise(check),
      make(
        "td",
        { class: isAlarm ? "alarm" : null },
        value,
        isAlarm && make("span", { class: "word" }, "look at this"),
      ),
    ];
  });
  return make(
    "section",
    { class: "part" },
    make("h4", {}, capitalise(title)),
    makeTable({ head: ["Check", "Found"], rows: cells, label: title }),
  );
}

function makeSettingsSection(runs) {
  const maps = runs.map((run) => new Map(run.settings));
  const keys = [...new Set(runs.flatMap((run) => run.settings.map(([key]) => key)))];
  if (!keys.length) return makeSection("settings", "Settings", calm("The recipe of this run is not in the report."));
  const valueOf = (map, key) => (map.has(key) ? map.get(key) : null);
  const differs = (key) => new Set(maps.map((map) => valueOf(map, key))).size > 1;
  const toRows = (some) =>
    some.map((key) => [
      make("code", {}, key),
      ...maps.map((map) =>
        make("td", {}, map.has(key) ? make("code", {}, map.get(key)) : make("span", { class: "soft" }, "not set")),
      ),
    ]);
  const head = ["Key", ...(runs.length > 1 ? runs.map((run) => run.name) : ["Value"])];
  const differing = keys.filter(differs);
  const first = runs.length > 1 && [
    make("h3", {}, "What differs"),
    differing.length
      ? makeTable({ head, rows: toRows(differing), label: "Settings that differ" })
      : calm("The runs have the same settings."),
  ];
  const box = make("div", {});
  const show = (text) => {
    const found = keys.filter((key) =>
      [key, ...maps.map((map) => valueOf(map, key) ?? "")].some((each) =>
        String(each).toLowerCase().includes(text.toLowerCase()),
      ),
    );
    replace(
      box,
      found.length ? makeTable({ head, rows: toRows(found), label: "All settings" }) : calm("No setting has this."),
    );
  };
  show("");
  const all = make(
    "details",
    { class: "all" },
    make("summary", {}, `All ${formatSome(keys.length, "setting")}`),
    make("div", { class: "controls" }, makeInput("Find a setting", { type: "search", autocomplete: "off" }, show)),
    box,
  );
  return makeSection("settings", "Settings", first, all);
}

function makeNotesSection({ runs, damage, notes }) {
  const shown = (note) => (runs.length > 1 ? note : capitalise(note)); // of several runs it begins with a folder's name
  const list = (some) =>
    make(
      "ul",
      { class: "sentences" },
      some.map((note) => make("li", {}, shown(note))),
    );
  return makeSection(
    "notes",
    "Notes",
    damage.length > 0 && [make("h3", {}, "Damaged or missing files"), list(damage)],
    damage.length > 0 && notes.length > 0 && make("h3", {}, "Other notes"),
    notes.length > 0 && list(notes),
    !damage.length && !notes.length && calm("Nothing was left out."),
  );
}
