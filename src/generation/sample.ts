/**
 * Completions of token ids from a decoder: the sampler that trainers and `generate` share. Knows tokens; knows no text.
 *
 * What a row draws depends on its own seed and nothing else: not on the batch it is computed in, nor on the rows beside
 * it. Rows that finish leave the batch.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import type { Decoder, DecoderConfig } from '../models/index.js';
import { deriveSeed, DTYPE_BYTES, tensor, tidy, uniformAt, type Tensor } from '../torch/index.js';
import { DecodeSession } from './decodeSession.js';
import { drawTokens } from './drawTokens.js';
import { rolloutWeights, type RolloutWeights } from './rolloutWeights.js';
import {
  resolveSampling,
  type FinishReason,
  type ResolvedSampling,
  type SamplingSettings,
} from './settings.js';

/** What to complete and how. */
export interface SampleOptions extends SamplingSettings {
  model: Decoder;
  /** Token ids of each prompt; none may be empty. */
  promptIds: readonly (readonly number[])[];
  /** Completions of each prompt, from one pass over the prompt. Default 1. */
  numCompletions?: number;
  /** The most tokens that a completion may have. */
  maxNewTokens: number;
  /** Tokens that end a completion with reason `eos`; the model's own when omitted. */
  eosTokenIds?: readonly number[];
  /** Further tokens that end a completion, with reason `stop`. */
  stopTokenIds?: readonly number[];
  /** Called after each token with the completion so far; true ends it with reason `stop`. */
  shouldStop?: (tokenIds: readonly number[]) => boolean;
  /** The seed that row seeds are derived from. Default 0. */
  seed?: number;
  /** A seed per prompt and completion, prompt-major, instead of derived ones. */
  rowSeeds?: readonly number[];
  /** Rows computed together; by default as many as a cache of 512 MiB holds, at most 256. Never changes what is drawn. */
  maxBatchSize?: number;
  /** oneDNN's packed weights on the CPU. Default true; off is for checking. */
  packing?: boolean;
  /** Called between steps with the number of finished and of all completions. */
  onProgress?: (finished: number, total: number) => void;
}

/** One completion. */
export interface SampledCompletion {
  /** Which prompt, from 0. */
  promptIndex: number;
  /** Which completion of that prompt, from 0. */
  completionIndex: number;
  /** What was drawn, the ending token included. */
  tokenIds: number[];
  /** nats, per token, under the distribution it was drawn from (see `DrawnTokens`). */
  logprobs: number[];
  finishReason: FinishReason;
}

interface Row extends SampledCompletion {
  seed: number;
}

const CACHE_BYTES = 512 * 2 ** 20;
const MOST_ROWS = 256;
/** How long the loop may run before other work of the process gets a turn. */
const TURN_MILLISECONDS = 25;

/**
 * Samples completions; rows come prompt-major, the completions of one prompt together.
 *
 * @throws ValueRangeError for settings out of range, a prompt with a token outside the vocabulary, or one too long
 * @throws ShapeError for an empty prompt, no prompt, or a wrong number of row seeds
 * @throws NumericsError when the model gives no finite distribution
 */
export async function sample(options: SampleOptions): Promise<SampledCompletion[]> {
  const settings = resolveSampling(options);
  const { model, promptIds, numCompletions = 1, seed = 0, rowSeeds } = options;
  checkPrompts(options);
  const seedOf = (index: number): number => rowSeeds?.[index] ?? deriveSeed(seed, 'row', index);

  const weights = rolloutWeights(model, { packing: options.packing ?? true });
  const results: SampledCompletion[] = [];
  try {
    const total = promptIds.length * numCompletions;
    const promptsAtOnce = Math.max(1, Math.floor(batchRows(options) / numCompletions));
    for (let first = 0; first < promptIds.length; first += promptsAtOnce) {
      const prompts = promptIds.slice(first, first + promptsAtOnce);
      const rows = prompts.flatMap((_, offset) =>
        Array.from({ length: numCompletions }, (_unused, completionIndex): Row => {
          const promptIndex = first + offset;
          const rowSeed = seedOf(promptIndex * numCompletions + completionIndex);
          return {
            promptIndex,
            completionIndex,
            tokenIds: [],
            logprobs: [],
            finishReason: 'length',
            seed: rowSeed,
          };
        }),
      );
      const batch = new Batch(weights, options, settings, prompts, rows);
      await batch.run((finished) => options.onProgress?.(results.length + finished, total));
      results.push(...rows.map(({ seed: _seed, ...completion }) => completion));
    }
  } finally {
    weights.dispose();
  }
  return results;
}

/** Prompts that share their caches, from the pass over the prompts to the last row's end. */
class Batch {
  private readonly weights: RolloutWeights;
  private readonly options: SampleOptions;
  private readonly settings: ResolvedSampling;
  private readonly prompts: readonly (readonly number[])[];
  private readonly rows: readonly Row[];
  private readonly eos: ReadonlySet<number>;
  private readonly stop: ReadonlySet<number>;
  private readonly copies: number;

  constructor(
    weights: RolloutWeights,
    options: SampleOptions,
    settings: ResolvedSampling,
    prompts: readonly (readonly number[])[],
    rows: readonly Row[],
  ) {
    this.weights = weights;
    this.options = options;
    this.settings = settings;
    this.prompts = prompts;
    this.rows = rows;
    this.copies = rows.length / prompts.length;
    this.eos = new Set(options.eosTokenIds ?? options.model.config.eosTokenIds);
    this.stop = new Set(options.stopTokenIds ?? []);
  }

  async run(onStep: (finished: number) => void): Promise<void> {
    const { model, maxNewTokens } = this.options;
    const longest = Math.max(...this.prompts.map((prompt) => prompt.length));
    const started = DecodeSession.start(this.weights, model.config, this.prompts, {
      copies: this.copies,
      capacity: longest + maxNewTokens,
    });
    const { session } = started;
    let active = [...this.rows]; // active[i] lies in row places[i] of the session
    let places = active.map((_, index) => index);
    let seen = this.firstSeen(model.config);
    let logits = tidy(() =>
      this.copies === 1 ? started.logits : started.logits.repeatInterleave(this.copies, 0),
    );
    if (logits !== started.logits) started.logits.dispose();
    let turn = performance.now();
    try {
      for (let length = 1; ; length++) {
        const drawn = this.draw(logits, places, active, seen);
        logits.dispose();
        active.forEach((row, index) => {
          row.tokenIds.push(drawn.ids[index] as number);
          row.logprobs.push(drawn.logprobs[index] as number);
        });
        const alive = active.flatMap((row, index) => (this.hasEnded(row) ? [] : [index]));
        onStep(this.rows.length - alive.length);
        if (alive.length === 0 || length === maxNewTokens) return;

        active = alive.map((index) => active[index] as Row);
        places = alive.map((index) => places[index] as number);
        if (session.rows - active.length >= Math.max(1, Math.ceil(session.rows / 8))) {
          session.keepRows(places);
          seen = selectRows(seen, places);
          places = active.map((_, index) => index);
        }
        const next = Array.from({ length: session.rows }, () => active[0]?.tokenIds.at(-1) ?? 0);
        active.forEach(
          (row, index) => (next[places[index] as number] = row.tokenIds.at(-1) as number),
        );
        if (seen) markSeen(seen, next);
        logits = session.step(next);
        if (performance.now() - turn > TURN_MILLISECONDS) {
          await new Promise((resolve) => setImmediate(resolve));
          turn = performance.now();
        }
      }
    } finally {
      logits.dispose();
      seen?.dispose();
      session.dispose();
    }
  }

  private draw(
    logits: Tensor,
    places: readonly number[],
    active: readonly Row[],
    seen: Tensor | undefined,
  ): { ids: number[]; logprobs: number[] } {
    const uniforms = active.map((row) => uniformAt(row.seed, row.tokenIds.length));
    if (active.length === logits.size(0)) return drawTokens(logits, uniforms, this.settings, seen);
    return tidy(() => {
      const index = tensor(Int32Array.from(places), { device: logits.device });
      const some = logits.indexSelect(0, index);
      return drawTokens(some, uniforms, this.settings, seen?.indexSelect(0, index));
    });
  }

  private hasEnded(row: Row): boolean {
    const last = row.tokenIds.at(-1) as number;
    if (this.eos.has(last)) row.finishReason = 'eos';
    else if (this.stop.has(last) || this.options.shouldStop?.(row.tokenIds) === true) {
      row.finishReason = 'stop';
    } else return false;
    return true;
  }

  /** [rows, V] bool: the tokens of the prompts; only made when a repetition penalty needs it. */
  private firstSeen(config: DecoderConfig): Tensor | undefined {
    if (this.settings.repetitionPenalty === 1) return undefined;
    const { device } = this.options.model;
    const flags = new Uint8Array(this.rows.length * config.vocabSize);
    this.rows.forEach((_, row) => {
      const prompt = this.prompts[Math.floor(row / this.copies)] ?? [];
      for (const id of prompt) flags[row * config.vocabSize + id] = 1;
    });
    const shape = [this.rows.length, config.vocabSize];
    return tensor(flags, { shape, dtype: 'bool', device });
  }
}

function selectRows(seen: Tensor | undefined, rows: readonly number[]): Tensor | undefined {
  if (!seen) return undefined;
  const smaller = tidy(() =>
    seen.indexSelect(0, tensor(Int32Array.from(rows), { device: seen.device })),
  );
  seen.dispose();
  return smaller;
}

function markSeen(seen: Tensor, ids: readonly number[]): void {
  tidy(() => {
    const index = tensor(Int32Array.from(ids), {
      dtype: 'int64',
      shape: [ids.length, 1],
      device: seen.device,
    });
    seen.copy_(seen.scatter(1, index, 1));
  });
}

function batchRows(options: SampleOptions): number {
  const { numLayers, numKeyValueHeads, headDim } = options.model.config;
  if (options.maxBatchSize !== undefined) return options.maxBatchSize;
  const longest = Math.max(...options.promptIds.map((prompt) => prompt.length));
  const columns = longest + options.maxNewTokens;
  const bytesPerColumn =
    2 * numLayers * numKeyValueHeads * headDim * DTYPE_BYTES[options.model.dtype];
  return Math.min(MOST_ROWS, Math.max(1, Math.floor(CACHE_BYTES / (columns * bytesPerColumn))));
}

function checkPrompts(options: SampleOptions): void {
  const {
    model,
    promptIds,
    numCompletions = 1,
    maxNewTokens,
    maxBatchSize = 1,
    rowSeeds,
  } = options;
  for (const [name, value] of Object.entries({ numCompletions, maxNewTokens, maxBatchSize })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new ValueRangeError(
        `sample: expected ${name} to be a positive integer, received ${value}.`,
      );
    }
  }
  if (promptIds.length === 0)
    throw new ShapeError('sample: expected at least one prompt, received none.');
  const { vocabSize, maxPositionEmbeddings } = model.config;
  promptIds.forEach((prompt, index) => {
    if (prompt.length === 0) {
      throw new ShapeError(
        `sample: expected prompts with at least one token, but prompt ${index} is empty.`,
        {
          hint: 'Begin with the tokenizer’s beginning-of-sequence token where there is no text.',
        },
      );
    }
    const wrong = prompt.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (wrong !== undefined) {
      throw new ValueRangeError(
        `sample: expected token ids from 0 to ${vocabSize - 1}, received ${wrong} in prompt ${index}.`,
        { hint: 'The tokenizer belongs to another model.' },
      );
    }
    if (prompt.length + maxNewTokens > maxPositionEmbeddings) {
      throw new ValueRangeError(
        `sample: expected prompt and completion to fit ${maxPositionEmbeddings} positions, but prompt ${index} has ` +
          `${prompt.length} tokens and maxNewTokens is ${maxNewTokens}.`,
        { hint: 'Shorten the prompt or lower maxNewTokens.' },
      );
    }
  });
  const total = promptIds.length * numCompletions;
  if (rowSeeds && rowSeeds.length !== total) {
    throw new ShapeError(`sample: expected ${total} row seeds, received ${rowSeeds.length}.`);
  }
}
