/** A completion with every number of its tokens. */
import type { CompleteJob, LabCompletion, LabToken } from '../dashboard/index.js';
import { ValueRangeError } from '../errors/index.js';
import {
  defaultMaxNewTokens,
  endTokenIds,
  recommendedSampling,
  sample,
} from '../generation/index.js';
import type { Decoder } from '../models/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';
import { tokenTexts } from '../trainers/index.js';
import type { OpenModel } from './openModels.js';
import { promptText, promptTokens } from './promptTokens.js';

/** Tokens whose logits stand in memory at a time. */
const CHUNK_TOKENS = 64;
const MOST_NEW_TOKENS = 1024;

/**
 * Completes a prompt as `posttrain generate` does with the same seed and settings, and looks at every token once more.
 *
 * @param onToken hears of every token that is drawn
 * @throws ValueRangeError and others as `sample`; the reason of `signal` when it is aborted
 */
export async function completePrompt(
  { model, tokenizer, recommended, loading }: OpenModel,
  job: CompleteJob,
  { signal, onToken }: { signal: AbortSignal; onToken?: (token: LabToken) => void },
): Promise<LabCompletion> {
  const promptIds = promptTokens(tokenizer, job);
  const { givenIds, seed } = job;
  requireTokens(givenIds, model);
  const ends = endTokenIds(model, tokenizer);
  const settings = recommendedSampling(job, recommended);
  const length = promptIds.length + givenIds.length;
  const most = recommended?.maxNewTokens ?? defaultMaxNewTokens(model, length);
  const maxNewTokens = Math.min(MOST_NEW_TOKENS, job.maxNewTokens ?? most);
  const startedAt = performance.now();
  const hasEnded = ends.includes(givenIds.at(-1) ?? -1);
  const [drawn] = hasEnded
    ? []
    : await sample({
        ...{ model, promptIds: [[...promptIds, ...givenIds]], eosTokenIds: ends },
        ...{ ...settings, maxNewTokens, seed, signal },
        onToken: ({ tokenIds: ids, logprobs: all }) => {
          const id = ids.at(-1) as number;
          const [text = ''] = tokenTexts(tokenizer, [id]);
          onToken?.({ id, text, logprob: all.at(-1) as number });
        },
      });
  const sampledAt = performance.now();
  signal.throwIfAborted();
  const tokenIds = [...givenIds, ...(drawn?.tokenIds ?? [])];
  const { logprobs, top } = lookAt(model, { promptIds, tokenIds, count: job.alternatives });
  return {
    promptText: promptText(tokenizer, job),
    promptTokens: promptIds.length,
    sequence: {
      text: tokenizer.decode(tokenIds, { skipSpecialTokens: true }),
      tokenIds,
      tokens: tokenTexts(tokenizer, tokenIds),
      streams: {
        logprobs,
        rolloutLogprobs: [...givenIds.map(() => null), ...(drawn?.logprobs ?? [])],
      },
      topTokens:
        job.alternatives === 0
          ? null
          : {
              tokens: top.map(({ ids }) => tokenTexts(tokenizer, ids)),
              logprobs: top.map((at) => at.logprobs),
            },
      steps: [],
    },
    alternativeIds: top.map(({ ids }) => ids),
    givenTokens: givenIds.length,
    finishReason: drawn?.finishReason ?? 'eos',
    settings: { ...settings, maxNewTokens, seed },
    seconds: {
      loading,
      sampling: (sampledAt - startedAt) / 1000,
      scoring: (performance.now() - sampledAt) / 1000,
    },
  };
}

/** The distribution over the next token at each place of a completion, in one pass. */
function lookAt(
  model: Decoder,
  {
    promptIds,
    tokenIds,
    count,
  }: { promptIds: readonly number[]; tokenIds: readonly number[]; count: number },
): { logprobs: number[]; top: { ids: number[]; logprobs: number[] }[] } {
  const logprobs: number[] = [];
  const top: { ids: number[]; logprobs: number[] }[] = [];
  if (tokenIds.length === 0) return { logprobs, top };
  noGrad(() =>
    tidy(() => {
      const { device } = model;
      const row = Int32Array.from([...promptIds, ...tokenIds]);
      const inputIds = tensor(row, { dtype: 'int64', shape: [1, row.length], device });
      const states = model.hiddenStates({ inputIds }).squeeze(0);
      for (let from = 0; from < tokenIds.length; from += CHUNK_TOKENS) {
        const ids = tokenIds.slice(from, from + CHUNK_TOKENS);
        tidy(() => {
          // The state before a token scores it.
          const before = states.narrow(0, promptIds.length - 1 + from, ids.length);
          const logits = model.lmHead(before);
          const wide = logits.dtype === 'float64' ? logits : logits.to('float32');
          const all = wide.logSoftmax(-1);
          const index = tensor(Int32Array.from(ids), {
            ...{ dtype: 'int64', shape: [ids.length, 1], device },
          });
          logprobs.push(...Array.from(all.gather(-1, index).toTypedArray(), Number));
          const k = Math.min(count, all.size(-1));
          if (k === 0) return top.push(...ids.map(() => ({ ids: [], logprobs: [] })));
          const { values, indices } = all.topk(k);
          const numbers = Array.from(values.toTypedArray(), Number);
          const found = Array.from(indices.toTypedArray(), Number);
          return ids.forEach((_, at) => {
            const part = <Item>(items: readonly Item[]): Item[] =>
              items.slice(at * k, (at + 1) * k);
            top.push({ ids: part(found), logprobs: part(numbers) });
          });
        });
      }
    }),
  );
  return { logprobs, top };
}

function requireTokens(ids: readonly number[], { config: { vocabSize } }: Decoder): void {
  const wrong = ids.find((id) => id >= vocabSize);
  if (wrong === undefined) return;
  throw new ValueRangeError(
    `givenIds: expected token ids from 0 to ${vocabSize - 1}, received ${wrong}.`,
    { hint: 'They are tokens of another model.' },
  );
}
