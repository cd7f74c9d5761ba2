// WordPiece as BERT's (Devlin et al. 2019), the twin of fedrec/embed/wordpiece.py: client/golden holds both to one answer.

const SPACE = "\\t\\n\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const GROUP = new RegExp(`[^${SPACE}]+`, "gu");
const BLANK = new RegExp(`^[${SPACE}\\v\\f\\x1c-\\x1f\\x85]*$`, "u");
const DROPPED = /[\0\ufffd\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;
const MARKS = /\p{Mn}/gu;
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/u;
const LONGEST = 100; // characters of a word; longer ones are unknown
const IDEOGRAPHS = [
  [0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xf900, 0xfaff], [0x20000, 0x2a6df], [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf], [0x2f800, 0x2fa1f],
];

export class WordPiece {
  constructor(pieces, { max_tokens, lower, strip_accents, split_ideographs, unknown, marks, special }) {
    this.rows = new Map(pieces.map((piece, row) => [piece, row]));
    Object.assign(this, { most: max_tokens, lower, accents: !strip_accents, apart: split_ideographs, unknown, marks });
    this.special = new Set(special);
    const spelled = special.map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.cut = special.length ? new RegExp(`(${spelled.join("|")})`, "u") : null;
  }

  /** The tokenizer that an encoder.json describes. */
  static of(tokens, pieces) {
    return new WordPiece(pieces, tokens);
  }

  /** Ids of a text between its marks, at most as many as fit; none for a blank text. */
  ids(text) {
    if (BLANK.test(text)) return [];
    const inside = [];
    for (const piece of this.#pieces(text)) {
      if (inside.length >= this.most - 2) break;
      inside.push(piece);
    }
    return [this.marks[0], ...inside, this.marks[1]].map((piece) => this.rows.get(piece));
  }

  *#pieces(text) {
    for (const part of this.cut ? text.split(this.cut) : [text]) {
      if (this.special.has(part)) yield part;
      else for (const [group] of part.matchAll(GROUP)) for (const word of this.#words(group)) yield* this.#cut(word);
    }
  }

  #words(group) {
    let text = group.replace(DROPPED, "");
    if (this.apart) text = spaced(text, isIdeograph);
    if (!this.accents) text = text.normalize("NFD").replace(MARKS, "");
    if (this.lower) text = Array.from(text, (one) => one.toLowerCase()).join("");
    return spaced(text, (one) => PUNCTUATION.test(one)).split(/\s+/u).filter(Boolean);
  }

  /** The longest piece that begins the word, then the longest that goes on; unknown where none does. */
  #cut(word) {
    const letters = Array.from(word);
    const cut = [];
    if (letters.length > LONGEST) return [this.unknown];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length;
      let piece = "";
      for (; end > start; end--) {
        piece = (start ? "##" : "") + letters.slice(start, end).join("");
        if (this.rows.has(piece)) break;
      }
      if (end === start) return [this.unknown];
      cut.push(piece);
      start = end;
    }
    return cut.length ? cut : [this.unknown];
  }
}

/** Ids of the tiny encoder, which is for tests: CRC-32 of each word. */
export function hashedIds(text, size) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  return words.map((word) => 1 + (crc32(new TextEncoder().encode(word)) % (size - 1)));
}

function spaced(text, apart) {
  return Array.from(text, (one) => (apart(one) ? ` ${one} ` : one)).join("");
}

function isIdeograph(one) {
  const code = one.codePointAt(0);
  return IDEOGRAPHS.some(([low, high]) => low <= code && code <= high);
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
