/** Which of a run's rewards may score in the lab, and why others may not. */
import type { RewardJob } from './lab.js';
import { findModel, type Openable } from './labModels.js';
import { textsOf, type RunConfig } from './runRecord.js';

/** What decides. */
export interface RewardRules extends Openable {
  readonly allowsRunCode: boolean;
}

/** The rewards of a run. */
export interface RunRewards {
  readonly rewards: readonly RewardJob[];
  readonly weights: Readonly<Record<string, number>>;
  /** Why there are none; null where there are some. */
  readonly refusal: string | null;
}

const MAX_REWARDS = 50;
const MAX_SPEC_CHARACTERS = 2000;
const CODE = /\.[cm]?[jt]s(?:#\w+)?$/;
const BY_MODEL = /^(model|prm(?:-[a-z]+)?):(.+)$/s;

/** By config.json, which a stranger may have written. */
export async function rewardsOfRun(
  config: RunConfig | undefined,
  rules: RewardRules,
): Promise<RunRewards> {
  const { rewardSpecs, rewards: recorded, rewardModels } = config?.inputs ?? {};
  const specs = textsOf(rewardSpecs)
    .filter(({ length }) => length <= MAX_SPEC_CHARACTERS)
    .slice(0, MAX_REWARDS);
  const weights = weightsOf(recorded, config?.config['rewardWeights']);
  if (specs.length === 0) {
    const isKnown = (Array.isArray(recorded) && recorded.length > 0) || Array.isArray(rewardModels);
    return {
      rewards: [],
      weights,
      refusal: isKnown
        ? 'The rewards of this run are functions of a program, which its folder does not hold.'
        : 'This run has no rewards.',
    };
  }
  const folders = foldersOf(rewardModels);
  const rewards = [];
  for (const spec of specs) rewards.push(await rewardJob(spec, folders, rules));
  return { rewards, weights, refusal: null };
}

async function rewardJob(
  spec: string,
  folders: readonly string[],
  rules: RewardRules,
): Promise<RewardJob> {
  if (CODE.test(spec)) {
    const refusal = rules.allowsRunCode
      ? null
      : `${spec} is code: start the dashboard with --allow-run-code to run the files that your runs name as rewards.`;
    return { spec, source: null, refusal };
  }
  const [, kind = '', named = ''] = BY_MODEL.exec(spec) ?? [];
  if (kind === '') return { spec, source: null, refusal: null };
  // The specification may be a path of another working directory; the record has it whole.
  const folder = folders.find((path) => path === named || path.endsWith(`/${trimmed(named)}`));
  const found = await findModel(folder ?? named, rules);
  if ('refusal' in found) return { spec, source: null, refusal: found.refusal };
  return { spec: `${kind}:${found.source.from}`, source: found.source, refusal: null };
}

function trimmed(path: string): string {
  return path.replace(/^(\.\.?\/)+/, '');
}

function foldersOf(value: unknown): string[] {
  const all: unknown[] = Array.isArray(value) ? value : [];
  return all.flatMap((each) => {
    const folder = fieldOf(each, 'folder');
    return typeof folder === 'string' ? [folder] : [];
  });
}

/** Those that were recorded, under those of the settings. */
function weightsOf(recorded: unknown, settings: unknown): Record<string, number> {
  const all: unknown[] = Array.isArray(recorded) ? recorded : [];
  const named = all.map((each) => [fieldOf(each, 'name'), fieldOf(each, 'weight')]);
  const set = typeof settings === 'object' && settings !== null ? Object.entries(settings) : [];
  const pairs = [...named, ...set].filter(
    (pair): pair is [string, number] =>
      typeof pair[0] === 'string' && typeof pair[1] === 'number' && Number.isFinite(pair[1]),
  );
  return Object.fromEntries(pairs);
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}
