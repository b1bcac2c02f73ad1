/**
 * A batch of rows that grow token by token: the KV cache and the forward passes that fill it. Knows the decoder's
 * arithmetic; knows nothing of sampling, stopping or text.
 *
 * Rows are aligned at the right: prompts of different length are padded at the left, so that every row writes its next
 * key and value into the same column. A row's positions count from its first real token.
 */
import type { DecoderConfig } from '../models/index.js';
import { ropeInverseFrequencies } from '../models/index.js';
import {
  complex,
  embedding,
  inferenceMode,
  keep,
  scaledDotProductAttention,
  tensor,
  tidy,
  zeros,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { RolloutLayer, RolloutWeights } from './rolloutWeights.js';

/** From this many rows on, two batched products are faster than the fused kernel for a single query on the CPU. */
const BATCHED_PRODUCT_ROWS = 16;

/** Caches and positions of a batch of rows. Made by `DecodeSession.start`; freed by `dispose`. */
export class DecodeSession {
  private readonly weights: RolloutWeights;
  private readonly config: DecoderConfig;
  private readonly frequencies: Tensor; // [headDim/2]
  private readonly device: string;
  private readonly dtype: Dtype;
  private keys: Tensor[] = []; // per layer [B, Hkv, capacity, headDim]
  private values: Tensor[] = [];
  private mask: Tensor | null = null; // [B, 1, 1, capacity] added to the scores; null without padding
  private padding: number[] = []; // columns before each row's first token
  private columns = 0;
  private capacity = 0;

  private constructor(weights: RolloutWeights, config: DecoderConfig) {
    this.weights = weights;
    this.config = config;
    this.device = weights.embedding.device;
    this.dtype = weights.embedding.dtype;
    this.frequencies = keep(
      tensor(Float32Array.from(ropeInverseFrequencies(config)), { device: this.device }),
    );
  }

  /** Rows in the batch. */
  get rows(): number {
    return this.padding.length;
  }

  /**
   * Runs the prompts once and repeats each of them `copies` times.
   *
   * @param capacity columns to make room for: the longest prompt and everything that will be appended
   * @returns the session and the logits of every prompt's next token, [prompts, V]
   */
  static start(
    weights: RolloutWeights,
    config: DecoderConfig,
    prompts: readonly (readonly number[])[],
    options: { copies: number; capacity: number },
  ): { session: DecodeSession; logits: Tensor } {
    const session = new DecodeSession(weights, config);
    try {
      const logits = inferenceMode(() =>
        tidy(() => session.prefill(prompts, options.copies, options.capacity)),
      );
      return { session, logits };
    } catch (error) {
      session.dispose();
      throw error;
    }
  }

  private prefill(
    prompts: readonly (readonly number[])[],
    copies: number,
    capacity: number,
  ): Tensor {
    const { numKeyValueHeads: kvHeads, headDim } = this.config;
    const length = Math.max(...prompts.map((prompt) => prompt.length));
    const padding = prompts.map((prompt) => length - prompt.length);
    const ids = new Int32Array(prompts.length * length);
    prompts.forEach((prompt, row) => ids.set(prompt, row * length + (padding[row] ?? 0)));

    this.capacity = capacity;
    this.padding = padding.flatMap((columns) => Array<number>(copies).fill(columns));
    const isPadded = padding.some((columns) => columns > 0);
    const attention = isPadded ? { mask: this.prefillMask(padding, length) } : { causal: true };
    const rotations = this.rotations(
      padding.flatMap((columns) =>
        Array.from({ length }, (_, column) => Math.max(0, column - columns)),
      ),
    ); // [P·L, 1, headDim/2]

    let hidden = embedding(this.weights.embedding, tensor(ids, { device: this.device }));
    for (const layer of this.weights.layers) {
      hidden = tidy(() => {
        const { query, key, value } = this.project(layer, hidden, rotations);
        const perRow = (heads: Tensor): Tensor =>
          heads.view([prompts.length, length, heads.size(1), headDim]).transpose(1, 2);
        const [q, k, v] = [perRow(query), perRow(key), perRow(value)];
        for (const [list, source] of [
          [this.keys, k],
          [this.values, v],
        ] as const) {
          const cache = zeros([this.rows, kvHeads, capacity, headDim], {
            dtype: this.dtype,
            device: this.device,
          });
          cache
            .narrow(2, 0, length)
            .copy_(copies === 1 ? source : source.repeatInterleave(copies, 0));
          list.push(keep(cache));
        }
        const mixed = scaledDotProductAttention(q, k, v, { ...attention, groupedQuery: true });
        const rows = mixed.transpose(1, 2).reshape([prompts.length * length, -1]);
        return this.finishLayer(layer, hidden, rows);
      });
    }
    this.columns = length;
    if (isPadded) this.mask = keep(this.decodeMask());
    const last = hidden
      .view([prompts.length, length, -1])
      .select(1, length - 1)
      .contiguous();
    return this.head(last);
  }

  /**
   * Appends one token to every row.
   *
   * @param ids one per row
   * @returns [B, V] logits of the token after it
   */
  step(ids: readonly number[]): Tensor {
    return inferenceMode(() =>
      tidy(() => {
        const column = this.columns++;
        const positions = this.padding.map((columns) => column - columns);
        const shared = this.mask === null; // no padding: every row is at the same position
        const rotations = this.rotations(shared ? positions.slice(0, 1) : positions);
        let hidden = embedding(
          this.weights.embedding,
          tensor(Int32Array.from(ids), { device: this.device }),
        );
        this.weights.layers.forEach((layer, index) => {
          const { query, key, value } = this.project(layer, hidden, rotations);
          const [keys, values] = this.append(index, column, key, value);
          const mixed = this.attend(query, keys, values);
          hidden = this.finishLayer(layer, hidden, mixed);
        });
        return this.head(hidden);
      }),
    );
  }

  private append(index: number, column: number, key: Tensor, value: Tensor): [Tensor, Tensor] {
    const keys = this.keys[index] as Tensor;
    const values = this.values[index] as Tensor;
    keys.select(2, column).copy_(key);
    values.select(2, column).copy_(value);
    return [keys.narrow(2, 0, column + 1), values.narrow(2, 0, column + 1)];
  }

  /** One query per row and head against the cache. The heads that share a key are its queries: nothing is repeated. */
  private attend(query: Tensor, keys: Tensor, values: Tensor): Tensor {
    const { numHeads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const rows = query.size(0);
    const grouped = query.reshape([rows, kvHeads, numHeads / kvHeads, headDim]);
    const mask = this.mask?.narrow(3, 0, keys.size(2));
    if (this.device === 'cpu' && rows >= BATCHED_PRODUCT_ROWS) {
      const scores = grouped.mul(headDim ** -0.5).matmul(keys.transpose(2, 3));
      const weights = (mask ? scores.add(mask) : scores).softmax(-1);
      return weights.matmul(values).reshape([rows, -1]);
    }
    return scaledDotProductAttention(grouped, keys, values, { mask }).reshape([rows, -1]);
  }

  /** Queries and keys rotated to their positions, and values: [N, heads, headDim] each. */
  private project(
    layer: RolloutLayer,
    hidden: Tensor,
    rotations: Tensor,
  ): { query: Tensor; key: Tensor; value: Tensor } {
    const { numHeads, numKeyValueHeads: kvHeads, headDim, rmsNormEps } = this.config;
    const normed = hidden.rmsNorm(layer.inputNorm, rmsNormEps);
    const all = layer.queryKeyValue.apply(normed).view([hidden.size(0), -1, headDim]);
    let queryKey = all.narrow(1, 0, numHeads + kvHeads);
    if (layer.queryNorm && layer.keyNorm) {
      const q = queryKey.narrow(1, 0, numHeads).rmsNorm(layer.queryNorm, rmsNormEps);
      const k = queryKey.narrow(1, numHeads, kvHeads).rmsNorm(layer.keyNorm, rmsNormEps);
      return {
        query: rotate(q, rotations),
        key: rotate(k, rotations),
        value: all.narrow(1, numHeads + kvHeads, kvHeads),
      };
    }
    queryKey = rotate(queryKey, rotations);
    return {
      query: queryKey.narrow(1, 0, numHeads),
      key: queryKey.narrow(1, numHeads, kvHeads),
      value: all.narrow(1, numHeads + kvHeads, kvHeads),
    };
  }

  private finishLayer(layer: RolloutLayer, hidden: Tensor, mixed: Tensor): Tensor {
    const attended = hidden.add(layer.output.apply(mixed));
    const normed = attended.rmsNorm(layer.postAttentionNorm, this.config.rmsNormEps);
    const [gate, up] = layer.gateUp.apply(normed).chunk(2, -1) as [Tensor, Tensor];
    return attended.add(layer.down.apply(gate.silu().mul(up)));
  }

  private head(hidden: Tensor): Tensor {
    return this.weights.head.apply(hidden.rmsNorm(this.weights.finalNorm, this.config.rmsNormEps));
  }

  /**
   * e^{i·position·frequency}, [positions, 1, headDim/2] complex. Cosines and sines in float32 and rounded to the model's
   * dtype, as the model computes them.
   */
  private rotations(positions: readonly number[]): Tensor {
    const angles = tensor(Float32Array.from(positions), { device: this.device })
      .unsqueeze(1)
      .mul(this.frequencies)
      .unsqueeze(1);
    const wide = this.dtype === 'float64' ? 'float64' : 'float32';
    const [cos, sin] = [angles.cos(), angles.sin()].map((part) => part.to(this.dtype).to(wide));
    return complex(cos as Tensor, sin as Tensor);
  }

  private prefillMask(padding: readonly number[], length: number): Tensor {
    const allowed = new Uint8Array(padding.length * length * length);
    padding.forEach((columns, row) => {
      for (let query = 0; query < length; query++) {
        const start = (row * length + query) * length;
        // A padded query looks at itself only: softmax over nothing would be NaN.
        if (query < columns) allowed[start + query] = 1;
        else allowed.fill(1, start + columns, start + query + 1);
      }
    });
    return tensor(allowed, {
      shape: [padding.length, 1, length, length],
      dtype: 'bool',
      device: this.device,
    });
  }

  private decodeMask(): Tensor {
    const flat = new Float32Array(this.rows * this.capacity);
    this.padding.forEach((columns, row) => {
      flat.fill(-Infinity, row * this.capacity, row * this.capacity + columns);
    });
    const shape = [this.rows, 1, 1, this.capacity];
    return tensor(flat, { shape, dtype: this.dtype, device: this.device });
  }

  /** Keeps only the given rows, in the given order: finished rows leave the batch. */
  keepRows(rows: readonly number[]): void {
    const { columns, device } = this;
    inferenceMode(() =>
      tidy(() => {
        const index = tensor(Int32Array.from(rows), { dtype: 'int64', device });
        // One cache at a time, so that never two of the same layer and kind stand beside the rest.
        for (const caches of [this.keys, this.values]) {
          caches.forEach((cache, layer) => {
            const [, heads, , headDim] = cache.shape as [number, number, number, number];
            const shape = [rows.length, heads, this.capacity, headDim];
            const smaller = zeros(shape, { dtype: this.dtype, device });
            tidy(() => {
              const used = cache.narrow(2, 0, columns).indexSelect(0, index);
              smaller.narrow(2, 0, columns).copy_(used);
            });
            caches[layer] = keep(smaller);
            cache.dispose();
          });
        }
        if (this.mask) {
          const previous = this.mask;
          this.mask = keep(previous.indexSelect(0, index));
          previous.dispose();
        }
      }),
    );
    this.padding = rows.map((row) => this.padding[row] ?? 0);
  }

  /** Frees the caches. */
  dispose(): void {
    for (const cache of [...this.keys, ...this.values]) cache.dispose();
    this.mask?.dispose();
    this.frequencies.dispose();
    this.keys = [];
    this.values = [];
  }
}

/** x [N, heads, headDim] in pair order, times e^{iθ} [N or 1, 1, headDim/2] pair by pair. Computed in float32 at least. */
function rotate(x: Tensor, rotations: Tensor): Tensor {
  const { dtype } = x;
  const wide = dtype === 'float64' ? x : x.to('float32');
  const [rows, heads, headDim] = x.shape as [number, number, number];
  const pairs = wide.reshape([rows, heads, headDim / 2, 2]).viewAsComplex();
  return pairs.mul(rotations).viewAsReal().view([rows, heads, headDim]).to(dtype);
}
