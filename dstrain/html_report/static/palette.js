// How curves are distinguished: colours that all readers can see (after Okabe and Ito), and dashes and markers beside them.

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [14, 4]];
const MARKERS = ["circle", "square", "triangle", "diamond", "cross", "bar"];

const theme = { listeners: [], choice: "system" };

/** The look of the curve at this place: the colour's place in the style sheet, dash and marker. */
function makeLook(place, dashPlace = place) {
  const round = Math.floor(dashPlace / DASHES.length);
  return {
    place: place % 6,
    dash: DASHES[(dashPlace + round) % DASHES.length],
    marker: MARKERS[(dashPlace + round) % MARKERS.length],
  };
}

/** The value of a colour of the style sheet, in the theme that is on. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function lookColour(look) {
  return colour(`series-${look.place}`);
}

function withAlpha(hex, alpha) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

/** A marker around a point of a canvas. */
function traceMarker(context, marker, x, y, radius) {
  const r = radius;
  context.beginPath();
  if (marker === "circle") context.arc(x, y, r, 0, 2 * Math.PI);
  else if (marker === "square") context.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  else if (marker === "bar") context.rect(x - r * 0.4, y - r * 1.2, r * 0.8, r * 2.4);
  else
    for (const [index, [dx, dy]] of SHAPES[marker].entries())
      context[index ? "lineTo" : "moveTo"](x + dx * r, y + dy * r);
  context.closePath();
}

const SHAPES = {
  triangle: [
    [0, -1.2],
    [1.15, 0.9],
    [-1.15, 0.9],
  ],
  diamond: [
    [0, -1.35],
    [1.35, 0],
    [0, 1.35],
    [-1.35, 0],
  ],
  cross: [
    [-1.1, -0.5],
    [-0.5, -1.1],
    [0, -0.5],
    [0.5, -1.1],
    [1.1, -0.5],
    [0.5, 0],
    [1.1, 0.5],
    [0.5, 1.1],
    [0, 0.5],
    [-0.5, 1.1],
    [-1.1, 0.5],
    [-0.5, 0],
  ],
};

/** The piece of line that stands for a curve in a legend. */
function makeSwatch(look, hasMarker) {
  const line = draw("line", {
    x1: 0,
    y1: 7,
    x2: 30,
    y2: 7,
    class: `stroke-${look.place}`,
    "stroke-dasharray": look.dash.join(" "),
  });
  return draw(
    "svg",
    { class: "swatch", width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true" },
    line,
    hasMarker && drawMarker(look),
  );
}

function drawMarker({ marker, place }) {
  const at = { class: `fill-${place}` };
  if (marker === "circle") return draw("circle", { ...at, cx: 15, cy: 7, r: 4 });
  if (marker === "square") return draw("rect", { ...at, x: 11.4, y: 3.4, width: 7.2, height: 7.2 });
  if (marker === "bar") return draw("rect", { ...at, x: 13.4, y: 2.2, width: 3.2, height: 9.6 });
  return draw("polygon", { ...at, points: SHAPES[marker].map(([x, y]) => `${15 + 4 * x},${7 + 4 * y}`).join(" ") });
}

/** Light or dark: what the reader chose, or else what the system has. `isPrinted` is light in any case. */
function applyTheme(isPrinted = false) {
  const isDark =
    theme.choice === "dark" || (theme.choice === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = isDark && !isPrinted ? "dark" : "light";
  for (const listener of theme.listeners) listener();
}

function watchTheme() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => applyTheme());
  addEventListener("beforeprint", () => applyTheme(true));
  addEventListener("afterprint", () => applyTheme());
  applyTheme();
}

function makeThemeSwitch() {
  const options = [
    ["system", "As the system"],
    ["light", "Light"],
    ["dark", "Dark"],
  ];
  const onChange = (value) => {
    theme.choice = value;
    applyTheme();
  };
  return makeSelect("Colours", options, theme.choice, onChange);
}
