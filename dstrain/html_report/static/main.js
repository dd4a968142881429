// Puts the page together once the document is unpacked.

const SECTIONS = [
  ["Summary", (report) => makeSummarySection(report)],
  ["Curves", (report) => makeCurvesSection(report.runs)],
  ["Hypotheses", (report) => makeHypothesesSection(report.runs)],
  ["Data audit", (report) => makeAuditSection(report.runs)],
  ["Settings", (report) => makeSettingsSection(report.runs)],
  ["Attempts", (report) => makeTimelineSection(report.runs)],
  ["Notes", (report) => makeNotesSection(report)],
];

function makeHead(report) {
  const names = report.runs.map((run) => run.name);
  const states = report.runs.map((run) => (names.length > 1 ? `${run.name}: ${run.state}` : run.state)).filter(Boolean);
  const title = make(
    "h1",
    {},
    names.map((name, place) => [
      place > 0 && make("span", { class: "soft" }, place === names.length - 1 ? " and " : ", "),
      name,
    ]),
  );
  const made = report.created && `report of ${formatMoment(report.created)} UTC`;
  const about = [...states, made, report.dstrain && `dstrain ${report.dstrain}`].filter(Boolean).join(" · ");
  return [make("div", { class: "titles" }, title, make("p", { class: "about" }, about)), makeThemeSwitch()];
}

/** Links to the sections; the one that is being read is marked, and scrolled into view where they do not all fit. */
function makeContents(sections) {
  const links = sections.map(([name, section]) => make("a", { href: `#${section.id}` }, name));
  let [marked, askedAt] = [null, null];
  const mark = () => {
    const { scrollTop } = document.documentElement;
    const asked = scrollTop === askedAt ? location.hash.slice(1) : null;
    const elements = sections.map(([, section]) => section);
    const link = links[findRead(elements, asked)];
    if (link === marked) return;
    marked?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    const bar = link.parentElement;
    bar.scrollLeft = link.offsetLeft - (bar.clientWidth - link.offsetWidth) / 2;
    marked = link;
  };
  addEventListener("scroll", mark, { passive: true });
  addEventListener("resize", mark);
  addEventListener("hashchange", () => {
    askedAt = document.documentElement.scrollTop;
    mark();
  });
  return { links, mark };
}

/** The place of the section that is being read: the last one that begins above a line a little below the contents. */
function findRead(sections, asked) {
  const line = document.getElementById("contents").offsetHeight + 80;
  const root = document.documentElement;
  const isAtEnd = root.scrollTop > 0 && root.scrollTop + root.clientHeight >= root.scrollHeight - 2;
  const begun = Math.max(
    0,
    sections.findLastIndex((section) => section.getBoundingClientRect().top <= line),
  );
  if (!isAtEnd) return begun;
  // those below are not reached by scrolling: the one that was asked for is read, or the last
  return Math.max(begun, asked === null ? sections.length - 1 : sections.findIndex(({ id }) => id === asked));
}

async function showReport() {
  const obstacle = findObstacle();
  const loading = document.getElementById("loading");
  if (obstacle) {
    loading.textContent = obstacle;
    return;
  }
  loading.textContent = "Unpacking the report …";
  const report = await readDocument(document.getElementById("dstrain-data"));
  watchTheme();
  if (!report.runs.length) {
    loading.textContent = "This report holds no run.";
    return;
  }
  const sections = SECTIONS.map(([name, build]) => [name, build(report)]);
  replace(document.getElementById("head"), makeHead(report));
  const { links, mark } = makeContents(sections);
  replace(document.getElementById("contents"), links);
  replace(
    document.getElementById("main"),
    sections.map(([, section]) => section),
  );
  replace(
    document.getElementById("foot"),
    `Made by dstrain ${report.dstrain}. Charts are drawn by uPlot, under the MIT licence. `,
    "All of this page is in this file; it asks for nothing from anywhere.",
  );
  mark();
  document.documentElement.dataset.ready = "true";
}

showReport().catch((error) => {
  document.getElementById("loading").textContent = `The data of this report cannot be read: ${error.message}`;
  throw error;
});
