/**
 * A GGUF file of a Llama-shaped model, for llama.cpp: the weights of a folder of `makeModelFolder`, in float32 or
 * bfloat16. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
 */
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ShapeError } from '../src/errors/index.js';
import type { ComputeDtype, ModelShape } from './jobs.js';

const MAGIC = 0x46554747; // "GGUF"
const VERSION = 3;
/** Every tensor begins at a multiple of it. */
const ALIGNMENT = 32;
/** Types of metadata values. */
const [UINT32, INT32, FLOAT32, STRING, ARRAY] = [4, 5, 6, 8, 9] as const;
/** Types of tensors. */
const GGML_TYPES = { float32: 0, bfloat16: 30 } as const;

/** Bytes, put one after the other. */
class Writer {
  private readonly parts: Buffer[] = [];

  u32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return this.bytes(part);
  }

  u64(value: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    return this.bytes(part);
  }

  f32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    return this.bytes(part);
  }

  text(value: string): this {
    const part = Buffer.from(value);
    return this.u64(part.length).bytes(part);
  }

  bytes(part: Buffer): this {
    this.parts.push(part);
    return this;
  }

  take(): Buffer {
    return Buffer.concat(this.parts);
  }
}

/** A tensor to write: its name, its sizes with the innermost first, and its numbers. */
interface Entry {
  readonly name: string;
  readonly sizes: readonly number[];
  readonly data: Float32Array;
}

/** Reads `model.safetensors` of the folder and writes the file. */
export function writeGguf(
  folder: string,
  shape: ModelShape,
  dtype: ComputeDtype,
  path: string,
): void {
  const entries = entriesOf(readFloats(join(folder, 'model.safetensors')), shape);
  const unfinished = `${path}.unfinished`;
  mkdirSync(dirname(path), { recursive: true });
  const file = openSync(unfinished, 'w');
  try {
    const put = (part: Buffer): void => {
      const padded = Buffer.alloc(Math.ceil(part.length / ALIGNMENT) * ALIGNMENT);
      part.copy(padded);
      writeSync(file, padded);
    };
    put(headerOf(entries, shape, dtype));
    for (const entry of entries) put(numbersOf(entry, dtype));
  } finally {
    closeSync(file);
  }
  renameSync(unfinished, path);
}

/** Norms stay in float32, as llama.cpp's own converter leaves them. */
function typeOf(entry: Entry, dtype: ComputeDtype): ComputeDtype {
  return entry.sizes.length === 1 ? 'float32' : dtype;
}

function numbersOf(entry: Entry, dtype: ComputeDtype): Buffer {
  const { data } = entry;
  if (typeOf(entry, dtype) === 'float32') {
    return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  }
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  // The upper half, rounded to the nearest even one; weights are finite.
  const halves = Uint16Array.from(bits, (each) => (each + 0x7fff + ((each >>> 16) & 1)) >>> 16);
  return Buffer.from(halves.buffer);
}

function headerOf(entries: readonly Entry[], shape: ModelShape, dtype: ComputeDtype): Buffer {
  const headDim = shape.hiddenSize / shape.numHeads;
  const numbers = {
    'llama.vocab_size': shape.vocabSize,
    'llama.context_length': 4096,
    'llama.embedding_length': shape.hiddenSize,
    'llama.block_count': shape.numLayers,
    'llama.feed_forward_length': shape.intermediateSize,
    'llama.attention.head_count': shape.numHeads,
    'llama.attention.head_count_kv': shape.numKeyValueHeads,
    'llama.rope.dimension_count': headDim,
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 1,
  };
  const floats = { 'llama.attention.layer_norm_rms_epsilon': 1e-6, 'llama.rope.freq_base': 10_000 };
  const texts = { 'general.architecture': 'llama', 'tokenizer.ggml.model': 'llama' };
  const writer = new Writer().u32(MAGIC).u32(VERSION).u64(entries.length);
  const lists = 3;
  const counts = [numbers, floats, texts].map((each) => Object.keys(each).length);
  writer.u64(counts.reduce((sum, each) => sum + each, lists));
  for (const [key, value] of Object.entries(texts)) writer.text(key).u32(STRING).text(value);
  for (const [key, value] of Object.entries(numbers)) writer.text(key).u32(UINT32).u32(value);
  for (const [key, value] of Object.entries(floats)) writer.text(key).u32(FLOAT32).f32(value);
  // A vocabulary that llama.cpp accepts, a token for each byte in it; only ids are ever given to it.
  const ids = Array.from({ length: shape.vocabSize }, (_, id) => id);
  const isByte = (id: number): boolean => id >= 2 && id < 258;
  const byte = (id: number): string => (id - 2).toString(16).toUpperCase().padStart(2, '0');
  writer.text('tokenizer.ggml.tokens').u32(ARRAY).u32(STRING).u64(ids.length);
  for (const id of ids) writer.text(isByte(id) ? `<0x${byte(id)}>` : `<${id}>`);
  writer.text('tokenizer.ggml.scores').u32(ARRAY).u32(FLOAT32).u64(ids.length);
  for (const id of ids) writer.f32(-id);
  writer.text('tokenizer.ggml.token_type').u32(ARRAY).u32(INT32).u64(ids.length);
  for (const id of ids) writer.u32(id < 2 ? 3 : isByte(id) ? 6 : 1); // control, byte, normal
  let offset = 0;
  for (const entry of entries) {
    const type = typeOf(entry, dtype);
    writer.text(entry.name).u32(entry.sizes.length);
    for (const size of entry.sizes) writer.u64(size);
    writer.u32(GGML_TYPES[type]).u64(offset);
    const bytes = entry.data.length * (type === 'float32' ? 4 : 2);
    offset += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
  }
  return writer.take();
}

function entriesOf(weights: ReadonlyMap<string, Float32Array>, shape: ModelShape): Entry[] {
  const { hiddenSize, intermediateSize, numHeads, numKeyValueHeads, vocabSize } = shape;
  const headDim = hiddenSize / numHeads;
  const entry = (name: string, from: string, sizes: readonly number[], heads?: number): Entry => {
    const data = weights.get(from);
    const expected = sizes.reduce((product, size) => product * size, 1);
    if (data?.length !== expected) {
      throw new ShapeError(
        `bench: expected ${from} to have ${expected} numbers, received ${data?.length ?? 'none'}.`,
      );
    }
    return { name, sizes, data: heads === undefined ? data : interleaved(data, heads, headDim) };
  };
  const keys = numKeyValueHeads * headDim;
  const layers = Array.from({ length: shape.numLayers }, (_, layer) => {
    const of = (name: string, from: string, sizes: readonly number[], heads?: number): Entry =>
      entry(`blk.${layer}.${name}.weight`, `model.layers.${layer}.${from}.weight`, sizes, heads);
    return [
      of('attn_norm', 'input_layernorm', [hiddenSize]),
      of('attn_q', 'self_attn.q_proj', [hiddenSize, hiddenSize], numHeads),
      of('attn_k', 'self_attn.k_proj', [hiddenSize, keys], numKeyValueHeads),
      of('attn_v', 'self_attn.v_proj', [hiddenSize, keys]),
      of('attn_output', 'self_attn.o_proj', [hiddenSize, hiddenSize]),
      of('ffn_norm', 'post_attention_layernorm', [hiddenSize]),
      of('ffn_gate', 'mlp.gate_proj', [hiddenSize, intermediateSize]),
      of('ffn_up', 'mlp.up_proj', [hiddenSize, intermediateSize]),
      of('ffn_down', 'mlp.down_proj', [intermediateSize, hiddenSize]),
    ];
  });
  return [
    entry('token_embd.weight', 'model.embed_tokens.weight', [hiddenSize, vocabSize]),
    entry('output_norm.weight', 'model.norm.weight', [hiddenSize]),
    ...layers.flat(),
  ];
}

/**
 * Rows in llama.cpp's order: it turns neighbours of a head (2i, 2i + 1) together, Hugging Face's layout the two halves
 * (i, i + headDim / 2).
 */
export function interleaved(data: Float32Array, heads: number, headDim: number): Float32Array {
  const width = data.length / (heads * headDim);
  const result = new Float32Array(data.length);
  const half = headDim / 2;
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < headDim; row++) {
      const from = (head * headDim + (row % 2) * half + (row >> 1)) * width;
      result.set(data.subarray(from, from + width), (head * headDim + row) * width);
    }
  }
  return result;
}

/** The float32 tensors of a safetensors file, by name. */
function readFloats(path: string): Map<string, Float32Array> {
  const file = readFileSync(path);
  const size = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + size).toString()) as Record<
    string,
    { readonly dtype?: string; readonly data_offsets?: readonly [number, number] }
  >;
  const tensors = new Map<string, Float32Array>();
  for (const [name, { dtype, data_offsets: offsets }] of Object.entries(header)) {
    if (dtype !== 'F32' || offsets === undefined) continue;
    const bytes = Uint8Array.from(file.subarray(8 + size + offsets[0], 8 + size + offsets[1]));
    tensors.set(name, new Float32Array(bytes.buffer));
  }
  return tensors;
}
