// A model pack in the browser: verified, read, and ranked with. What a person does stays in this page: the only
// requests are for the files of the pack and of its encoder. The numbers are those of fedrec.embed (client/golden).

export { WordPiece, hashedIds } from "./wordpiece.mjs";
import { WordPiece, hashedIds } from "./wordpiece.mjs";
import { parseTensors } from "./tensors.mjs";

export const KINDS = ["view", "click", "like", "rate", "search", "review", "skip"];
const CHOICES = new Set(["view", "click", "like", "rate", "review"]); // a search or a skip chooses nothing
const FAINTEST = 1e-6; // a view of a history is divided by its length, or by this
const SHORTEST = 1e-6; // of a text's way from the centre
const DOUBT = 8; // events: after so many, what a person does counts as much as what others choose
const ROUNDED = 1e-3; // how far a sum of float32 numbers may be from 1
const MOST = 1 << 30; // bytes of a file that a page takes on

export class PackError extends Error {}

/** A folder on the web: `get(name)` resolves to the bytes of a file in it. */
export function folder(base, fetcher = fetch) {
  const root = new URL(base.endsWith("/") ? base : `${base}/`, globalThis.location?.href);
  return async (name) => {
    const answer = await fetcher(new URL(name, root), { credentials: "omit", referrerPolicy: "no-referrer" });
    if (!answer.ok) throw new PackError(`${name} can be fetched; got ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  };
}

/**
 * The pack whose files `get` fetches: its manifest's signature is checked against `key` (Ed25519, 64 hexadecimal
 * digits), every file against the manifest. Without a key a pack is believed as far as its hashes go, which tells
 * damage and not who made it.
 */
export async function openPack(get, { key = null } = {}) {
  const manifest = await get("pack.json");
  if (key !== null) await checkSignature(manifest, await get("pack.sig"), key);
  const info = JSON.parse(new TextDecoder().decode(manifest));
  if (info.kind !== "fedrec model pack" || info.format !== 3) {
    throw new PackError(`a pack is of format 3; got ${info.kind} ${info.format}`);
  }
  if (key !== null && info.signer !== key.toLowerCase()) throw new PackError("a pack names whoever signed it");
  const read = (name) => listed(get, name, info.files[name]);
  const names = ["catalogue.jsonl", "items.safetensors", "model.safetensors"];
  const [catalogue, items, model, others] = await Promise.all([
    ...names.map(read), "popularity.safetensors" in info.files ? read("popularity.safetensors") : null,
  ]);
  const popularity = others && (parseTensors(others).popularity ?? { values: [] });
  return new Pack(info, lines(catalogue), parseTensors(items), parseTensors(model), popularity);
}

export class Pack {
  constructor(info, items, ranked, parameters, popularity = null) {
    this.info = info;
    this.items = items;
    this.rows = new Map(items.map((item, row) => [item.id, row]));
    this.vectors = ranked.vectors;
    this.prior = ranked.prior;
    this.centre = ranked.centre;
    this.projection = ranked.projection;
    this.parameters = parameters;
    this.dim = info.ranking.dim;
    this.decays = info.ranking.decays;
    this.profile = info.plan.profile;
    const count = this.items.length * this.dim;
    if (this.vectors.values.length !== count || this.prior.values.length !== this.items.length) {
      throw new PackError("a pack's item vectors are those of its catalogue");
    }
    this.usual = popularity && usual(popularity.values, this.items.length);
  }

  /** (dim,) the vector of the item in a row. */
  vector(row) {
    return this.vectors.values.subarray(row * this.dim, (row + 1) * this.dim);
  }

  /** (dim,) where an encoder's vector of a text lies among the items; zeros for a text without words. */
  place(encoded) {
    const pooled = this.#adapted(encoded);
    const placed = new Float64Array(this.dim);
    if (pooled.every((value) => value === 0)) return placed;
    const away = pooled.map((value, column) => value - this.centre.values[column]);
    const length = Math.max(Math.hypot(...away), SHORTEST);
    for (let column = 0; column < away.length; column++) {
      for (let k = 0; k < this.dim; k++) {
        placed[k] += (away[column] * this.projection.values[column * this.dim + k]) / length;
      }
    }
    return placed;
  }

  /** z + U·gelu(D·z)/√rank of a bottleneck adapter; z itself where there is none, or where it is LoRA. */
  #adapted(encoded) {
    const z = Float64Array.from(encoded);
    const down = this.parameters["adapter.body.down"];
    const up = this.parameters["adapter.body.up"];
    if (!down) return z;
    const [rank, width] = down.shape;
    const out = Float64Array.from(z);
    for (let r = 0; r < rank; r++) {
      let inner = 0;
      for (let column = 0; column < width; column++) inner += down.values[r * width + column] * z[column];
      const bent = gelu(inner) / Math.sqrt(rank);
      for (let column = 0; column < width; column++) out[column] += up.values[column * rank + r] * bent;
    }
    return out;
  }
}

/**
 * Reads texts with the encoder that a pack was published with. `ort` is onnxruntime-web, `get` fetches the encoder's
 * files (the folder encoders/DIGEST beside the packs).
 */
export async function openReader(pack, get, ort) {
  const digest = pack.info.text?.encoder ?? "";
  if (digest === "") throw new PackError("texts are read where a pack names an exported encoder");
  const content = await get("encoder.json");
  if ((await sha256(content)) !== digest) throw new PackError("texts are read with the pack's own encoder");
  const about = JSON.parse(new TextDecoder().decode(content));
  const { tokens, lora } = about;
  const graph = await listed(get, "encoder.onnx", about.files["encoder.onnx"]);
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const words = tokens.kind === "wordpiece" ? WordPiece.of(tokens, await vocabulary(get, about)) : null;
  const ids = (text) => (words ? words.ids(text) : hashedIds(text, tokens.size).slice(0, tokens.max_tokens));
  const factors = {};
  for (const { input, parameter } of lora?.factors ?? []) {
    const { values, shape } = pack.parameters[parameter];
    factors[input] = new ort.Tensor("float32", values, shape);
  }
  const encode = async (text) => {
    const found = ids(text);
    if (found.length === 0) return new Float32Array(pack.info.encoder.dim);
    const fed = new ort.Tensor("int64", BigInt64Array.from(found, BigInt), [1, found.length]);
    return (await session.run({ ids: fed, ...factors })).pooled.data;
  };
  return { ids, encode, read: async (text) => pack.place(await encode(text)) };
}

/**
 * What one person's events say, in the terms of one pack. `embedding` (dim,) is the local user embedding, if the app
 * keeps one. Events come in time order: {kind, item, text, rating (in [0, 1]), weight}, each with an item or a text.
 */
export class Taste {
  constructor(pack, reader = null, embedding = new Float64Array(pack.dim)) {
    this.pack = pack;
    this.reader = reader;
    this.embedding = embedding;
    this.sums = pack.decays.map(() => new Float64Array(pack.dim));
    this.seen = new Set();
    this.evidence = 0; // events that say something
  }

  async add({ kind, item = "", text = "", rating = null, weight = 1 }) {
    if (!KINDS.includes(kind)) throw new PackError(`an event's kind is one of ${KINDS.join(", ")}`);
    const row = item === "" ? -1 : (this.pack.rows.get(item) ?? -1);
    if (item !== "" && row < 0) return; // the pack does not have it
    const { profile } = this.pack;
    const rated = rating === null ? 1 : 1 + profile.rating * (2 * rating - 1);
    const signed = Math.fround(profile[kind] * rated * Math.fround(weight));
    const reading = text === "" ? null : await this.#read(text);
    const beside = signed * (row < 0 ? 1 : profile.text);
    if (signed !== 0 && (row >= 0 || reading?.some((value) => value !== 0))) this.evidence += 1;
    this.sums.forEach((sum, k) => {
      for (let column = 0; column < sum.length; column++) {
        sum[column] *= this.pack.decays[k];
        if (row >= 0) sum[column] += signed * this.pack.vectors.values[row * this.pack.dim + column];
        if (reading) sum[column] += beside * reading[column];
      }
    });
    if (row >= 0 && CHOICES.has(kind)) this.seen.add(row);
  }

  /** (decay, dim) views of all events, each of length 1 or 0. */
  contexts() {
    return this.sums.map((sum) => {
      const length = Math.max(Math.hypot(...sum), FAINTEST);
      return sum.map((value) => value / length);
    });
  }

  /** How far items are ranked by what others choose: 1 for strangers, falling to 0; 0 if the pack does not know. */
  others() {
    if (!this.pack.usual) return 0;
    const unknown = [...this.sums, this.embedding].every((vector) => vector.every((value) => value === 0));
    return unknown ? 1 : DOUBT / (DOUBT + this.evidence);
  }

  /** (item,) scores of all items. */
  scores() {
    const { pack } = this;
    const wanted = this.#query();
    const own = Float64Array.from(pack.prior.values, (prior, row) => prior + dot(pack.vector(row), wanted));
    const others = this.others();
    return pack.usual ? own.map((score, row) => (1 - others) * score + others * pack.usual[row]) : own;
  }

  /** The best `k` items: [{item, text, score}]. Ties go to the one that comes first in the catalogue. */
  recommend(k = 10, { hideSeen = true, allowed = () => true } = {}) {
    const scores = this.scores();
    const rows = [...scores.keys()].filter(
      (row) => !(hideSeen && this.seen.has(row)) && allowed(this.pack.items[row]),
    );
    rows.sort((a, b) => scores[b] - scores[a] || a - b);
    return rows.slice(0, k).map((row) => ({ ...this.pack.items[row], score: scores[row] }));
  }

  async #read(text) {
    if (this.reader === null) throw new PackError("texts are read by a reader; open one for this pack");
    return this.reader.read(text);
  }

  /** (dim,) Σ_k W_k c_k + e. */
  #query() {
    const { dim, parameters } = this.pack;
    const { values, shape } = parameters.maps;
    const wanted = Float64Array.from(this.embedding);
    this.contexts().forEach((context, k) => {
      for (let from = 0; from < dim; from++) {
        if (shape.length === 2) wanted[from] += context[from] * values[k * dim + from];
        else for (let to = 0; to < dim; to++) wanted[to] += context[from] * values[(k * dim + from) * dim + to];
      }
    });
    return wanted;
  }
}

/** (item,) log of how many times as often as another item each is chosen. */
function usual(shares, items) {
  const sum = shares.reduce((total, share) => total + share, 0);
  if (shares.length !== items || !shares.every((share) => share > 0) || Math.abs(sum - 1) >= ROUNDED) {
    throw new PackError("popularities are positive and add up to 1");
  }
  return Float64Array.from(shares, (share) => Math.log(share * items));
}

async function vocabulary(get, about) {
  const content = await listed(get, "vocab.txt", about.files["vocab.txt"]);
  return new TextDecoder().decode(content).replace(/\n$/, "").split("\n");
}

async function listed(get, name, entry) {
  if (!entry || entry.bytes > MOST) throw new PackError(`${name} is listed, and no larger than a page takes on`);
  const content = await get(name);
  if (content.length !== entry.bytes || (await sha256(content)) !== entry.sha256) {
    throw new PackError(`${name} has the hash that its list names`);
  }
  return content;
}

async function checkSignature(content, signature, key) {
  if (!/^[0-9a-f]{64}$/i.test(key)) throw new PackError("a key is 64 hexadecimal digits");
  const raw = Uint8Array.from(key.match(/../g), (pair) => parseInt(pair, 16));
  let genuine = false;
  try {
    const known = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
    genuine = await crypto.subtle.verify("Ed25519", known, signature, content);
  } catch (error) {
    throw new PackError(`this browser checks Ed25519 signatures; got ${error.name}`);
  }
  if (!genuine) throw new PackError("a pack is signed by its site");
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function lines(content) {
  return new TextDecoder().decode(content).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

function dot(a, b) {
  let sum = 0;
  for (let column = 0; column < b.length; column++) sum += a[column] * b[column];
  return sum;
}

/** x·Φ(x), to about 1e-7: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, formula 7.1.26. */
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const erf = 1 - tail * Math.exp(-z * z);
  return 0.5 * x * (1 + Math.sign(x) * erf);
}
