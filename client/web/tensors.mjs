// The safetensors format: the length of a header, the header in JSON, then the numbers.

/** Name → {values, shape}; every tensor is float32 and finite. */
export function parseTensors(content) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > content.byteLength - 8) throw new Error("a file of tensors is whole");
  const header = JSON.parse(new TextDecoder().decode(content.subarray(8, 8 + length)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [start, stop] }] of Object.entries(header)
    .filter(([name]) => name !== "__metadata__")) {
    if (dtype !== "F32") throw new Error(`a pack's tensors are float32; ${name} is ${dtype}`);
    const bytes = content.slice(8 + length + start, 8 + length + stop); // numbers must begin where four divides
    const values = new Float32Array(bytes.buffer, 0, bytes.length / 4);
    const size = shape.reduce((product, side) => product * side, 1);
    if (values.length !== size || !values.every(Number.isFinite)) {
      throw new Error(`a tensor is of its shape, and finite; ${name} is not`);
    }
    tensors[name] = { values, shape };
  }
  return tensors;
}
