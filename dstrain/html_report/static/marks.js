// What is drawn on a chart besides its lines: intervals, points, and the marks of evaluations, saves and restarts.

const MARK_KINDS = {
  evaluation: "evaluations",
  save: "saves",
  restart: "restarts",
  skipped: "skipped steps",
  end: "ends",
};
const MARK_SHAPES = { evaluation: "circle", save: "square", restart: "triangle", skipped: "cross", end: "bar" };
const MARK_SIZES = { evaluation: 4.4, save: 2.4, restart: 4, skipped: 3.4, end: 4 };
const ABOVE_PLOT = new Set(["evaluation", "save"]);
const RUG_HEIGHT = 13;

/** The marks of all runs: [{step, kind, text, rug, look}]; `rug` is the line of marks, one for each run. */
function listMarks(runs) {
  return runs.flatMap((run, index) =>
    run.marks
      .filter((mark) => mark.kind in MARK_KINDS && mark.step !== null)
      .map((mark) => ({
        ...mark,
        rug: index,
        look: runs.length > 1 ? makeLook(index) : null,
        text: runs.length > 1 ? `${run.name}: ${mark.text}` : mark.text,
      })),
  );
}

/** Lines of marks above the plot. */
function countRugs(marks) {
  return marks.filter((mark) => ABOVE_PLOT.has(mark.kind)).reduce((most, mark) => Math.max(most, mark.rug + 1), 0);
}

function isMarkShown(mark, view) {
  return !view.hiddenMarks.has(mark.kind) && mark.step >= view.range[0] && mark.step <= view.range[1];
}

/** Calls `act` with a drawing context that keeps within the plot, or `margin` around it, and is as before afterwards. */
function inPlot(u, margin, act) {
  const { ctx: context, bbox } = u;
  const ratio = devicePixelRatio || 1;
  const reach = margin * ratio;
  context.save();
  context.beginPath();
  context.rect(bbox.left - reach, bbox.top - reach, bbox.width + 2 * reach, bbox.height + 2 * reach);
  context.clip();
  context.setLineDash([]);
  act(context, ratio);
  context.restore();
}

/** Places of a curve's points on the canvas: [[x, y, low, high, place], …]; low and high are null without an interval. */
function placePoints(u, curve) {
  const isLog = u.scales.y.distr === 3;
  const at = (value, scale) => u.valToPos(value, scale, true);
  const bound = (value) =>
    value === null || value === undefined ? null : at(isLog ? Math.max(value, u.scales.y.min) : value, "y");
  return curve.step.flatMap((step, place) => {
    const value = curve.value[place];
    if (value === null || value === undefined) return [];
    return [[at(step, "x"), at(value, "y"), bound(curve.low?.[place]), bound(curve.high?.[place]), place]];
  });
}

/** Intervals: a band between two points or more, and a whisker at each. */
function drawBands(u, curves) {
  inPlot(u, 0, (context, ratio) => {
    for (const curve of curves) {
      const points = placePoints(u, curve).filter(([, , low, high]) => low !== null && high !== null);
      if (!points.length) continue;
      const tone = lookColour(curve.look);
      context.beginPath();
      points.forEach(([x, , low], index) => context[index ? "lineTo" : "moveTo"](x, low));
      [...points].reverse().forEach(([x, , , high]) => context.lineTo(x, high));
      context.fillStyle = withAlpha(tone, 0.12);
      context.fill();
      context.strokeStyle = withAlpha(tone, 0.55);
      context.lineWidth = ratio;
      for (const [x, , low, high] of points) drawWhisker(context, x, low, high, 3 * ratio);
    }
  });
}

function drawWhisker(context, x, low, high, reach) {
  context.beginPath();
  context.moveTo(x, low);
  context.lineTo(x, high);
  for (const y of [low, high]) {
    context.moveTo(x - reach, y);
    context.lineTo(x + reach, y);
  }
  context.stroke();
}

/** A marker at each point, so that a single one is seen too, and a ring around the best. */
function drawPoints(u, curves) {
  const isInside = ([x]) => x >= u.bbox.left - 1 && x <= u.bbox.left + u.bbox.width + 1;
  inPlot(u, 10, (context, ratio) => {
    for (const curve of curves) {
      const tone = lookColour(curve.look);
      for (const [x, y, , , place] of placePoints(u, curve).filter(isInside)) {
        context.fillStyle = tone;
        context.strokeStyle = colour("paper");
        context.lineWidth = 1.5 * ratio;
        traceMarker(context, curve.look.marker, x, y, 4 * ratio);
        context.fill();
        context.stroke();
        if (!curve.isBest?.[place]) continue;
        context.strokeStyle = tone;
        traceMarker(context, "circle", x, y, 8.5 * ratio);
        context.stroke();
      }
    }
  });
}

/** Marks: evaluations and the saves within them above the plot, the others at its foot, with a line through it for a restart. */
function drawMarks(u, marks, view) {
  const { ctx: context, bbox } = u;
  const ratio = devicePixelRatio || 1;
  context.save();
  context.setLineDash([]);
  for (const mark of marks.filter((each) => isMarkShown(each, view))) {
    const x = Math.round(u.valToPos(mark.step, "x", true));
    const isAbove = ABOVE_PLOT.has(mark.kind);
    const rug = (7 + RUG_HEIGHT * mark.rug) * ratio;
    const y = isAbove ? bbox.top - rug : bbox.top + bbox.height - rug;
    context.fillStyle = context.strokeStyle = mark.look ? lookColour(mark.look) : colour("soft");
    context.lineWidth = 1.2 * ratio;
    if (mark.kind === "restart") drawThrough(context, x, bbox, [3 * ratio, 3 * ratio]);
    traceMarker(context, MARK_SHAPES[mark.kind], x, y, MARK_SIZES[mark.kind] * ratio);
    if (mark.kind === "evaluation") context.stroke();
    else context.fill();
  }
  context.restore();
}

function drawThrough(context, x, bbox, dash) {
  context.save();
  context.globalAlpha = 0.6;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(x, bbox.top);
  context.lineTo(x, bbox.top + bbox.height);
  context.stroke();
  context.restore();
}

const NEAR = 7;

/** What the marks near the cursor say, beside it, in the chart that is pointed at or has the focus. */
function showTip(u, tip, marks, view) {
  const left = u.cursor.left;
  const isMeant = left >= 0 && u.root.parentElement.matches(":hover, :focus");
  const near = !isMeant
    ? []
    : marks.filter((mark) => isMarkShown(mark, view) && Math.abs(u.valToPos(mark.step, "x") - left) <= NEAR);
  tip.hidden = !near.length;
  if (!near.length) return;
  const steps = [...new Set(near.map((mark) => mark.step))];
  replace(
    tip,
    steps.map((step) => [
      make("b", {}, `step ${formatCount(step)}`),
      near.filter((mark) => mark.step === step).map((mark) => make("div", {}, mark.text)),
    ]),
  );
  tip.style.left = left < u.over.clientWidth / 2 ? `${left + 10}px` : "auto";
  tip.style.right = left < u.over.clientWidth / 2 ? "auto" : `${u.over.clientWidth - left + 10}px`;
}

/** The key of the marks, which also turns each kind on and off. */
function makeMarkKey(marks, view) {
  const kinds = Object.keys(MARK_KINDS).filter((kind) => marks.some((mark) => mark.kind === kind));
  const boxes = kinds.map((kind) => {
    const onChange = (isShown) => {
      view.hiddenMarks[isShown ? "delete" : "add"](kind);
      view.charts.forEach((chart) => chart.redraw());
    };
    const box = makeCheck(MARK_KINDS[kind], true, onChange);
    box.querySelector("span").prepend(drawMarkSign(kind));
    return box;
  });
  return kinds.length ? make("fieldset", { class: "marks" }, make("legend", {}, "Marks"), boxes) : null;
}

function drawMarkSign(kind) {
  const marker = drawMarker({ marker: MARK_SHAPES[kind], place: 0 });
  marker.setAttribute("class", kind === "evaluation" ? "sign hollow" : "sign");
  return draw("svg", { class: "swatch", width: 14, height: 14, viewBox: "8 0 14 14", "aria-hidden": "true" }, marker);
}
