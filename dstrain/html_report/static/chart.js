// One chart on uPlot: lines, a readout in the legend, zoom by drag and by keys.
// All charts share `view`: the steps shown, the smoothing, which marks are shown.

const CHART_HEIGHT = 232;
const FONT = '12px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';

/** What all charts share: {range, extent, smoothing, marks, charts}; `show` zooms all of them. */
function makeView(extent) {
  const view = { extent, range: extent, smoothing: 1, hiddenMarks: new Set(), charts: [], onRange: () => {} };
  view.show = (from, to) => {
    const low = Math.max(extent[0], Math.min(from, to));
    const high = Math.min(extent[1], Math.max(from, to));
    if (high > low) view.range = [low, high];
    view.charts.forEach((chart) => chart.zoom());
    view.onRange();
  };
  view.showAll = () => view.show(...extent);
  view.rebuild = () => view.charts.forEach((chart) => chart.build());
  return view;
}

/** A figure with the chart; `spec` as `listTrainCharts` and `listMetricCharts` return it, `marks` as `listMarks` does. */
function makeChart(spec, view, marks) {
  let isLog = spec.isLog;
  let plot = null;
  const legend = make("ul", { class: "legend" });
  const readout = make("span", {});
  const tip = make("div", { class: "tip", hidden: true });
  const title = make("h4", {}, spec.title, spec.unit && make("span", { class: "unit" }, spec.unit));
  const logButton = make(
    "button",
    { type: "button", class: "small", "aria-pressed": String(isLog), onclick: toggleLog },
    "Log scale",
  );
  const box = make("div", {
    class: "plot",
    tabindex: "0",
    role: "group",
    onkeydown: onKey,
    onfocus: () => legend.setAttribute("aria-live", "polite"),
    onblur: leave,
    "aria-label": `Chart of ${spec.title}. Arrow keys read the values, plus and minus zoom, 0 shows all steps.`,
  });
  const values = spec.curves.flatMap((curve) => curve.value).filter((value) => value !== null);
  const canBeLog = isLog || values.every((value) => value > 0);
  const figure = make(
    "figure",
    { class: "chart" },
    make("figcaption", {}, title, canBeLog && logButton),
    legend,
    box,
    makeValues(spec),
  );

  function toggleLog() {
    isLog = !isLog;
    logButton.setAttribute("aria-pressed", String(isLog));
    build();
  }

  function build() {
    if (!box.clientWidth) return;
    plot?.destroy();
    const drawn = prepareCurves(spec, view, isLog);
    const places = fillLegend(legend, readout, drawn);
    const read = (u) => writeReadout(u, drawn, readout, places);
    const hooks = {
      drawAxes: [(u) => drawBands(u, drawn.shown), (u) => drawMarks(u, marks, view)],
      draw: [(u) => drawPoints(u, spec.hasMarkers ? drawn.shown : keepAlone(drawn.shown))],
      ready: [read],
      setScale: [(u, key) => key === "x" && read(u)],
      setCursor: [read, (u) => showTip(u, tip, marks, view)],
      setSelect: [
        (u) =>
          u.select.width > 4 &&
          view.show(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")),
      ],
    };
    plot = new uPlot(
      makeOptions({ width: box.clientWidth, drawn, view, isLog, hooks, marks }),
      joinCurves(drawn.lines),
      box,
    );
    plot.over.append(tip);
    plot.over.addEventListener("dblclick", view.showAll);
  }

  function leave() {
    legend.removeAttribute("aria-live"); // what the mouse reads in all charts at once is not spoken
    plot?.setCursor({ left: -10, top: -10 });
  }

  function onKey(event) {
    if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowRight: () => step(1),
      ArrowLeft: () => step(-1),
      "+": () => scale(0.5),
      "=": () => scale(0.5),
      "-": () => scale(2),
      0: view.showAll,
      Escape: view.showAll,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  function step(move) {
    const steps = plot.data[0];
    const [from, to] = view.range;
    const isShown = (index) => steps[index] >= from && steps[index] <= to;
    const first = steps.findIndex((_, index) => isShown(index));
    const at = plot.cursor.idx ?? -1;
    let next = at < 0 || !isShown(at) ? first : at + move;
    if (next < 0 || !isShown(next)) next = at;
    if (next >= 0) plot.setCursor({ left: plot.valToPos(steps[next], "x"), top: 20 }, true);
  }

  function scale(factor) {
    const [from, to] = view.range;
    const at = plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : (from + to) / 2;
    view.show(at - (at - from) * factor, at + (to - at) * factor);
  }

  const chart = {
    figure,
    spec,
    build,
    zoom: () =>
      plot?.batch(() => {
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        plot.setScale("x", { min: view.range[0], max: view.range[1] });
      }),
    resize: () => {
      if (!plot) build();
      else if (box.clientWidth) plot.setSize({ width: box.clientWidth, height: CHART_HEIGHT });
    },
    redraw: () => plot?.redraw(false, false),
    destroy: () => plot?.destroy(),
  };
  new ResizeObserver(() => chart.resize()).observe(box);
  return chart;
}

/** Lines to draw: smoothed ones before the raw ones that stay faint behind them; and what they are said to be. */
function prepareCurves(spec, view, isLog) {
  const [kept, left] = isLog ? keepPositive(spec.curves) : [spec.curves, 0];
  const width = spec.isNoisy ? view.smoothing : 1;
  const smoothed = kept.map((curve) => ({ ...curve, value: smooth(curve.value, width) }));
  const note = [
    width > 1 && `smoothed over ${width} points`,
    left && `${formatSome(left, "point")} at or below zero left out`,
  ];
  const faint = width > 1 ? kept.map((curve) => ({ ...curve, isFaint: true })) : [];
  return {
    shown: smoothed,
    lines: [...faint, ...smoothed],
    numFaint: faint.length,
    note: note.filter(Boolean).join(", "),
    hasMarkers: spec.hasMarkers,
    title: spec.title,
  };
}

function makeOptions({ width, drawn, view, isLog, hooks, marks }) {
  const series = drawn.lines.map((curve) => ({
    stroke: () => lookColour(curve.look),
    width: curve.isFaint ? 1 : 1.75,
    alpha: curve.isFaint ? 0.35 : 1,
    dash: curve.look.dash,
    points: { show: false },
    spanGaps: false,
  }));
  const axis = {
    stroke: () => colour("soft"),
    font: FONT,
    grid: { stroke: () => colour("grid"), width: 1 },
    ticks: { show: false },
  };
  const keep = (_, ticks) => ticks;
  const logAxis = {
    splits: (u, place, low, high) => listLogTicks(low, high),
    filter: keep,
    grid: { ...axis.grid, filter: keep },
  };
  const isShown = (_, index) => index > drawn.numFaint;
  return {
    width,
    height: CHART_HEIGHT,
    legend: { show: false },
    hooks,
    series: [{}, ...series],
    padding: [countRugs(marks) ? 8 + RUG_HEIGHT * countRugs(marks) : 10, 20, 0, 0],
    scales: {
      x: { time: false, range: () => view.range },
      y: { distr: isLog ? 3 : 1, range: () => findRange(drawn.lines, view.range, isLog) },
    },
    axes: [
      {
        ...axis,
        size: 30,
        space: 64,
        values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? formatTick(tick) : "")),
      },
      {
        ...axis,
        ...(isLog ? logAxis : {}),
        size: measureAxis,
        space: 34,
        values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : formatTick(tick))),
      },
    ],
    cursor: {
      drag: { x: true, y: false, setScale: false },
      y: false,
      hover: { skip: [undefined, null] },
      sync: {
        key: "steps",
        scales: ["x", null],
        setSeries: false,
        filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
      },
      points: { show: (u, index) => isShown(u, index) && cursorPoint(drawn.lines[index - 1]) },
    },
  };
}

function cursorPoint(curve) {
  const point = document.createElement("div");
  point.className = `cursor-point fill-${curve.look.place}`;
  return point;
}

function measureAxis(u, values) {
  const longest = (values ?? []).reduce((most, text) => Math.max(most, text?.length ?? 0), 0);
  return 18 + 7 * Math.max(longest, 3);
}

/** The legend: a line for each curve with its value under the cursor. Returns the elements of the values. */
function fillLegend(legend, readout, drawn) {
  const values = drawn.shown.map(() => make("b", { class: "number" }));
  const items = drawn.shown.map((curve, index) =>
    make(
      "li",
      {},
      makeSwatch(curve.look, drawn.hasMarkers),
      curve.label !== drawn.title && make("span", { class: "label" }, curve.label),
      values[index],
    ),
  );
  replace(legend, items, drawn.note && make("li", { class: "note" }, drawn.note), make("li", { class: "at" }, readout));
  return values;
}

/** The values under the cursor; without a cursor the last ones of the steps shown. One of another step says so. */
function writeReadout(u, drawn, readout, values) {
  const isAway =
    u.cursor.left === undefined || u.cursor.left < 0 || u.cursor.idx === null || u.cursor.idx === undefined;
  const read = drawn.shown.map((_, index) => {
    const column = u.data[1 + drawn.numFaint + index];
    const place = isAway ? findLast(u, column) : u.cursor.idxs[1 + drawn.numFaint + index];
    const value = place === null || place === undefined ? null : (column[place] ?? null);
    return { value, step: value === null ? null : u.data[0][place] };
  });
  const steps = read.map(({ step }) => step).filter((step) => step !== null);
  const common = isAway ? Math.max(...steps) : u.data[0][u.cursor.idx];
  read.forEach(({ value, step }, index) => {
    const curve = drawn.shown[index];
    const own = curve.low && step !== null ? curve.step.indexOf(step) : -1;
    const interval = own < 0 ? "" : formatInterval(curve.low[own], curve.high?.[own]);
    const where = step === null || step === common ? "" : ` at step ${formatCount(step)}`;
    values[index].replaceChildren(visibleText(formatNumber(value) + (interval && ` (${interval})`) + where));
  });
  readout.textContent = steps.length ? `${isAway ? "last, " : ""}step ${formatCount(common)}` : "";
}

function findLast(u, column) {
  const [from, to] = [u.scales.x.min, u.scales.x.max];
  for (let index = column.length - 1; index >= 0; index -= 1) {
    const isShown = u.data[0][index] >= from && u.data[0][index] <= to;
    if (isShown && column[index] !== null && column[index] !== undefined) return index;
  }
  return null;
}

const MOST_VALUES = 200;

/** All values of a chart as a table, made when a reader opens it. */
function makeValues(spec) {
  const details = make("details", { class: "values" }, make("summary", {}, "Values"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const [steps, ...columns] = joinCurves(spec.curves);
    const every = Math.ceil(steps.length / MOST_VALUES);
    const rows = steps.flatMap((step, place) =>
      place % every
        ? []
        : [
            [
              formatCount(step),
              ...spec.curves.map((curve, index) => describeValue(curve, step, columns[index][place])),
            ],
          ],
    );
    const head = ["Step", ...spec.curves.map((curve) => curve.label)];
    const label = `Values of ${spec.title}`;
    details.append(makeTable({ head, rows, label, numeric: head.map((_, index) => index) }));
    if (every > 1) details.append(calm(`One step of every ${every}, of ${formatSome(steps.length, "step")}.`));
    if (spec.signature) details.append(make("p", { class: "calm" }, "Signature: ", make("code", {}, spec.signature)));
  });
  return details;
}

function describeValue(curve, step, value) {
  const place = curve.step.indexOf(step);
  const interval = place < 0 ? "" : formatInterval(curve.low?.[place], curve.high?.[place]);
  const best = curve.isBest?.[place] ? ", best" : "";
  return formatNumber(value) + (interval && ` (${interval})`) + best;
}
