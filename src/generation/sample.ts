/**
 * Completions of token ids from a decoder: the sampler that trainers and `generate` share. Knows tokens; knows no text.
 *
 * What a row draws depends on its own seed and nothing else: not on the batch it is computed in, nor on the rows beside
 * it. Rows that finish leave the batch.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import type { Decoder, DecoderConfig } from '../models/index.js';
import {
  deriveSeed,
  DTYPE_BYTES,
  tensor,
  tidy,
  uniformAt,
  type Dtype,
  type Tensor,
} from '../torch/index.js';
import { DecodeSession } from './decodeSession.js';
import { drawTokens, type DrawnTokens } from './drawTokens.js';
import { rolloutWeights, type RolloutWeights } from './rolloutWeights.js';
import {
  resolveSampling,
  truncatesSampling,
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
  /**
   * Also return the support of every token, for training with truncated sampling: `tokenLogprobs` needs it to compute the
   * same log-probabilities. Costs memory in proportion to the supports, nothing where no truncation is active.
   */
  keepSupport?: boolean;
  /** Most rows computed together; by default as many as a cache of 512 MiB holds, at most 256. Never changes what is drawn. */
  maxBatchSize?: number;
  /** Packed weights on the CPU. Default true; off is for checking. */
  packing?: boolean;
  /** Hears of each completion as it grows: called after every token, also the one that ends it. */
  onToken?: (completion: SampledCompletion) => void;
  /** Called between steps with the number of finished and of all completions. */
  onProgress?: (finished: number, total: number) => void;
  /** Ends the sampling before its next token, by throwing the signal's reason. */
  signal?: AbortSignal;
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
  /** Per token, the ids it was drawn among, ascending; present if asked for and a truncation is active. */
  supports?: Int32Array[];
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
 * Prompts of similar length are computed together, and a prompt with more completions than fit a batch is computed in
 * several. The event loop gets a turn about every 25 ms.
 *
 * @throws ValueRangeError for settings out of range, a prompt with a token outside the vocabulary, or one too long
 * @throws ShapeError for an empty prompt, no prompt, or a wrong number of row seeds
 * @throws NumericsError when the model gives no finite distribution; the reason of `signal` when it is aborted
 */
export async function sample(options: SampleOptions): Promise<SampledCompletion[]> {
  const settings = resolveSampling(options);
  const { model, promptIds, numCompletions = 1, seed = 0, rowSeeds } = options;
  checkPrompts(options);
  const keepSupport =
    options.keepSupport === true && truncatesSampling(settings, model.config.vocabSize);
  const rows = Array.from({ length: promptIds.length * numCompletions }, (_, index): Row => ({
    promptIndex: Math.floor(index / numCompletions),
    completionIndex: index % numCompletions,
    tokenIds: [],
    logprobs: [],
    ...(keepSupport && { supports: [] }),
    finishReason: 'length',
    seed: rowSeeds?.[index] ?? deriveSeed(seed, 'row', index),
  }));

  const plans = planBatches(options);
  const weights = rolloutWeights(model, {
    packing: options.packing ?? true,
    rows: Math.max(...plans.map(({ prompts, copies }) => prompts.length * copies)),
  });
  const turn = new Turn(options.signal);
  let done = 0;
  try {
    for (const { prompts, copies, first } of plans) {
      const batchRows = prompts.flatMap((prompt) => {
        const start = prompt * numCompletions + first;
        return rows.slice(start, start + copies);
      });
      const ids = prompts.map((prompt) => promptIds[prompt] as readonly number[]);
      await turn.pause();
      const batch = new Batch(weights, options, settings, ids, batchRows);
      await batch.run(turn, (finished) => options.onProgress?.(done + finished, rows.length));
      done += batchRows.length;
    }
  } finally {
    weights.dispose();
  }
  return rows.map(({ seed: _seed, ...completion }) => completion);
}

/** Lets other work of the process run now and then. */
class Turn {
  private readonly signal: AbortSignal | undefined;
  private since = performance.now();

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal;
  }

  async pause(): Promise<void> {
    this.signal?.throwIfAborted();
    if (performance.now() - this.since <= TURN_MILLISECONDS) return;
    await new Promise((resolve) => setImmediate(resolve));
    this.since = performance.now();
  }
}

/** Completions `first` to `first + copies − 1` of each of these prompts. */
interface BatchPlan {
  readonly prompts: readonly number[];
  readonly first: number;
  readonly copies: number;
}

/** Longest prompts first, so that what does not fit into memory fails at once; equal lengths keep their order. */
function planBatches(options: SampleOptions): BatchPlan[] {
  const { model, promptIds, numCompletions = 1, maxNewTokens, maxBatchSize } = options;
  const lengthOf = (prompt: number): number => promptIds[prompt]?.length ?? 0;
  const order = Array.from(promptIds.keys()).sort((a, b) => lengthOf(b) - lengthOf(a) || a - b);
  const plans: BatchPlan[] = [];
  for (let at = 0; at < order.length;) {
    const longest = lengthOf(order[at] ?? 0);
    const room =
      maxBatchSize ?? batchRows(model.config, model.computeDtype, longest + maxNewTokens);
    const count = Math.max(1, Math.floor(room / numCompletions));
    const prompts = order.slice(at, at + count);
    // Where not even one prompt's completions fit, they are cut into parts of nearly equal size.
    const parts = Math.ceil(numCompletions / room);
    for (let part = 0; part < parts; part++) {
      const first = Math.floor((part * numCompletions) / parts);
      const end = Math.floor(((part + 1) * numCompletions) / parts);
      plans.push({ prompts, first, copies: end - first });
    }
    at += count;
  }
  return plans;
}

/**
 * How many rows are sampled together at most: what their caches may take, and never more than the batched products gain.
 *
 * @param tokens of the longest row, with everything that will be drawn
 */
export function batchRows(
  { numLayers, numKeyValueHeads, headDim }: DecoderConfig,
  dtype: Dtype,
  tokens: number,
): number {
  const bytesPerToken = 2 * numLayers * numKeyValueHeads * headDim * DTYPE_BYTES[dtype];
  return Math.min(MOST_ROWS, Math.max(1, Math.floor(CACHE_BYTES / (tokens * bytesPerToken))));
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

  /** @param onStep hears after every token how many of the rows have ended */
  async run(turn: Turn, onStep: (finished: number) => void): Promise<void> {
    const { model, maxNewTokens } = this.options;
    const longest = Math.max(...this.prompts.map((prompt) => prompt.length));
    const { session, logits: first } = DecodeSession.start(
      this.weights,
      model.config,
      this.prompts,
      { copies: this.copies, capacity: longest + maxNewTokens },
    );
    let active = [...this.rows]; // active[i] lies in row places[i] of the session
    let places = active.map((_, index) => index);
    let logits = first;
    let seen: Tensor | undefined;
    try {
      if (this.copies > 1) {
        logits = first.repeatInterleave(this.copies, 0);
        first.dispose();
      }
      seen = this.firstSeen(model.config);
      for (let length = 1; ; length++) {
        const drawn = this.draw(logits, places, active, seen);
        logits.dispose();
        active.forEach((row, index) => {
          row.tokenIds.push(drawn.ids[index] as number);
          row.logprobs.push(drawn.logprobs[index] as number);
          row.supports?.push(drawn.supports?.[index] as Int32Array);
        });
        const alive = active.flatMap((row, index) => (this.hasEnded(row) ? [] : [index]));
        active.forEach((row) => this.options.onToken?.(row));
        const isLast = alive.length === 0 || length === maxNewTokens;
        onStep(isLast ? this.rows.length : this.rows.length - alive.length);
        if (isLast) return;

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
        await turn.pause();
        logits = session.step(next);
      }
    } finally {
      first.dispose();
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
  ): DrawnTokens {
    const { settings } = this;
    const { keepSupport } = this.options;
    const uniforms = active.map((row) => uniformAt(row.seed, row.tokenIds.length));
    if (active.length === logits.size(0))
      return drawTokens(logits, uniforms, settings, { seen, keepSupport });
    return tidy(() => {
      const index = tensor(Int32Array.from(places), { device: logits.device });
      const some = logits.indexSelect(0, index);
      const seenBySome = seen?.indexSelect(0, index);
      return drawTokens(some, uniforms, settings, { seen: seenBySome, keepSupport });
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
