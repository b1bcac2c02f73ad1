/** Small real runs to look at with the dashboard, made in some seconds: of GRPO, PPO, DPO, KTO and process rewards. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createDpoRun,
  createGrpoRun,
  createKtoRun,
  createPpoRun,
  createPrmRun,
  type GrpoRunOptions,
} from '../../src/runs/index.js';
import { saveSmallModel } from '../runs/smallModel.js';

/** Sums of small numbers; some of them come again and again, so that their completions can be followed. */
const PROBLEMS = Array.from({ length: 12 }, (_, index) => ({
  prompt: `${3 * index}+${index + 1}=`,
  answer: String(4 * index + 1),
}));

/** Something that a random model meets now and then and soon learns: even digits, and not too many tokens. */
const REWARDS: GrpoRunOptions['rewards'] = [
  function evenDigits({ completion }) {
    return (completion.match(/[02468]/g)?.length ?? 0) / 16;
  },
  function shortEnough({ completion }) {
    return completion.length <= 20 ? 0.5 : 0;
  },
];

/** Names of the runs below the folder. */
export const DEMO_RUNS = {
  calm: 'sums/grpo',
  wild: 'sums/grpo-fast',
  ppo: 'sums/ppo',
  dpo: 'sums/dpo',
  kto: 'sums/kto',
  prm: 'sums/prm',
  judged: 'sums/judged',
} as const;

/** Makes the runs of `DEMO_RUNS` below a folder. */
export async function makeDemoRuns(folder: string, { steps = 30 } = {}): Promise<void> {
  const model = await saveSmallModel(join(folder, '../models/sums'), { seed: 2 });
  const data = join(folder, '../data/sums.jsonl');
  mkdirSync(join(folder, '../data'), { recursive: true });
  writeFileSync(data, PROBLEMS.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const shared = { model, data, rewards: REWARDS, progress: null };
  const config = {
    ...{ steps, promptsPerStep: 4, groupSize: 4, minibatchSize: 8, updatesPerRollout: 2, seed: 1 },
    ...{ klCoef: 0.2, samplesPerStep: 8, checkpointEvery: steps },
    sampling: { maxNewTokens: 32 },
  };
  for (const [name, learningRate] of [
    [DEMO_RUNS.calm, 2e-3],
    [DEMO_RUNS.wild, 6e-2],
  ] as const) {
    const out = join(folder, name);
    const run = await createGrpoRun({ ...shared, out, config: { ...config, learningRate } });
    await run.train();
  }
  const ppo = await createPpoRun({
    ...shared,
    out: join(folder, DEMO_RUNS.ppo),
    config: { ...config, groupSize: 1, minibatchSize: 2, samplesPerStep: 4, learningRate: 3e-3 },
  });
  await ppo.train();
  const dpo = await createDpoRun({
    model,
    data: PROBLEMS.map(({ prompt, answer }) => ({
      prompt,
      chosen: answer,
      rejected: `${answer}+1`,
    })),
    out: join(folder, DEMO_RUNS.dpo),
    config: { maxSteps: steps, batchSize: 4, learningRate: 2e-3, checkpointEvery: steps, seed: 1 },
    progress: null,
  });
  await dpo.train();
  const given = { batchSize: 4, maxSteps: 4, samplesPerStep: 2, learningRate: 2e-3, seed: 1 };
  const kto = await createKtoRun({
    ...{ model, out: join(folder, DEMO_RUNS.kto), config: given, progress: null },
    data: PROBLEMS.map(({ prompt, answer }, at) => ({
      ...{ prompt, completion: at % 2 === 0 ? answer : `${answer}+1`, label: at % 2 === 0 },
    })),
  });
  await kto.train();
  // A sign that a random model writes often enough ends a step.
  const prm = await createPrmRun({
    ...{ model, out: join(folder, DEMO_RUNS.prm), progress: null },
    config: { ...given, stepSeparator: '+' },
    data: PROBLEMS.map(({ prompt, answer }, at) => ({
      ...{ prompt, completions: [answer, '1'], labels: [true, at % 2 === 0] },
    })),
  });
  await prm.train();
  const judged = await createGrpoRun({
    ...{ model, data, progress: null, out: join(folder, DEMO_RUNS.judged) },
    rewards: [`prm:${join(folder, DEMO_RUNS.prm, 'model')}`],
    config: { ...config, steps: 2, learningRate: 2e-3 },
  });
  await judged.train();
}

/** Makes a run whose rewards its folder names, to be tried in the lab. @returns folder of the model that it began with */
export async function makeLabRun(out: string, { steps = 2 } = {}): Promise<string> {
  const model = await saveSmallModel(join(out, '../../models/sums'), { seed: 2 });
  const run = await createGrpoRun({
    ...{ model, data: PROBLEMS, rewards: ['exact-match', 'length:target=2'], out, progress: null },
    config: {
      ...{ steps, promptsPerStep: 4, groupSize: 4, minibatchSize: 16, seed: 1 },
      ...{ learningRate: 2e-2, samplesPerStep: 4, checkpointEvery: 1 },
      sampling: { maxNewTokens: 6 },
    },
  });
  await run.train();
  return model;
}
