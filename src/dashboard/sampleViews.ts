/** Samples as the page shows them: lists, groups, one prompt through the steps, one sample whole. */
import { withDerived } from './derivedStreams.js';
import type { FollowedRun } from './followedRun.js';
import type {
  PromptHistory,
  SampleDetail,
  SampleGroup,
  SamplePage,
  SampleQuery,
  SampleSequence,
  SampleSummary,
  LossSettings,
  TokenExplanation,
} from './protocol.js';
import { promptIdOf } from './sampleIndex.js';
import { parseSample, type SampleHeader, type SampleLine } from './sampleLines.js';
import { explainToken, lossOfSide } from './tokenExplanation.js';

const PROMPT_EXCERPT = 200;
const COMPLETION_EXCERPT = 400;
const PAGE = 50;
/** Steps of one prompt that are shown at most. */
const HISTORY_STEPS = 500;
/** Samples of one prompt that are read at most. */
const HISTORY_SAMPLES = 5000;

/** The samples of a query, a page of them. */
export async function samplePage(run: FollowedRun, query: SampleQuery): Promise<SamplePage> {
  const { samples, id } = run;
  const { revision } = samples;
  const { offset = 0, limit = PAGE, upTo = samples.entries.length } = query;
  const all = await samples.select({ ...query, upTo: Infinity });
  const places = all.filter((at) => at < upTo);
  const shown = places.slice(offset, offset + limit);
  return {
    ...{ run: id, revision, offset },
    ...{ total: places.length, upTo, newer: all.length - places.length },
    samples: await summaries(run, shown),
    complete: run.hasRead('samples') && samples.revision === revision,
  };
}

async function summaries(run: FollowedRun, places: readonly number[]): Promise<SampleSummary[]> {
  const headers = await run.samples.headers(places);
  return places.flatMap((index, at) => {
    const header = headers[at];
    return header ? [summaryOf(header, index)] : [];
  });
}

function summaryOf(header: SampleHeader, index: number): SampleSummary {
  const { prompt, completion, weightVersion: _version, ...rest } = header;
  return {
    ...rest,
    index,
    promptId: promptIdOf(prompt),
    promptExcerpt: prompt.slice(0, PROMPT_EXCERPT),
    completionExcerpt: completion.slice(0, COMPLETION_EXCERPT),
  };
}

/** One sample; undefined where there is none. */
export async function sampleDetail(
  run: FollowedRun,
  index: number,
): Promise<SampleDetail | undefined> {
  const sample = await readSample(run, index);
  if (sample === undefined) return undefined;
  const { turns, loss, sequence, rejected, ...header } = sample;
  return {
    ...summaryOf(header, index),
    run: run.id,
    revision: run.samples.revision,
    prompt: header.prompt,
    turns,
    weightVersion: header.weightVersion,
    loss,
    completion: sequenceView(sequence, loss),
    rejected: rejected && sequenceView(rejected, loss),
  };
}

/** One token's part of the loss; undefined where there is no such token. */
export async function tokenExplanation(
  run: FollowedRun,
  { index, token, side }: { index: number; token: number; side: 'completion' | 'rejected' },
): Promise<TokenExplanation | undefined> {
  const sample = await readSample(run, index);
  const sequence = side === 'rejected' ? sample?.rejected : sample?.sequence;
  if (!sample || !sequence || token >= sequence.tokenIds.length) return undefined;
  const loss = lossOfSide(sample.loss, side);
  return explainToken(withDerived(sequence.streams, loss), loss, token, sequence.steps);
}

async function readSample(run: FollowedRun, index: number): Promise<SampleLine | undefined> {
  const [line] = await run.samples.lines([index]);
  return line && parseSample(line);
}

function sequenceView(sequence: SampleSequence, loss: LossSettings | null): SampleSequence {
  return { ...sequence, streams: withDerived(sequence.streams, loss) };
}

/** The completions of one prompt in one step; undefined where there are none. */
export async function sampleGroup(
  run: FollowedRun,
  step: number,
  promptIndex: number,
): Promise<SampleGroup | undefined> {
  const { samples } = run;
  const places: number[] = [];
  samples.entries.forEach((entry, at) => {
    if (entry.step === step && entry.promptIndex === promptIndex) places.push(at);
  });
  const headers = await samples.headers(places);
  const found = places.flatMap((index, at) => {
    const header = headers[at];
    // With online DPO a pair of them stands beside them.
    if (header?.kind !== 'completion') return [];
    return [{ ...summaryOf(header, index), completion: header.completion }];
  });
  const [first] = headers;
  if (first === undefined) return undefined;
  const rewards = found.map(({ reward }) => reward);
  const mean = meanOf(rewards);
  const variance = meanOf(
    rewards.map((reward) => (reward === null ? null : (reward - (mean ?? 0)) ** 2)),
  );
  return {
    ...{ run: run.id, revision: samples.revision, step, promptIndex },
    promptId: promptIdOf(first.prompt),
    prompt: first.prompt,
    samples: found.sort((a, b) => a.groupIndex - b.groupIndex),
    rewardMean: mean,
    rewardStd: variance === null ? null : Math.sqrt(variance),
  };
}

/** One prompt through the steps; undefined where it was never recorded. */
export async function promptHistory(
  run: FollowedRun,
  promptId: string,
): Promise<PromptHistory | undefined> {
  const { samples } = run;
  const byStep = new Map<number, number[]>();
  samples.entries.forEach((entry, at) => {
    if (entry.promptId !== promptId) return;
    const known = byStep.get(entry.step);
    if (known) known.push(at);
    else byStep.set(entry.step, [at]);
  });
  const steps = evenly(
    [...byStep].sort(([a], [b]) => a - b),
    HISTORY_STEPS,
  );
  const places = steps.flatMap(([, ofStep]) => ofStep).slice(0, HISTORY_SAMPLES);
  const headers = await samples.headers(places);
  const known = new Map(places.map((index, at) => [index, headers[at]]));
  const [first] = headers;
  if (first === undefined) return undefined;
  return {
    ...{ run: run.id, revision: samples.revision, promptId, prompt: first.prompt },
    steps: steps.map(([step, ofStep]) => ({
      step,
      rewardMean: meanOf(ofStep.map((at) => samples.entries[at]?.reward ?? null)),
      samples: ofStep.flatMap((index) => {
        const header = known.get(index);
        return header ? [summaryOf(header, index)] : [];
      }),
    })),
  };
}

/** At most `count` of the values, the first and the last among them. */
function evenly<Value>(values: readonly Value[], count: number): Value[] {
  if (values.length <= count) return [...values];
  return Array.from(
    { length: count },
    (_, at) => values[Math.round((at * (values.length - 1)) / (count - 1))] as Value,
  );
}

function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}
