// The section of curves: scores of the evaluation sets, training, speed and memory, with the controls that all charts share.

const OF_THE_MACHINE = new Set(["tokens_per_second", "padding", "memory", "loss_scale", "data_seconds", "seconds"]);
const SMOOTHINGS = [1, 3, 5, 11, 25, 51, 101];
const SMOOTHED_FROM = 200; // points; shorter curves are drawn as they are

function makeCurvesSection(runs) {
  const trainCharts = listTrainCharts(runs);
  const choices = listChoices(runs);
  const isUnread = runs.some((run) => run.unread.includes("rows"));
  if (!trainCharts.length && !choices.length) {
    const none = "No step has been logged and nothing has been evaluated yet.";
    return makeSection("curves", "Curves", calm(isUnread ? "No step and no evaluation can be read: see Notes." : none));
  }
  const view = makeView(findExtent(runs));
  const marks = listMarks(runs);
  const longest = Math.max(0, ...runs.map((run) => run.train.step.length));
  view.smoothing = longest >= SMOOTHED_FROM ? 11 : 1;
  theme.listeners.push(() => view.charts.forEach((chart) => chart.redraw()));

  const metricBox = make("div", { class: "charts" });
  const zeroBox = make("div", {});
  const drawGrid = (specs, shownMarks) =>
    specs.map((spec) => {
      const chart = makeChart(spec, view, shownMarks);
      view.charts.push(chart);
      return chart.figure;
    });
  const restarts = marks.filter((mark) => mark.kind === "restart");
  const showMetrics = (place) => {
    const [gone, kept] = [
      view.charts.filter((chart) => chart.spec.hasMarkers),
      view.charts.filter((chart) => !chart.spec.hasMarkers),
    ];
    gone.forEach((chart) => chart.destroy());
    view.charts = kept;
    const charts = listMetricCharts(runs, choices[place]);
    const isNamed = (chart) => isZero(chart) && !chart.isPrimary;
    const zero = charts.filter(isNamed).map((chart) => chart.title);
    replace(
      metricBox,
      drawGrid(
        charts.filter((chart) => !isNamed(chart)),
        restarts,
      ),
    );
    replace(zeroBox, zero.length > 0 && calm(`0 at every evaluation: ${zero.join("; ")}.`));
  };

  const learning = trainCharts.filter((spec) => !OF_THE_MACHINE.has(spec.name));
  const machine = trainCharts.filter((spec) => OF_THE_MACHINE.has(spec.name));
  const grids = [
    [learning, "Training"],
    [machine, "Speed and memory"],
  ].filter(([specs]) => specs.length);
  const parts = grids.map(([specs, title]) => [
    make("h3", {}, title),
    make("div", { class: "charts" }, drawGrid(specs, marks)),
  ]);
  const scores = choices.length
    ? [make("h3", {}, "Scores"), metricBox, zeroBox]
    : calm(isUnread ? "No evaluation can be read: see Notes." : "Nothing has been evaluated yet.");
  if (choices.length) showMetrics(0);
  const onlyOnePoint = longest === 1 && calm("One step has been logged so far; lines appear with the second.");
  return makeSection(
    "curves",
    "Curves",
    makeRunKey(runs),
    makeCurveControls({ view, marks, choices, showMetrics, hasTraining: longest > 2 }),
    scores,
    onlyOnePoint,
    parts,
  );
}

/** Which look belongs to which run, where there are several. */
function makeRunKey(runs) {
  if (runs.length < 2) return null;
  return make(
    "ul",
    { class: "legend runs" },
    runs.map((run, index) => make("li", {}, makeSwatch(makeLook(index), true), run.name)),
  );
}

function makeCurveControls({ view, marks, choices, showMetrics, hasTraining }) {
  const setChoice =
    choices.length > 1 &&
    makeSelect(
      "Scores on",
      choices.map(({ text }, place) => [place, text]),
      0,
      (place) => showMetrics(Number(place)),
    );
  const smoothing =
    hasTraining &&
    makeSelect(
      "Smoothing",
      SMOOTHINGS.map((width) => [width, width === 1 ? "none" : `over ${width} points`]),
      view.smoothing,
      (width) => {
        view.smoothing = Number(width);
        view.rebuild();
      },
    );
  const bounds = { type: "number", min: view.extent[0], max: view.extent[1], inputmode: "numeric" };
  const limit = () => view.show(Number(from.value), Number(to.value));
  const fromField = makeInput("From step", { ...bounds, onchange: limit }, () => {});
  const toField = makeInput("to step", { ...bounds, onchange: limit }, () => {});
  const [from, to] = [fromField, toField].map((field) => field.querySelector("input"));
  const all = make("button", { type: "button", onclick: view.showAll }, "Show all steps");
  view.onRange = () => {
    [from.value, to.value] = view.range.map(Math.round);
    all.disabled = view.range[0] === view.extent[0] && view.range[1] === view.extent[1];
  };
  view.onRange();
  return make("div", { class: "controls" }, setChoice, smoothing, fromField, toField, all, makeMarkKey(marks, view));
}
