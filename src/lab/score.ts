/** Scores of one completion by the rewards of a run, each by itself: one that cannot score takes no other's score. */
import type { LabScore, LabScores, RewardJob, ScoreJob } from '../dashboard/index.js';
import { PosttrainError } from '../errors/index.js';
import { tokenizerFolderOf } from '../models/index.js';
import type { RewardInput } from '../rewards/index.js';
import { readRewards } from '../runs/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { scoreRows } from '../trainers/index.js';
import type { LabPlacement } from './messages.js';
import { openSource, placeOf, requireRoom } from './openModels.js';
import { promptOf, promptText, promptTokens } from './promptTokens.js';

const TIMEOUT_SECONDS = 30;

/** @throws as `loadTokenizer`, for the model that wrote the completion; the reason of `signal` when it is aborted */
export async function scoreCompletion(
  job: ScoreJob,
  placed: LabPlacement,
  signal: AbortSignal,
): Promise<LabScores> {
  const tokenizer = await loadTokenizer(tokenizerFolderOf(await openSource(job.model)));
  const scores: LabScore[] = [];
  for (const reward of job.rewards) {
    signal.throwIfAborted();
    const found = await scoresOf(reward, { job, tokenizer, placed });
    scores.push(...found.map((one) => ({ ...one, weight: job.weights[one.name] ?? 1 })));
  }
  const total = scores.reduce((sum, { score, weight }) => sum + weight * (score ?? NaN), 0);
  return { scores, total: Number.isFinite(total) ? total : null };
}

type Unweighted = Omit<LabScore, 'weight'>;

async function scoresOf(
  { spec, source, refusal }: RewardJob,
  parts: { job: ScoreJob; tokenizer: Tokenizer; placed: LabPlacement },
): Promise<Unweighted[]> {
  if (refusal !== null) return [{ name: spec, score: null, reason: refusal }];
  const placed = { dtype: parts.placed.dtype, device: placeOf(parts.placed.device) };
  try {
    if (source !== null) {
      const folder = await openSource(source);
      await requireRoom(folder, placed, { hasLmHead: false, tokens: 0 });
    }
    const { named, load, dispose } = await readRewards([spec], {}, parts.tokenizer);
    if (named.some(({ prepare }) => prepare !== undefined)) {
      const reason =
        'It counts words over all rows of the training data, which the lab does not read.';
      return named.map(({ name }) => ({ name, score: null, reason }));
    }
    const rewardModels = await load(placed);
    try {
      const { rewardsOf, failures } = await scoreRows({
        ...{ rewards: named, rewardModels, ...completionOf(parts) },
        ...{ timeoutSeconds: TIMEOUT_SECONDS, concurrency: 1, microBatchTokens: 1 },
      });
      return Object.entries(rewardsOf(0)).map(([name, score]) =>
        Number.isFinite(score)
          ? { name, score, reason: null }
          : {
              name,
              score: null,
              reason: failures.find((text) => text.includes(name)) ?? 'no number',
            },
      );
    } finally {
      dispose();
      for (const { model } of rewardModels) model.dispose();
    }
  } catch (error) {
    if (!(error instanceof PosttrainError)) throw error;
    const reason = [error.message, error.hint].filter((text) => text !== undefined).join(' ');
    return [{ name: spec, score: null, reason }];
  }
}

/** The completion as text and as tokens. */
function completionOf({ job, tokenizer }: { job: ScoreJob; tokenizer: Tokenizer }) {
  const { completionIds, finishReason, row } = job;
  const input: RewardInput = {
    prompt: promptText(tokenizer, job),
    completion: tokenizer.decode(completionIds, { skipSpecialTokens: true }),
    row: { prompt: promptOf(job), ...row },
    finishReason,
    completionTokens: completionIds.length,
    source: { file: 'prompt', line: 1 },
  };
  return { inputs: [input], rows: [{ promptIds: promptTokens(tokenizer, job), completionIds }] };
}
