// The attempts of a run: when each began and ended, from which step to which, and why it ended.

function makeTimelineSection(runs) {
  const withAttempts = runs.filter((run) => run.attempts.length);
  const attempts = withAttempts.length
    ? [makeLanes(withAttempts), makeAttemptTable(withAttempts, runs.length > 1)]
    : calm("No attempt is recorded.");
  return makeSection("timeline", "Attempts and warnings", attempts, make("h3", {}, "Warnings"), makeWarnings(runs));
}

/** First and last moment of an attempt in milliseconds; the end is that of the last step known, or nothing. */
function readTimes(attempt) {
  const [begin, end] = [Date.parse(attempt.begin ?? ""), Date.parse(attempt.end ?? "")];
  return { begin: Number.isNaN(begin) ? null : begin, end: Number.isNaN(end) ? null : end };
}

/** A lane of bars for each run over one axis of time; an attempt whose end is not known fades out before the next. */
function makeLanes(runs) {
  const times = runs.flatMap((run) => run.attempts.map(readTimes));
  const known = times.flatMap(({ begin, end }) => [begin, end]).filter((time) => time !== null);
  const [first, last] = [Math.min(...known), Math.max(...known)];
  if (known.length < 2 || last <= first) return null;
  const percent = (time) => ((time - first) / (last - first)) * 100;
  const lanes = runs.map((run) => {
    const lane = make("div", { class: "lane" });
    run.attempts.forEach((attempt, place) => {
      const { begin, end } = readTimes(attempt);
      if (begin === null) return;
      const next =
        run.attempts
          .slice(place + 1)
          .map((each) => readTimes(each).begin)
          .find((time) => time !== null) ?? last;
      const bar = make(
        "span",
        { class: end === null ? "attempt open" : "attempt", title: attempt.cause },
        String(place + 1),
      );
      bar.style.left = `${percent(begin)}%`;
      bar.style.width = `${Math.max(0.5, percent(end ?? next) - percent(begin))}%`;
      lane.append(bar);
    });
    return [runs.length > 1 && make("div", { class: "lane-name" }, run.name), lane];
  });
  const axis = make(
    "div",
    { class: "lane-axis" },
    make("span", {}, formatMoment(new Date(first).toISOString())),
    make("span", {}, formatMoment(new Date(last).toISOString())),
  );
  return make("div", { class: "lanes", "aria-hidden": "true" }, lanes, axis);
}

function makeAttemptTable(runs, hasNames) {
  const rows = runs.flatMap((run) =>
    run.attempts.map((attempt, place) => {
      const { begin, end } = readTimes(attempt);
      const duration = begin === null || end === null ? ABSENT : formatDuration((end - begin) / 1000);
      const steps = `${formatCount(attempt.first_step)} to ${formatCount(attempt.last_step)}`;
      const cells = [
        String(place + 1),
        formatMoment(attempt.begin),
        end === null ? "not known" : formatMoment(attempt.end),
        duration,
        steps,
        formatCount(attempt.ranks),
        attempt.host ?? ABSENT,
        attempt.cause ?? ABSENT,
      ];
      return hasNames ? [run.name, ...cells] : cells;
    }),
  );
  const head = [
    ...(hasNames ? ["Run"] : []),
    "Attempt",
    "Began (UTC)",
    "Ended (UTC)",
    "Took",
    "Steps",
    "Ranks",
    "Host",
    "Why it ended",
  ];
  const table = makeTable({ head, rows, label: "Attempts" });
  table.classList.add("attempts");
  return table;
}

function makeWarnings(runs) {
  const found = runs.flatMap((run) => run.warnings.map((warning) => ({ ...warning, run: run.name })));
  if (!found.length) return calm("None.");
  const place = (warning) =>
    [
      runs.length > 1 && warning.run,
      warning.step !== null && warning.step !== undefined && `step ${formatCount(warning.step)}`,
    ]
      .filter(Boolean)
      .join(", ");
  return make(
    "ul",
    { class: "sentences" },
    found.map((warning) => {
      const where = place(warning);
      return make("li", {}, where && make("b", {}, `${where}: `), warning.text);
    }),
  );
}
