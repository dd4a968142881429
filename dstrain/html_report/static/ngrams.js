// N-grams that one system makes more often than the other, against the references, as compare-mt counts them.

const MOST_COUNTED = 20_000; // characters of a text
const LONGEST_NGRAM = 4;
const SEPARATOR = "\n"; // in no word

/** How often each n-gram occurs in a list of words, of 1 up to 4 words. */
function countNgrams(words) {
  const counts = new Map();
  for (let size = 1; size <= LONGEST_NGRAM; size += 1) {
    for (let start = 0; start + size <= words.length; start += 1) {
      const ngram = words.slice(start, start + size).join(SEPARATOR);
      counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
    }
  }
  return counts;
}

/** Whether most references are written without spaces, so that the parts to count are characters. */
function isByCharacter(rows) {
  return rows.filter((row) => !hasSpaces(row.references[0] ?? "")).length * 2 > rows.length;
}

/** N-grams of several references: each as often as in the reference that has it most often. */
function countReferences(references, split) {
  const most = new Map();
  for (const reference of references) {
    for (const [ngram, number] of countNgrams(split(reference)))
      most.set(ngram, Math.max(number, most.get(ngram) ?? 0));
  }
  return most;
}

/**
 * N-gram to [right in A, right in B, too many in A, too many in B, missing in A, missing in B], summed over the rows. Right
 * are as many as the references have, too many those above, missing those below.
 */
function tallyNgrams(rows, byCharacter) {
  const split = (text) => (byCharacter ? splitCharacters : splitWords)(shorten(text, MOST_COUNTED)[0]);
  const tally = new Map();
  for (const row of rows) {
    const wanted = countReferences(row.references, split);
    const systems = [row.a, row.b].map((text) => (text === null ? null : countNgrams(split(text))));
    for (const ngram of new Set([
      ...wanted.keys(),
      ...systems.flatMap((system) => (system ? [...system.keys()] : [])),
    ])) {
      if (!tally.has(ngram)) tally.set(ngram, [0, 0, 0, 0, 0, 0]);
      const counts = tally.get(ngram);
      const needed = wanted.get(ngram) ?? 0;
      systems.forEach((system, side) => {
        if (!system) return;
        const made = system.get(ngram) ?? 0;
        counts[side] += Math.min(made, needed);
        counts[2 + side] += Math.max(made - needed, 0);
        counts[4 + side] += Math.max(needed - made, 0);
      });
    }
  }
  return tally;
}

const NGRAM_KINDS = { right: [0], many: [2], missing: [4], made: [0, 2] };

/**
 * N-grams that lean to A and to B, strongest first: [[{text, a, b, share}, …] of A, [… of B]]. The share is A's part of both
 * counts, each with one added, as in compare-mt, so that a rare n-gram does not come before a frequent one.
 */
function rankNgrams(tally, { kind, size, byCharacter, most }) {
  const found = [];
  for (const [ngram, counts] of tally) {
    const words = ngram.split(SEPARATOR);
    if (size && words.length !== size) continue;
    const [a, b] = [0, 1].map((side) => NGRAM_KINDS[kind].reduce((sum, at) => sum + counts[at + side], 0));
    if (a !== b) found.push({ text: joinWords(words, byCharacter), a, b, share: (a + 1) / (a + b + 2) });
  }
  const order = (sign) => (one, other) =>
    sign * (other.share - one.share) || other.a + other.b - one.a - one.b || (one.text < other.text ? -1 : 1);
  return [
    found
      .filter((each) => each.a > each.b)
      .sort(order(1))
      .slice(0, most),
    found
      .filter((each) => each.b > each.a)
      .sort(order(-1))
      .slice(0, most),
  ];
}
