/**
 * The embedded demonstration: a small model learns three-digit addition from people who forget to carry, and then from a
 * rule that only says right or wrong. Everything is made on the spot and written as a user's own run would be.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { rowsFromObjects, tokenizePrompts } from '../data/index.js';
import { IoError } from '../errors/index.js';
import { evaluate, type Evaluation } from '../eval/index.js';
import { loadModel, type Decoder } from '../models/index.js';
import { exactMatch } from '../rewards/index.js';
import { createGrpoRun, createSftRun, type ProgressStream } from '../runs/index.js';
import { additionTask, type AdditionTask } from '../tasks/index.js';
import { deriveSeed } from '../torch/index.js';
import { klToReference } from './klToReference.js';
import { CARRY_FAILURE_SHARE, GRPO, MAX_NEW_TOKENS, MODEL, SAMPLES, SFT } from './settings.js';
import { writeStartingPoint } from './startingPoint.js';

/** What the quickstart may be told. */
export interface QuickstartOptions {
  /** A new folder; `runs/quickstart` (or `-2`, `-3`, … where that is taken) unless set. */
  readonly out?: string | undefined;
  /** 0 unless set. */
  readonly seed?: number | undefined;
  /** Where progress is shown; null shows none. Standard error unless set. */
  readonly progress?: ProgressStream | null | undefined;
}

/** One model on the held-out problems. Fractions of problems or samples, except where said. */
export interface Snapshot {
  /** Greedy accuracy. */
  readonly accuracy: number;
  readonly passAt1: number;
  readonly passAt8: number;
  readonly majorityAt8: number;
  /** Mean tokens of a sampled answer, its end included. */
  readonly completionLength: number;
  /** nats per completion: E[log π − log π_SFT] over samples of π. */
  readonly klToReference: number;
}

/** What the quickstart found. */
export interface QuickstartResult {
  readonly seed: number;
  readonly directory: string;
  readonly parameters: number;
  readonly heldOutProblems: number;
  /** After SFT, before GRPO. */
  readonly before: Snapshot;
  readonly after: Snapshot;
  /** Of each GRPO step: the share of right completions, and of groups without variance. */
  readonly curve: readonly {
    readonly step: number;
    readonly reward: number;
    readonly groupsWithoutVariance: number;
    /** Greedy accuracy on the held-out problems, at the steps where it was measured. */
    readonly accuracy?: number | undefined;
  }[];
  /** Held-out problems with the greedy answers before and after. */
  readonly examples: readonly {
    readonly prompt: string;
    readonly answer: string;
    readonly before: string;
    readonly after: string;
  }[];
  readonly seconds: { readonly sft: number; readonly grpo: number; readonly total: number };
}

/**
 * Runs the demonstration.
 *
 * @returns the numbers that the table shows; the same object is in `quickstart.json` of its folder. The signal's name
 *   where one stopped it: what was trained until then is saved
 * @throws IoError where `out` is something else than a new or empty folder; nothing in it was touched
 */
export async function quickstart(
  options: QuickstartOptions = {},
): Promise<QuickstartResult | NodeJS.Signals> {
  const { seed = 0, progress = process.stderr } = options;
  const out = options.out ?? freeFolder(join('runs', 'quickstart'));
  requireEmpty(out);
  const started = performance.now();
  const say = (line: string): void => void progress?.write(`${line}\n`);

  const task = additionTask({ seed, carryFailureShare: CARRY_FAILURE_SHARE });
  const { paths, parameters } = await writeStartingPoint(out, task, { model: MODEL, seed });
  // The settings as config files: the same run again, or a changed one, is one command away.
  await writeFile(join(out, 'sft.yaml'), stringify(SFT));
  await writeFile(join(out, 'grpo.yaml'), stringify(GRPO));
  const grpoOut = join(out, 'grpo');
  say(
    `A Llama-shaped model of ${(parameters / 1e6).toFixed(2)} M parameters, random weights: ${paths.model}`,
  );

  say(
    `1. SFT on ${task.demonstrations.length} demonstrations, of which ${100 * CARRY_FAILURE_SHARE} % forget to carry`,
  );
  const sft = await createSftRun({
    model: paths.model,
    data: paths.demonstrations,
    out: join(out, 'sft'),
    config: { ...SFT, seed },
    progress,
  });
  const sftResult = await sft.train({ progress });
  if (sftResult.state === 'stopped') return sftResult.stoppedBy ?? 'SIGINT';
  const heldOut = tokenizePrompts(
    rowsFromObjects(task.heldOut.map((row) => ({ ...row }))),
    sft.tokenizer,
    {
      maxPromptLength: 32,
    },
  ).prompts;
  const judge = async (model: Decoder): Promise<Evaluation> =>
    evaluate({
      model,
      tokenizer: sft.tokenizer,
      prompts: heldOut,
      rewards: [{ name: 'exactMatch', weight: 1, fn: exactMatch() }],
      maxNewTokens: MAX_NEW_TOKENS,
      samples: SAMPLES,
      k: [1, SAMPLES],
      seed: deriveSeed(seed, 'quickstart evaluation'),
    });
  const before = await judge(sft.model);
  sft.dispose();

  say(
    `2. GRPO on ${task.trainPrompts.length} problems: reward 1 for the right answer, 0 otherwise`,
  );
  const grpo = await createGrpoRun({
    model: sftResult.model,
    data: paths.problems,
    evalData: paths.heldOut,
    rewards: ['exact-match'],
    out: grpoOut,
    config: { ...GRPO, seed },
    progress,
  });
  const grpoResult = await grpo.train({ progress });
  if (grpoResult.state === 'stopped') return grpoResult.stoppedBy ?? 'SIGINT';
  const after = await judge(grpo.model);
  const reference = await loadModel(sftResult.model);
  const kl = await klToReference(grpo.model, reference, {
    prompts: heldOut,
    maxNewTokens: MAX_NEW_TOKENS,
    seed: deriveSeed(seed, 'quickstart kl'),
  });
  reference.dispose();
  grpo.dispose();

  const result: QuickstartResult = {
    seed,
    directory: out,
    parameters,
    heldOutProblems: heldOut.length,
    before: snapshot(before, 0),
    after: snapshot(after, kl),
    curve: await readCurve(grpoOut),
    examples: pickExamples(task, before, after),
    seconds: {
      sft: sftResult.seconds,
      grpo: grpoResult.seconds,
      total: (performance.now() - started) / 1000,
    },
  };
  await writeFile(join(out, 'quickstart.json'), `${JSON.stringify(result, null, 2)}\n`);
  return result;
}

function freeFolder(base: string): string {
  for (let number = 1; ; number++) {
    const path = number === 1 ? base : `${base}-${number}`;
    if (!existsSync(path)) return path;
  }
}

function requireEmpty(path: string): void {
  if (!existsSync(path)) return;
  if (statSync(path).isDirectory() && readdirSync(path).length === 0) return;
  throw new IoError(`quickstart: expected a new or empty folder, but ${path} is not empty.`, {
    hint: 'Name another folder with --out, or leave --out away.',
  });
}

function snapshot(evaluation: Evaluation, kl: number): Snapshot {
  const { accuracy, sampled } = evaluation;
  return {
    accuracy: accuracy.value,
    passAt1: sampled?.passAtK[1]?.value ?? NaN,
    passAt8: sampled?.passAtK[SAMPLES]?.value ?? NaN,
    majorityAt8: sampled?.majorityAtK[SAMPLES]?.value ?? NaN,
    completionLength: sampled?.completionLength ?? NaN,
    klToReference: kl,
  };
}

async function readCurve(run: string): Promise<QuickstartResult['curve']> {
  const lines = (await readFile(join(run, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => {
    const metrics = JSON.parse(line) as Record<string, number>;
    const { step, reward, groupsWithoutVariance } = metrics;
    return {
      step: step ?? 0,
      reward: reward ?? NaN,
      groupsWithoutVariance: groupsWithoutVariance ?? NaN,
      accuracy: metrics['eval/accuracy'],
    };
  });
}

/** A few problems that were wrong before, and one that was right. */
function pickExamples(
  task: AdditionTask,
  before: Evaluation,
  after: Evaluation,
): QuickstartResult['examples'] {
  const rows = before.completions.map(({ prompt, completion, isCorrect }, index) => ({
    prompt,
    answer: task.heldOut[index]?.answer ?? '',
    before: completion,
    after: after.completions[index]?.completion ?? '',
    isCorrect,
  }));
  const wrong = rows.filter((row) => !row.isCorrect).slice(0, 4);
  const right = rows.filter((row) => row.isCorrect).slice(0, 1);
  return [...wrong, ...right].map(({ prompt, answer, before: first, after: last }) => ({
    prompt,
    answer,
    before: first,
    after: last,
  }));
}
