// Which curves a chart has, and what is computed of them. Nothing here draws.
// A curve: {label, look, step, value, low, high, isBest}; `low`, `high` and `isBest` are null where there is no interval.

const EVERY_GROUP = "*";
const MOST_GROUPS = 12; // in one chart
const NOISY = new Set(["loss", "gradient_norm", "tokens_per_second", "padding", "data_seconds"]);
const DIRECTIONS = new Map([
  [true, "higher is better"],
  [false, "lower is better"],
]);

/** The mean over `width` points around each point, fewer at both ends; points without a value count on neither side. */
function smooth(values, width) {
  const reach = Math.floor(width / 2);
  if (!reach) return values;
  return values.map((value, index) => {
    if (value === null) return null;
    const near = Math.min(reach, index, values.length - 1 - index); // as many before as after, so that nothing is shifted
    const window = values.slice(index - near, index + near + 1).filter((each) => each !== null);
    return window.reduce((sum, each) => sum + each, 0) / window.length;
  });
}

/** The curves over one axis: [steps of any, values of the first, …]; undefined where a curve has no such step. */
function joinCurves(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.step))].sort((one, other) => one - other);
  const place = new Map(steps.map((step, index) => [step, index]));
  const columns = curves.map((curve) => {
    const column = new Array(steps.length).fill(undefined);
    curve.step.forEach((step, index) => (column[place.get(step)] = curve.value[index]));
    return column;
  });
  return [steps, ...columns];
}

/** The smallest and largest value among the steps shown, intervals included, with some air around them. */
function findRange(curves, [from, to], isLog) {
  let [least, most] = [Infinity, -Infinity];
  for (const curve of curves) {
    curve.step.forEach((step, index) => {
      if (step < from || step > to) return;
      for (const value of [curve.value[index], curve.low?.[index], curve.high?.[index]]) {
        if (value === null || value === undefined || (isLog && value <= 0)) continue;
        least = Math.min(least, value);
        most = Math.max(most, value);
      }
    });
  }
  if (least > most) return isLog ? [0.1, 1] : [0, 1];
  if (isLog) return [least / 1.15, most * 1.15];
  const air = (most - least || Math.abs(most) || 1) * 0.07;
  return [least >= 0 && least - air < 0 ? 0 : least - air, most + air];
}

/** Ticks of a logarithmic axis: powers of ten over several of them, more between where the range is narrow. */
function listLogTicks(low, high) {
  const powers = Math.log10(high / low);
  if (powers < 0.35) return [0.1, 0.5, 0.9].map((part) => Number((low * (high / low) ** part).toPrecision(2)));
  const factors = powers > 2.6 ? [1] : powers > 0.9 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of factors) ticks.push(Number(`${factor}e${power}`));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** The same curves without what a logarithm has no place for, and how many points that are. */
function keepPositive(curves) {
  let left = 0;
  const kept = curves.map((curve) => {
    const value = curve.value.map((each) => (each !== null && each <= 0 ? ((left += 1), null) : each));
    return { ...curve, value };
  });
  return [kept, left];
}

/** The same curves with only the points that no line reaches: those with no value before and none after. */
function keepAlone(curves) {
  const isKnown = (value) => value !== null && value !== undefined;
  return curves.map((curve) => ({
    ...curve,
    value: curve.value.map((each, place) =>
      isKnown(curve.value[place - 1]) || isKnown(curve.value[place + 1]) ? null : each,
    ),
  }));
}

/** First and last step of anything that a run has; from 0, so that all runs begin at the same place. */
function findExtent(runs) {
  const metricSteps = (run) => run.metrics.flatMap((metric) => metric.curves.flatMap((curve) => curve.step));
  const steps = runs.flatMap((run) => [
    ...run.train.step,
    ...metricSteps(run),
    ...run.marks.map((mark) => mark.step ?? 0),
  ]);
  return [0, steps.reduce((most, step) => Math.max(most, step), 1)];
}

/** Name to the runs' things of this name, in the order in which they first occur. */
function gatherByName(runs, thingsOf) {
  const found = new Map();
  runs.forEach((run, index) => {
    for (const thing of thingsOf(run)) {
      if (!found.has(thing.name)) found.set(thing.name, []);
      found.get(thing.name).push([index, thing]);
    }
  });
  return found;
}

/** A chart for each column of training: its title, and a curve for each run. */
function listTrainCharts(runs) {
  const charts = [];
  for (const [name, columns] of gatherByName(runs, (run) => run.train.columns)) {
    const known = columns.filter(([, column]) => column.values.some((value) => value !== null));
    if (!known.length) continue;
    const curves = known.map(([index, column]) => ({
      label: runs.length > 1 ? runs[index].name : capitalise(column.label),
      look: makeLook(index),
      step: runs[index].train.step,
      value: column.values,
      low: null,
      high: null,
      isBest: null,
    }));
    const [, { label, unit, log }] = known[0];
    charts.push({
      name,
      title: capitalise(label),
      unit,
      isLog: Boolean(log),
      isNoisy: NOISY.has(name),
      hasMarkers: false,
      curves,
    });
  }
  return charts;
}

/** The sets and groups that have curves: [{set, group, text}], whole sets first. */
function listChoices(runs) {
  const curves = runs.flatMap((run) => run.metrics.flatMap((metric) => metric.curves));
  const sets = [...new Set(curves.map((curve) => curve.set))];
  return sets.flatMap((set) => {
    const groups = [
      ...new Set(curves.filter((curve) => curve.set === set && curve.group !== null).map((curve) => curve.group)),
    ];
    const whole = [{ set, group: null, text: `${set}, all rows` }];
    const every =
      groups.length > 1 && groups.length <= MOST_GROUPS
        ? [{ set, group: EVERY_GROUP, text: `${set}, every group` }]
        : [];
    return [...whole, ...every, ...groups.map((group) => ({ set, group, text: `${set}, group ${group}` }))];
  });
}

/** A chart for each metric that has curves of this set and group. */
function listMetricCharts(runs, { set, group }) {
  const charts = [];
  for (const [name, metrics] of gatherByName(runs, (run) => run.metrics)) {
    const isWanted = (curve) =>
      curve.set === set && (group === EVERY_GROUP ? curve.group !== null : curve.group === group);
    const found = metrics.flatMap(([index, metric]) => metric.curves.filter(isWanted).map((curve) => [index, curve]));
    if (!found.length) continue;
    const groups = [...new Set(found.map(([, curve]) => curve.group))];
    const curves = found.map(([index, curve]) => ({
      ...nameCurve(runs, index, curve, groups),
      step: curve.step,
      value: curve.value,
      low: curve.low ?? null,
      high: curve.high ?? null,
      isBest: markBest(runs[index].best, name, curve),
    }));
    const [, { label, higher_is_better: isHigherBetter, signature }] = metrics[0];
    charts.push({
      name,
      title: capitalise(label),
      unit: DIRECTIONS.get(isHigherBetter) ?? "",
      signature,
      isLog: false,
      isNoisy: false,
      hasMarkers: true,
      isPrimary: metrics.some(([, metric]) => metric.is_primary),
      curves,
    });
  }
  return charts.sort((one, other) => Number(other.isPrimary) - Number(one.isPrimary));
}

/** Whether a chart says something: one that is 0 throughout, as rates of rare failures are, is named in a sentence instead. */
function isZero(chart) {
  return chart.curves.every((curve) => curve.value.every((value) => value === 0 || value === null));
}

/** Label and look: a colour for each group, or for each run where there is one group; the run has the dash in any case. */
function nameCurve(runs, index, curve, groups) {
  const place = groups.indexOf(curve.group);
  if (groups.length === 1)
    return { label: runs.length > 1 ? runs[index].name : (curve.group ?? curve.set), look: makeLook(index) };
  if (runs.length === 1) return { label: curve.group, look: makeLook(place) };
  return { label: `${runs[index].name}, ${curve.group}`, look: makeLook(place, index) };
}

function markBest(best, metric, curve) {
  if (!best || best.metric !== metric || best.set !== curve.set || curve.group !== null) return null;
  return curve.step.map((step) => step === best.step);
}
