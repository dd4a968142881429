// The document inside the page: unpacked, and completed so that no other file has to ask whether a part is there.

/** What the page lacks to be read, in a sentence; null if nothing. */
function findObstacle() {
  if (typeof DecompressionStream === "undefined") {
    const browsers = "Chrome or Edge 111, Firefox 113, Safari 16.4, or later";
    return `This report needs a newer browser, which can unpack data (DecompressionStream): ${browsers}.`;
  }
  return null;
}

/** The document, from base64 of gzip of JSON. */
async function readDocument(element) {
  const packed = atob(element.textContent.trim());
  const bytes = new Uint8Array(packed.length);
  for (let index = 0; index < packed.length; index += 1) bytes[index] = packed.charCodeAt(index);
  element.remove(); // so that the text is not kept twice
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return completeDocument(await new Response(stream).json());
}

function completeDocument(found) {
  const lists = { damage: found.damage ?? [], notes: found.notes ?? [], runs: (found.runs ?? []).map(completeRun) };
  return { created: null, dstrain: "", ...found, ...lists };
}

function completeRun(found) {
  const run = {
    name: found.folder ?? "run",
    folder: "",
    state: "",
    why: "",
    advice: "",
    best: null,
    audit: null,
    ...found,
    train: { step: [], columns: [], ...found.train },
  };
  for (const part of ["summary", "metrics", "marks", "attempts", "warnings", "settings", "sets", "unread"])
    run[part] = found[part] ?? [];
  run.sets = run.sets.map(completeSet);
  return run;
}

function completeSet(found) {
  const ids = found.rows?.id ?? [];
  const column = (name) => found.rows?.[name] ?? ids.map(() => null);
  const rows = { id: ids };
  for (const name of ["source", "reference", "group", "length", "rarity"]) rows[name] = column(name);
  const evaluations = found.evaluations ?? [];
  return {
    score_name: null,
    score_higher_is_better: true,
    is_sampled: false,
    num_rows: ids.length,
    ...found,
    rows,
    evaluations: evaluations.map((each) => ({ ...each, scores: each.scores ?? [] })),
    hypotheses: found.hypotheses ?? [],
    row_scores: found.row_scores ?? ids.map(() => evaluations.map(() => null)),
  };
}
