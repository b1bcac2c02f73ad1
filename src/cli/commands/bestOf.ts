/** `generate --best-of`: the completion that rewards score highest. */
import { counted } from '../../errors/index.js';
import type { GenerateOptions } from '../../generation/index.js';
import { parseRewardWeight } from '../../rewards/index.js';
import { readRewards } from '../../runs/index.js';
import { bestOfN, type BestOfNResult } from '../../selection/index.js';
import type { CommandContext } from '../program.js';

/** What `--best-of` is told. */
export interface BestOfOptions {
  readonly n: number;
  readonly reward?: readonly string[];
  readonly rewardWeight?: readonly string[];
  readonly json?: boolean;
}

/**
 * Samples n completions of each prompt and prints the best. A prompt without a scored completion gets none, and the
 * command then ends with exit code 1.
 */
export async function printBestOf(
  { io, setExitCode }: CommandContext,
  options: BestOfOptions,
  prompts: readonly { readonly row: Readonly<Record<string, unknown>> }[],
  settings: GenerateOptions,
): Promise<void> {
  const { n } = options;
  const { model } = settings;
  const weights = (options.rewardWeight ?? []).map(parseRewardWeight);
  const { named, load, dispose } = await readRewards(
    options.reward ?? [],
    Object.fromEntries(weights.map(({ name, weight }) => [name, weight])),
    settings.tokenizer,
  );
  const rows = prompts.map(({ row }) => row);
  for (const reward of named) reward.prepare?.(rows);
  const rewardModels = await load({ dtype: model.dtype, device: model.device });
  try {
    const found = await bestOfN({ ...settings, n, rows, rewards: named, rewardModels });
    for (const sentence of found.failures.slice(0, 5)) io.stderr.write(`${sentence}\n`);
    if (found.prompts.some(({ best }) => best === undefined)) setExitCode(1);
    if (options.json === true) io.out(JSON.stringify(asJson(settings, n, found)));
    else print(io, settings, n, found);
  } finally {
    dispose();
    for (const reward of rewardModels) reward.model.dispose();
  }
}

/** A score that is missing is null in JSON. */
function asJson({ prompts }: GenerateOptions, n: number, found: BestOfNResult): object {
  const { reward, meanReward, klBound } = found;
  return {
    completions: found.prompts.map(({ promptIndex, best, completions }) => ({
      prompt: prompts[promptIndex],
      best: best ?? null,
      scores: completions.map(({ score }) => score),
      completions,
    })),
    ...{ n, reward, meanReward, klBound },
  };
}

function print(
  io: CommandContext['io'],
  { prompts }: GenerateOptions,
  n: number,
  found: BestOfNResult,
): void {
  for (const { promptIndex, best } of found.prompts) {
    const prompt = prompts[promptIndex] ?? '';
    if (found.prompts.length > 1)
      io.out(`> ${typeof prompt === 'string' ? prompt : JSON.stringify(prompt)}`);
    if (best === undefined) {
      io.stderr.write(`(none of ${n} completions could be scored)\n`);
      continue;
    }
    io.out(best.text);
    const { tokenIds, finishReason, score } = best;
    io.stderr.write(
      `(${counted(tokenIds.length, 'token')}, ${finishReason}, score ${score.toPrecision(4)}, best of ${n})\n`,
    );
  }
  if (found.prompts.every(({ best }) => best === undefined)) return;
  io.stderr.write(
    `mean score ${found.reward.toPrecision(4)} instead of ${found.meanReward.toPrecision(4)}, KL from sampling at most ${found.klBound.toFixed(3)} nats\n`,
  );
}
