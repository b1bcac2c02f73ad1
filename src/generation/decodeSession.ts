/**
 * A batch of rows that grow token by token: the KV cache and the forward passes that fill it. Knows the decoder's
 * arithmetic; knows nothing of sampling, stopping or text.
 *
 * Rows are aligned at the right: prompts of different length are padded at the left, so that every row writes its next
 * key and value into the same column. A row's positions count from its first real token.
 *
 * Where frequencies depend on a row's length ("dynamic", "longrope") the keys and values of all its tokens change when they
 * do: the whole row is computed anew. That happens once with longrope, and at every token beyond the original context with
 * dynamic.
 */
import {
  capLogits,
  frequenciesDependOnLength,
  type DecoderConfig,
  type LayerKind,
} from '../models/index.js';
import { attend } from '../nn/index.js';
import {
  attendRows,
  autocast,
  decodeAttention,
  decodeMlp,
  empty,
  inferenceMode,
  keepOwned,
  tensor,
  tidy,
  type DecodePlace,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import type { RolloutLayer, RolloutWeights } from './rolloutWeights.js';
import { needsOtherRotations, Rotations, rotate } from './rotations.js';

/** Keys and values of prompts, which all rows of a prompt read. */
interface Prompts {
  /** Per layer [P, Hkv, columns, headDim]. */
  readonly keys: Tensor[];
  readonly values: Tensor[];
  /** [P, columns] float32 added to the scores; null without padding. */
  mask: Tensor | null;
  /** Of each row, and the same [B] int32. */
  rowPrompts: readonly number[];
  rows: Tensor;
  readonly columns: number;
}

/** Caches and positions of a batch of rows. Made by `DecodeSession.start`; freed by `dispose`. */
export class DecodeSession {
  private readonly weights: RolloutWeights;
  private readonly config: DecoderConfig;
  private readonly rotations: Rotations;
  private readonly device: string;
  private readonly dtype: Dtype;
  private keys: Tensor[] = []; // per layer [B, Hkv, room, headDim]
  private values: Tensor[] = [];
  private prompts: Prompts | null = null; // where kernels read them apart; else they are the first columns of each row
  private mask: Tensor | null = null; // [B, 1, 1, capacity] added to the scores; null without padding
  private tokens: number[][] | null = null; // of every row, where they may have to be computed anew
  private padding: number[] = []; // columns before each row's first token
  private columns = 0; // filled ones of the rows' own
  private room = 0; // all of the rows' own
  private capacity = 0;

  private constructor(weights: RolloutWeights, config: DecoderConfig) {
    this.weights = weights;
    this.config = config;
    this.device = weights.device;
    this.dtype = weights.computeDtype;
    this.rotations = new Rotations(config, weights);
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
    if (frequenciesDependOnLength(config))
      session.tokens = prompts.flatMap((prompt) =>
        Array.from({ length: options.copies }, () => [...prompt]),
      );
    try {
      const logits = inferenceMode(() =>
        tidy(() =>
          session.inPrecision(() => session.prefill(prompts, options.copies, options.capacity)),
        ),
      );
      return { session, logits };
    } catch (error) {
      session.dispose();
      throw error;
    }
  }

  /** As `Decoder` computes: products in bfloat16 where its precision is mixed. */
  private inPrecision(callback: () => Tensor): Tensor {
    const { dtype, computeDtype } = this.weights;
    if (computeDtype === dtype) return callback();
    return autocast({ device: this.device, dtype: computeDtype }, callback);
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
    this.prompts = this.weights.layers.every(({ fused }) => fused !== null)
      ? this.sharedPrompts(padding, length, copies)
      : null;
    const shared = this.prompts;
    this.room = shared === null ? capacity : capacity - length;
    const masks = this.prefillMasks(padding, length);
    const positions = padding.flatMap((columns) =>
      Array.from({ length }, (_, column) => Math.max(0, column - columns)),
    ); // [P·L]
    const lengths = prompts.flatMap((prompt) => Array<number>(length).fill(prompt.length));
    const rotations = this.rotations.at(positions, lengths);

    let hidden = this.embed(ids, positions);
    for (const layer of this.weights.layers) {
      hidden = tidy(() => {
        const { query, key, value } = this.project(layer, hidden, rotations[layer.kind]);
        const perRow = (heads: Tensor): Tensor =>
          heads.view([prompts.length, length, heads.size(1), headDim]).transpose(1, 2);
        const [q, k, v] = [perRow(query), perRow(key), perRow(value)];
        for (const [list, promptList, source] of [
          [this.keys, shared?.keys, k],
          [this.values, shared?.values, v],
        ] as const) {
          const shape = [this.rows, kvHeads, this.room, headDim];
          const cache = empty(shape, { dtype: this.dtype, device: this.device });
          list.push(keepOwned(cache));
          if (promptList) promptList.push(keepOwned(source.to(this.dtype).contiguous()));
          else
            cache
              .narrow(2, 0, length)
              .copy_(copies === 1 ? source : source.repeatInterleave(copies, 0));
        }
        const mask = masks[layer.kind];
        const mixed = attend(q, k, v, { mask, causal: mask === null, ...this.scoring });
        const rows = mixed.transpose(1, 2).reshape([prompts.length * length, -1]);
        return this.finishLayer(layer, hidden, rows);
      });
    }
    this.columns = shared === null ? length : 0;
    if (isPadded && shared === null) this.mask = keepOwned(this.decodeMask());
    const last = hidden
      .view([prompts.length, length, -1])
      .select(1, length - 1)
      .contiguous();
    return this.head(last);
  }

  private sharedPrompts(padding: readonly number[], columns: number, copies: number): Prompts {
    const rowPrompts = padding.flatMap((_, prompt) => Array<number>(copies).fill(prompt));
    const isPadded = padding.some((count) => count > 0);
    const mask = isPadded
      ? tensor(hiding(padding, columns), { shape: [padding.length, columns] })
      : null;
    return {
      ...{ keys: [], values: [], rowPrompts, columns },
      mask: mask && keepOwned(mask),
      rows: keepOwned(tensor(Int32Array.from(rowPrompts))),
    };
  }

  /**
   * Appends one token to every row.
   *
   * @param ids one per row
   * @returns [B, V] logits of the token after it
   */
  step(ids: readonly number[]): Tensor {
    return inferenceMode(() => tidy(() => this.inPrecision(() => this.extend(ids))));
  }

  private extend(ids: readonly number[]): Tensor {
    if (this.appendTokens(ids)) return this.recompute();
    const column = this.columns++;
    const before = this.prompts?.columns ?? 0;
    const positions = this.padding.map((columns) => before + column - columns);
    const shared = this.padding.every((columns) => columns === 0); // no padding: every row is at the same position
    const rotated = shared ? positions.slice(0, 1) : positions;
    const rotations = this.rotations.at(
      rotated,
      rotated.map((position) => position + 1),
    );
    let hidden = this.embed(Int32Array.from(ids), positions);
    const turns = (kind: LayerKind): Tensor | null =>
      rotations[kind]?.viewAsReal().view([rotated.length, -1]) ?? null;
    const turnsOf = { full: turns('full'), sliding: turns('sliding') };
    this.weights.layers.forEach((layer, index) => {
      if (layer.fused !== null) {
        const place = this.placeOf(layer.kind, index, column, turnsOf[layer.kind]);
        const attended = decodeAttention(hidden, layer.fused.attention(this.rows), place);
        hidden = decodeMlp(attended, layer.fused.mlp(this.rows));
        return;
      }
      const { query, key, value } = this.project(layer, hidden, rotations[layer.kind]);
      const [keys, values] = this.append(index, column, key, value);
      const mixed = this.attend(layer.kind, query, keys, values);
      hidden = this.finishLayer(layer, hidden, mixed);
    });
    return this.head(hidden);
  }

  /** Adds the tokens to what is remembered, where anything is. @returns whether a row's rotations are others now */
  private appendTokens(ids: readonly number[]): boolean {
    const { tokens, config } = this;
    if (tokens === null) return false;
    tokens.forEach((row, index) => row.push(ids[index] ?? 0));
    return tokens.some(({ length }) => needsOtherRotations(config, length - 1, length));
  }

  /** Fills the caches anew from the rows' tokens. */
  private recompute(): Tensor {
    const tokens = this.tokens ?? [];
    this.dispose();
    return this.prefill(tokens, 1, this.capacity);
  }

  private append(index: number, column: number, key: Tensor, value: Tensor): [Tensor, Tensor] {
    const keys = this.keys[index] as Tensor;
    const values = this.values[index] as Tensor;
    keys.select(2, column).copy_(key);
    values.select(2, column).copy_(value);
    return [keys.narrow(2, 0, column + 1), values.narrow(2, 0, column + 1)];
  }

  private placeOf(
    kind: LayerKind,
    index: number,
    column: number,
    turns: Tensor | null,
  ): DecodePlace {
    const { prompts, rows } = this;
    const window = kind === 'sliding' ? this.config.slidingWindow : null;
    const columns = column + 1 + (prompts?.columns ?? 0);
    return {
      ...{ turns, column },
      shared: prompts && {
        keys: prompts.keys[index] as Tensor,
        values: prompts.values[index] as Tensor,
        mask: prompts.mask,
        rows: prompts.rows,
      },
      keys: this.keys[index] as Tensor,
      values: this.values[index] as Tensor,
      mask: this.mask?.view([rows, this.room]) ?? null,
      first: window === null ? 0 : Math.max(0, columns - window),
    };
  }

  /** One query per row and head against the cache. The heads that share a key are its queries: nothing is repeated. */
  private attend(kind: LayerKind, query: Tensor, allKeys: Tensor, allValues: Tensor): Tensor {
    const { numHeads, numKeyValueHeads: kvHeads, headDim, slidingWindow } = this.config;
    const columns = allKeys.size(2);
    const seen = kind === 'sliding' ? Math.min(columns, slidingWindow ?? columns) : columns;
    const [keys, values] = [allKeys, allValues].map((cache) =>
      cache.narrow(2, columns - seen, seen),
    ) as [Tensor, Tensor];
    const rows = query.size(0);
    const mask = this.mask?.narrow(3, columns - seen, seen) ?? null;
    const { scale, softcap } = this.scoring;
    if (this.hasKernel)
      return attendRows(query, keys, values, {
        mask: mask && mask.view([rows, seen]),
        ...{ scale, softcap },
      });
    const grouped = query.reshape([rows, kvHeads, numHeads / kvHeads, headDim]);
    return attend(grouped, keys, values, { mask, scale, softcap }).reshape([rows, -1]);
  }

  /** Whether there is a kernel for one query per row. */
  private get hasKernel(): boolean {
    return this.device === 'cpu' && (this.dtype === 'float32' || this.dtype === 'bfloat16');
  }

  private get scoring(): { scale: number; softcap: number | null } {
    const { attentionScale: scale, attentionSoftcap: softcap } = this.config;
    return { scale, softcap };
  }

  private embed(ids: Int32Array, positions: readonly number[]): Tensor {
    const { device } = this;
    return this.weights.embed(tensor(ids, { device }), () =>
      tensor(Int32Array.from(positions), { device }),
    );
  }

  /** Queries and keys rotated to their positions, and values: [N, heads, headDim] each. */
  private project(
    layer: RolloutLayer,
    hidden: Tensor,
    rotations: Tensor | null,
  ): { query: Tensor; key: Tensor; value: Tensor } {
    const { numHeads, numKeyValueHeads: kvHeads, headDim } = this.config;
    const normed = layer.inputNorm.forward(hidden);
    const all = layer.queryKeyValue.apply(normed).view([hidden.size(0), -1, headDim]);
    const placed = (heads: Tensor): Tensor => (rotations ? rotate(heads, rotations) : heads);
    const value = all.narrow(1, numHeads + kvHeads, kvHeads);
    if (layer.queryNorm && layer.keyNorm)
      return {
        query: placed(layer.queryNorm.forward(all.narrow(1, 0, numHeads))),
        key: placed(layer.keyNorm.forward(all.narrow(1, numHeads, kvHeads))),
        value,
      };
    const queryKey = placed(all.narrow(1, 0, numHeads + kvHeads));
    return {
      query: queryKey.narrow(1, 0, numHeads),
      key: queryKey.narrow(1, numHeads, kvHeads),
      value,
    };
  }

  private finishLayer(layer: RolloutLayer, hidden: Tensor, mixed: Tensor): Tensor {
    const output = layer.output.apply(mixed);
    const attended = hidden.add(layer.attentionOutputNorm?.forward(output) ?? output);
    if (layer.fused !== null) return decodeMlp(attended, layer.fused.mlp(attended.size(0)));
    const changed = layer.feedForward(layer.mlpNorm.forward(attended));
    return attended.add(layer.mlpOutputNorm?.forward(changed) ?? changed);
  }

  private head(hidden: Tensor): Tensor {
    const { finalNorm, head, float32Head, dtype } = this.weights;
    const states = finalNorm.forward(hidden);
    if (!float32Head || dtype === 'float64') return capLogits(head.apply(states), this.config);
    const { device } = this;
    const logits = autocast({ device, dtype: 'bfloat16', enabled: false }, () =>
      head.apply(states.to('float32')),
    );
    return capLogits(logits, this.config);
  }

  /** [P, 1, L, L] bool per kind of layer; null where every query looks at itself and all before it. */
  private prefillMasks(
    padding: readonly number[],
    length: number,
  ): Record<LayerKind, Tensor | null> {
    const isPadded = padding.some((columns) => columns > 0);
    const full = isPadded ? this.prefillMask(padding, length, length) : null;
    const { slidingWindow } = this.config;
    if (slidingWindow === null || slidingWindow >= length) return { full, sliding: full };
    return { full, sliding: this.prefillMask(padding, length, slidingWindow) };
  }

  private prefillMask(padding: readonly number[], length: number, window: number): Tensor {
    const allowed = new Uint8Array(padding.length * length * length);
    padding.forEach((columns, row) => {
      for (let query = 0; query < length; query++) {
        const start = (row * length + query) * length;
        const first = Math.max(columns, query + 1 - window);
        // A padded query looks at itself only: softmax over nothing would be NaN.
        if (query < columns) allowed[start + query] = 1;
        else allowed.fill(1, start + first, start + query + 1);
      }
    });
    return tensor(allowed, {
      shape: [padding.length, 1, length, length],
      dtype: 'bool',
      device: this.device,
    });
  }

  private decodeMask(): Tensor {
    const flat = hiding(this.padding, this.capacity);
    const shape = [this.rows, 1, 1, this.capacity];
    const dtype = this.hasKernel ? 'float32' : this.dtype;
    return tensor(flat, { shape, dtype, device: this.device });
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
            const shape = [rows.length, heads, this.room, headDim];
            const smaller = empty(shape, { dtype: this.dtype, device });
            tidy(() => {
              const used = cache.narrow(2, 0, columns).indexSelect(0, index);
              smaller.narrow(2, 0, columns).copy_(used);
            });
            caches[layer] = keepOwned(smaller);
            cache.dispose();
          });
        }
        const { prompts } = this;
        if (prompts) {
          prompts.rows.dispose();
          prompts.rowPrompts = rows.map((row) => prompts.rowPrompts[row] ?? 0);
          prompts.rows = keepOwned(tensor(Int32Array.from(prompts.rowPrompts)));
        }
        if (this.mask) {
          const previous = this.mask;
          this.mask = keepOwned(previous.indexSelect(0, index));
          previous.dispose();
        }
      }),
    );
    this.padding = rows.map((row) => this.padding[row] ?? 0);
    if (this.tokens) this.tokens = rows.map((row) => this.tokens?.[row] ?? []);
  }

  /** Frees the caches. */
  dispose(): void {
    const { keys, values, mask, prompts } = this;
    for (const cache of [...keys, ...values, mask]) cache?.dispose();
    if (prompts)
      for (const cache of [...prompts.keys, ...prompts.values, prompts.mask, prompts.rows])
        cache?.dispose();
    [this.keys, this.values, this.mask, this.prompts] = [[], [], null, null];
  }
}

/** What is added to scores: −∞ for the first columns of each row. */
function hiding(padding: readonly number[], columns: number): Float32Array {
  const flat = new Float32Array(padding.length * columns);
  padding.forEach((count, row) => flat.fill(-Infinity, row * columns, row * columns + count));
  return flat;
}
