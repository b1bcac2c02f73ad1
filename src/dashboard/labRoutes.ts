/** The addresses of the model lab; labProtocol.ts says what each answers. */
import type { Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import * as z from 'zod';
import { ValueRangeError } from '../errors/index.js';
import type { FollowedRun } from './followedRun.js';
import { failure } from './guard.js';
import type { LabAnswer, LabParts, ModelSource, RewardJob } from './lab.js';
import { completionLines, LINES } from './labLines.js';
import { listModels, type ListedModel } from './labModels.js';
import { LAB_LIMITS, type LabModels, type LabRewards } from './labProtocol.js';
import { rewardsOfRun, type RewardRules } from './labRewards.js';
import type { RunRegistry } from './runRegistry.js';
import type { WatchedFolder } from './watchedFolders.js';

const MAX_BODY_BYTES = 1 << 20;

const id = z.string().regex(/^[0-9a-f]{16}$/);
const tokenId = z.number().int().min(0);
const prompt = {
  prompt: z.string().max(LAB_LIMITS.promptCharacters),
  chat: z.boolean().default(false),
};

const QUESTION = z.strictObject({
  ...{ model: id, ...prompt },
  givenIds: z.array(tokenId).max(LAB_LIMITS.givenTokens).default([]),
  maxNewTokens: z.number().int().min(1).max(LAB_LIMITS.newTokens).optional(),
  temperature: z.number().min(0).max(1000).optional(),
  topK: z.number().int().min(0).optional(),
  topP: z.number().gt(0).max(1).optional(),
  minP: z.number().min(0).lt(1).optional(),
  repetitionPenalty: z.number().gt(0).max(1000).optional(),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  alternatives: z.number().int().min(0).max(LAB_LIMITS.alternatives).default(5),
});

const SCORE_QUESTION = z
  .strictObject({
    ...{ model: id, ...prompt },
    completionIds: z.array(tokenId).max(LAB_LIMITS.completionTokens),
    finishReason: z.enum(['eos', 'stop', 'length']),
    row: z.record(z.string().max(200), z.unknown()).default({}),
    run: id.optional(),
    judge: id.optional(),
  })
  .refine(({ run, judge }) => (run === undefined) !== (judge === undefined), {
    message: 'expected either run, whose rewards score, or judge, a reward model',
  });

/** What the addresses are answered from. */
export interface LabRoutesParts {
  readonly registry: RunRegistry;
  readonly folders: readonly WatchedFolder[];
  /** undefined where the dashboard was started without a lab. */
  readonly lab: LabParts | undefined;
}

/** Status of a failure by its code; 500 for what is not named. */
const STATUS: Readonly<Record<string, 422 | 503>> = {
  ...{ E_RANGE: 422, E_SHAPE: 422, E_CONFIG: 422, E_DATA: 422, E_CHECKPOINT: 422, E_IO: 422 },
  ...{ E_HUB: 422, E_REWARD: 422, E_NUMERICS: 422, E_USAGE: 422, E_BUSY: 503, E_CANCELLED: 503 },
};

/** Adds the addresses. */
export function addLabRoutes(app: Hono, { registry, folders, lab: parts }: LabRoutesParts): void {
  app.use('/api/lab/*', async (context, next) => {
    if (parts !== undefined) return next();
    const message = 'This dashboard was started without a model lab.';
    return context.json(failure('E_NO_LAB', message, 'Start it with `posttrain dashboard`.'), 501);
  });
  if (parts === undefined) return;
  const { lab } = parts;
  const rules: RewardRules = {
    ...{ watched: folders, given: parts.models, allowsRunCode: parts.allowsRunCode },
  };
  const limit = bodyLimit({
    maxSize: MAX_BODY_BYTES,
    onError: (context) =>
      context.json(failure('E_TOO_LARGE', `Expected at most ${MAX_BODY_BYTES} bytes.`), 413),
  });

  /** The model of an id, or what to answer instead. */
  const openable = async (context: Context, wanted: string): Promise<ListedModel | Response> => {
    const all = await listModels(registry.known(), rules);
    const found = all.filter((model) => model.id === wanted);
    const model = found.find(({ source }) => source !== null) ?? found[0];
    if (model === undefined)
      return context.json(failure('E_NOT_FOUND', 'There is no such model (any more).'), 404);
    if (model.refusal !== null) return context.json(failure('E_REFUSED', model.refusal), 422);
    return model;
  };

  app.get('/api/lab/models', async (context) => {
    const runs = registry.known();
    const models = await listModels(runs, rules);
    const answer: LabModels = {
      models: models.map(({ source: _source, ...model }) => model),
      rewards: await Promise.all(runs.map((run) => rewardsToTell(run, rules, lab))),
    };
    return context.json(answer);
  });

  app.post('/api/lab/complete', limit, async (context) => {
    const { model: wanted, ...question } = await read(context, QUESTION);
    const model = await openable(context, wanted);
    if (model instanceof Response) return model;
    if (model.task !== 'text') return context.json(writesNothing(model), 422);
    const job = { ...question, model: sourceOf(model) };
    const { signal } = context.req.raw;
    if (context.req.header('Accept')?.includes(LINES) !== true)
      return answered(context, await lab.complete(job, signal));
    const begun = await completionLines((stop, onToken) =>
      lab.complete(job, AbortSignal.any([signal, stop]), onToken),
    );
    if (!(begun instanceof ReadableStream)) return answered(context, begun);
    context.header('Content-Type', LINES);
    context.header('X-Accel-Buffering', 'no');
    return context.body(begun);
  });

  app.post('/api/lab/score', limit, async (context) => {
    const { model: wanted, run, judge, ...question } = await read(context, SCORE_QUESTION);
    const model = await openable(context, wanted);
    if (model instanceof Response) return model;
    const found =
      judge === undefined
        ? await rewardsOf(context, run ?? '')
        : await rewardOfJudge(context, judge);
    if (found instanceof Response) return found;
    const job = { ...question, ...found, model: sourceOf(model) };
    return answered(context, await lab.score(job, context.req.raw.signal));
  });

  async function rewardsOf(context: Context, wanted: string) {
    const run = registry.known().find((each) => each.id === wanted);
    if (run === undefined)
      return context.json(failure('E_NOT_FOUND', 'There is no such run (any more).'), 404);
    const { rewards, weights, refusal } = await rewardsOfRun(run.config, rules);
    return refusal === null
      ? { rewards, weights }
      : context.json(failure('E_REFUSED', refusal), 422);
  }

  async function rewardOfJudge(context: Context, wanted: string) {
    const judge = await openable(context, wanted);
    if (judge instanceof Response) return judge;
    if (judge.task === 'text') {
      const message = `${judge.label} writes text and scores none.`;
      return context.json(failure('E_REFUSED', message, 'Choose a reward model.'), 422);
    }
    const source = sourceOf(judge);
    const spec = `${judge.task === 'reward' ? 'model' : 'prm'}:${source.from}`;
    return { rewards: [{ spec, source, refusal: null }], weights: {} };
  }
}

async function rewardsToTell(
  run: FollowedRun,
  rules: RewardRules,
  lab: LabParts['lab'],
): Promise<LabRewards> {
  const { rewards, refusal } = await rewardsOfRun(run.config, rules);
  const columns = await lab.rewardColumns(rewards.map(({ spec }: RewardJob) => spec));
  return {
    run: run.id,
    rewards: rewards.map(({ spec, refusal: why }, index) => ({
      ...{ spec, refusal: why, column: columns[index] ?? null },
    })),
    refusal,
  };
}

function sourceOf({ source, label }: ListedModel): ModelSource {
  if (source !== null) return source;
  throw new ValueRangeError(`internal: ${label} may not be opened.`);
}

function writesNothing({ label, task }: ListedModel) {
  const what =
    task === 'reward' ? 'a reward model, which scores text' : 'a model that judges steps';
  return failure(
    'E_REFUSED',
    `${label} is ${what} and writes none.`,
    'Choose it as what scores, beside a model that writes.',
  );
}

function answered<Value extends object>(context: Context, answer: LabAnswer<Value>): Response {
  if ('value' in answer) return context.json(answer.value);
  const { code, message, hint } = answer.failure;
  return context.json(failure(code, message, hint), STATUS[code] ?? 500);
}

/** A question that was looked at. @throws ValueRangeError */
async function read<Output>(context: Context, schema: z.ZodType<Output>): Promise<Output> {
  let body: unknown;
  try {
    body = await context.req.json();
  } catch {
    throw new ValueRangeError('The question: expected JSON.');
  }
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw new ValueRangeError(`The question:\n${z.prettifyError(result.error)}`);
}
