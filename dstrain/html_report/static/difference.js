// Differences between two texts, by words or by characters, and how they are marked. Deciding and showing are apart.

const MOST_CELLS = 4_000_000; // of the table of common parts; above it nothing is marked

/** Which parts of two lists are common to both, in order: [[isCommon of each of one], [… of other]]; null if too long. */
function findCommon(one, other) {
  const start = countEqual(one, other, (list, index) => list[index]);
  const rest = [one.slice(start), other.slice(start)];
  const end = countEqual(...rest, (list, index) => list[list.length - 1 - index]);
  const middle = rest.map((list) => list.slice(0, list.length - end));
  const [rows, columns] = middle.map((list) => list.length);
  if ((rows + 1) * (columns + 1) > MOST_CELLS) return null;
  const common = [new Array(one.length).fill(true), new Array(other.length).fill(true)];
  common[0].fill(false, start, start + rows);
  common[1].fill(false, start, start + columns);
  const lengths = tabulateCommon(...middle);
  for (let row = 0, column = 0; row < rows && column < columns;) {
    if (middle[0][row] === middle[1][column]) {
      common[0][start + row] = common[1][start + column] = true;
      row += 1;
      column += 1;
    } else if (lengths[row + 1][column] >= lengths[row][column + 1]) row += 1;
    else column += 1;
  }
  return common;
}

function countEqual(one, other, at) {
  const most = Math.min(one.length, other.length);
  let equal = 0;
  while (equal < most && at(one, equal) === at(other, equal)) equal += 1;
  return equal;
}

/** The length of the longest common part of what is left of both, from each place on. */
function tabulateCommon(one, other) {
  const lengths = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let row = one.length - 1; row >= 0; row -= 1) {
    for (let column = other.length - 1; column >= 0; column -= 1) {
      lengths[row][column] =
        one[row] === other[column]
          ? lengths[row + 1][column + 1] + 1
          : Math.max(lengths[row + 1][column], lengths[row][column + 1]);
    }
  }
  return lengths;
}

/**
 * A text against another that it should equal: [{kind, text}, …] with the kinds "same", "extra" (only in the text) and
 * "missing" (only in the other), in the order of reading; null if the texts are too long to be compared.
 */
function findDifferences(text, wanted) {
  const byCharacter = !hasSpaces(text) && !hasSpaces(wanted);
  const [own, others] = [splitWithSpaces(text, byCharacter), splitWithSpaces(wanted, byCharacter)];
  const common = findCommon(
    own.map(([, part]) => part),
    others.map(([, part]) => part),
  );
  if (!common) return null;
  const pieces = [];
  const add = (kind, piece) => {
    const last = pieces[pieces.length - 1];
    if (last?.kind === kind) last.text += piece;
    else if (piece) pieces.push({ kind, text: piece });
  };
  const put = (kind, [space, part]) => {
    const before = pieces[pieces.length - 1]?.kind ?? "same";
    const isWithin = before === kind; // the space before marked words is not marked itself
    const between = !byCharacter && !isWithin && before !== "same" ? " " : ""; // a text that begins has no space before it
    add(isWithin ? kind : "same", space || between);
    add(kind, part);
  };
  let place = 0;
  own.forEach((piece, index) => {
    if (!common[0][index]) return put("extra", piece);
    for (; !common[1][place]; place += 1) put("missing", others[place]);
    put("same", piece);
    place += 1;
  });
  for (; place < others.length; place += 1) put("missing", others[place]);
  return pieces;
}

/** The reference that has most in common with a text; the first if they are too long to be compared. */
function findClosest(text, references) {
  if (references.length < 2) return references[0] ?? "";
  const differing = references.map((each) => {
    const pieces = findDifferences(text, each);
    return pieces
      ? pieces.filter((piece) => piece.kind !== "same").reduce((sum, piece) => sum + piece.text.length, 0)
      : Infinity;
  });
  return references[differing.indexOf(Math.min(...differing))] ?? references[0];
}

/** A text with its differences marked. */
function markDifferences(text, wanted) {
  const pieces = findDifferences(text, wanted);
  if (!pieces) return [visibleText(text)];
  return pieces.map(({ kind, text: part }) => {
    if (kind === "same") return visibleText(part);
    return make(kind === "extra" ? "ins" : "del", {}, part);
  });
}
