// Numbers, times and counts as readers expect them.

const ABSENT = "–";

/** A number with about four digits that count. */
function formatNumber(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return ABSENT;
  const size = Math.abs(value);
  if (size < 1000 && Number.isInteger(value)) return String(value).replace("-", "−");
  if (size >= 1e7 || size < 1e-3)
    return value
      .toExponential(2)
      .replace("e+", "e")
      .replace("-", value < 0 ? "−" : "-");
  if (size >= 1000) return groupDigits(value.toFixed(0));
  const text = value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
  return text.replace("-", "−");
}

/** The short form that an axis has room for. */
function formatTick(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  if (size > 0 && size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return trim(value);
}

function trim(value) {
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function formatCount(value) {
  return value === null || value === undefined ? ABSENT : groupDigits(String(value));
}

function groupDigits(digits) {
  return digits.replace(/\B(?=(\d{3})+(?!\d))/g, ",").replace("-", "−");
}

/** A difference with its sign. */
function formatChange(value) {
  if (value === null || value === undefined) return ABSENT;
  return value > 0 ? `+${formatNumber(value)}` : formatNumber(value);
}

function formatInterval(low, high) {
  return low === null || low === undefined || high === null || high === undefined
    ? ""
    : `${formatNumber(low)} to ${formatNumber(high)}`;
}

/** A noun with its number: "1 row", "2 rows". */
function formatSome(number, noun) {
  return `${formatCount(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A label at the head of something: with a capital, unless its first word is a name such as chrF. */
function capitalise(text) {
  return /^(?!dstrain|\S*\.\w)[a-z]+(?!\w)/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

/** A moment to the minute, in UTC. */
function formatMoment(iso) {
  const date = new Date(iso ?? NaN);
  return Number.isNaN(date.getTime()) ? ABSENT : date.toISOString().slice(0, 16).replace("T", " ");
}

function formatDuration(seconds) {
  if (!Number.isFinite(seconds)) return ABSENT;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`;
}
