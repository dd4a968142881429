// Texts of rows: shown so that nothing in them hides or reorders what is beside them, and divided into words.

// Controls, marks that turn the direction of writing, separators of lines, halves of surrogate pairs, marks without a width.
const UNSEEN = /(?![\t\n])[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]/gu;

/** A text as nodes; characters that are not seen, or would turn the text around, are shown by their numbers. */
function visibleText(text) {
  const nodes = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(UNSEEN)) {
    nodes.append(text.slice(end, match.index));
    const code = document.createElement("span");
    code.className = "code-point";
    code.textContent = `U+${match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    nodes.append(code);
    end = match.index + match[0].length;
  }
  nodes.append(text.slice(end));
  return nodes;
}

const UNSPACED = ["Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"]
  .map((name) => `\\p{Script=${name}}`)
  .join("");
const WORD = new RegExp(`[${UNSPACED}]\\p{M}*|[^\\s${UNSPACED}]+`, "gu");
const CHARACTER = /\S\p{M}*/gu;
const STARTS_UNSPACED = new RegExp(`^[${UNSPACED}]`, "u");

/** The words of a text; of scripts that do not put spaces between words, the characters. */
function splitWords(text) {
  return text.match(WORD) ?? [];
}

/** The characters of a text, each with its marks. */
function splitCharacters(text) {
  return text.match(CHARACTER) ?? [];
}

function hasSpaces(text) {
  return /\S\s+\S/u.test(text);
}

/** Parts of a text as words or characters, each with the white space before it: [[space, part], …]. */
function splitWithSpaces(text, byCharacter) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(byCharacter ? CHARACTER : WORD)) {
    parts.push([text.slice(end, match.index), match[0]]);
    end = match.index + match[0].length;
  }
  return parts;
}

/** Words as they stand in a text: with spaces, but between characters of scripts without spaces. */
function joinWords(words, byCharacter) {
  if (byCharacter) return words.join("");
  return words.reduce((text, word, index) => {
    const isClose = index === 0 || (STARTS_UNSPACED.test(word) && STARTS_UNSPACED.test(words[index - 1]));
    return text + (isClose ? "" : " ") + word;
  }, "");
}

/** The start of a long text, no longer than `limit`, and whether something was left out. */
function shorten(text, limit) {
  if (text.length <= limit) return [text, false];
  const start = text.slice(0, limit);
  return [/[\ud800-\udbff]$/.test(start) ? start.slice(0, -1) : start, true];
}
