// Mean row scores by what the rows are like: their length, their rarest word, their group.

const LENGTHS = [1, 5, 10, 15, 20, 30, 40, 60];
const RARITIES = [0, 1, 2, 5, 10, 100, 1000];

/** The label of the bucket from this edge to the next. */
function nameBucket(edges, place) {
  const [from, next] = [edges[place], edges[place + 1]];
  if (next === undefined) return `${formatCount(from)} or more`;
  return next - from === 1 ? formatCount(from) : `${formatCount(from)} to ${formatCount(next - 1)}`;
}

/** Rows by the bucket that a number of theirs falls into: [[label, rows], …], in order, without empty ones. */
function divideByNumber(rows, key, edges) {
  const buckets = edges.map((_, place) => [nameBucket(edges, place), []]);
  for (const row of rows) {
    if (row[key] === null || row[key] === undefined) continue;
    const place = edges.findLastIndex((edge) => row[key] >= edge);
    if (place >= 0) buckets[place][1].push(row);
  }
  return buckets.filter(([, inside]) => inside.length);
}

/** Rows by group, largest first. */
function divideByGroup(rows) {
  const groups = new Map();
  for (const row of rows) {
    if (row.group === null || row.group === undefined) continue;
    if (!groups.has(row.group)) groups.set(row.group, []);
    groups.get(row.group).push(row);
  }
  return [...groups].sort(([, one], [, other]) => other.length - one.length);
}

/** Mean and half the width of its 95 % interval, from the spread of the values; of null values nothing is counted. */
function summarise(values) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return { number: 0, mean: null, half: null };
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const half = known.length > 1 ? 1.96 * Math.sqrt(squares / (known.length - 1) / known.length) : null;
  return { number: known.length, mean, half };
}

/** A line for each bucket: {label, number, a, b, difference}, each of the latter as `summarise` returns it. */
function summariseBuckets(buckets) {
  return buckets.map(([label, rows]) => ({
    label,
    number: rows.length,
    a: summarise(rows.map((row) => row.scoreA)),
    b: summarise(rows.map((row) => row.scoreB)),
    difference: summarise(rows.map((row) => row.difference)),
  }));
}
