// Puts the page together once the document is unpacked.

const SECTIONS = [
  ["Summary", (report) => makeSummarySection(report.runs)],
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

/** Links to the sections; the one that is being read is marked. */
function makeContents(sections) {
  const links = sections.map(([name, section]) => make("a", { href: `#${section.id}` }, name));
  const inView = new Set();
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
      const current = sections.findIndex(([, section]) => inView.has(section));
      links.forEach((link, place) =>
        place === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"),
      );
    },
    { rootMargin: "-25% 0px -60% 0px" },
  );
  sections.forEach(([, section]) => watch.observe(section));
  return links;
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
  replace(document.getElementById("contents"), makeContents(sections));
  replace(
    document.getElementById("main"),
    sections.map(([, section]) => section),
  );
  replace(
    document.getElementById("foot"),
    `Made by dstrain ${report.dstrain}. Charts are drawn by uPlot, under the MIT licence. `,
    "All of this page is in this file; it asks for nothing from anywhere.",
  );
  document.documentElement.dataset.ready = "true";
}

showReport().catch((error) => {
  document.getElementById("loading").textContent = `The data of this report cannot be read: ${error.message}`;
  throw error;
});
