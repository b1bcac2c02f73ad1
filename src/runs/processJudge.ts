/** A process reward model as a reward: it reads the text of a completion, step by step, and gives one number. */
import type { StepAggregation } from '../algorithms/index.js';
import type { Row } from '../data/index.js';
import { RewardError } from '../errors/index.js';
import { aggregateSteps, judgeSteps } from '../eval/index.js';
import {
  loadStepModel,
  tokenizerFolderOf,
  type LoadModelOptions,
  type StepModel,
  whileAwake,
} from '../models/index.js';
import type { JudgedPart, RewardInput, RewardPart } from '../rewards/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';

/** What `--reward` begins with for a process reward model, and how its steps become one score. */
const KINDS: Readonly<Record<string, ProcessRewardSpec['kind']>> = {
  prm: 'product',
  'prm-min': 'min',
  'prm-last': 'last',
  'prm-steps': 'sum',
};

/** How rewards by models are written, for messages. */
export const MODEL_REWARDS = ['model', ...Object.keys(KINDS)].map((kind) => `${kind}:folder`);

/** A reward by a process reward model, as it is written. */
export interface ProcessRewardSpec {
  /** `sum`: every step is a reward of its own. */
  readonly kind: StepAggregation | 'sum';
  readonly folder: string;
}

/** `prm:folder`, `prm-min:folder`, `prm-last:folder` or `prm-steps:folder`; undefined for any other specification. */
export function processRewardSpec(spec: string): ProcessRewardSpec | undefined {
  const colon = spec.indexOf(':');
  const kind = Object.entries(KINDS).find(([name]) => name === spec.slice(0, Math.max(0, colon)));
  return kind && { kind: kind[1], folder: spec.slice(colon + 1) };
}

interface Waiting {
  readonly input: RewardInput;
  readonly resolve: (score: number) => void;
  readonly reject: (error: unknown) => void;
}

interface Loaded {
  readonly model: StepModel;
  readonly tokenizer: Tokenizer;
}

/**
 * Scores completions by a process reward model. Completions that are asked for at the same time are judged in one batch.
 *
 * Prompts and steps are tokenized by the model's own tokenizer and cut at its own separator: it need not have the
 * policy's. A completion without a step has the score 0, so that silence is no way out.
 */
export class ProcessJudge {
  private readonly spec: ProcessRewardSpec;
  private loaded: Loaded | undefined;
  private waiting: Waiting[] = [];
  private readonly found = new WeakMap<RewardInput, readonly JudgedPart[]>();

  constructor(spec: ProcessRewardSpec) {
    this.spec = spec;
  }

  /** Of the model. */
  get folder(): string {
    return this.spec.folder;
  }

  /** Loads model and tokenizer. @throws CheckpointError or IoError as `loadStepModel` */
  async load(placed: LoadModelOptions): Promise<void> {
    const { folder } = this.spec;
    const tokenizer = await loadTokenizer(tokenizerFolderOf(folder));
    this.loaded = { tokenizer, model: (await loadStepModel(folder, placed)).freeze() };
  }

  /** The reward function. */
  readonly score = (input: RewardInput): Promise<number> =>
    new Promise((resolve, reject) => {
      this.waiting.push({ input, resolve, reject });
      if (this.waiting.length === 1) setImmediate(() => this.answer());
    });

  /** With `sum`, what each step of a completion that was scored earned. */
  readonly parts = (input: RewardInput): readonly RewardPart[] =>
    this.judged(input).map(({ end, score }) => ({ end, reward: score }));

  /** The steps of a completion that was scored. */
  readonly judged = (input: RewardInput): readonly JudgedPart[] => this.found.get(input) ?? [];

  /** Frees the model. */
  dispose(): void {
    this.loaded?.model.dispose();
    this.loaded = undefined;
  }

  private answer(): void {
    const batch = this.waiting;
    this.waiting = [];
    try {
      const scores = this.judge(batch.map(({ input }) => input));
      batch.forEach(({ resolve }, index) => resolve(scores[index] ?? NaN));
    } catch (error) {
      // One completion that cannot be judged must not take the others' scores: each is tried by itself.
      for (const one of batch) this.answerOne(one, batch.length > 1 ? undefined : error);
    }
  }

  private answerOne({ input, resolve, reject }: Waiting, known: unknown): void {
    if (known !== undefined) return reject(known);
    try {
      resolve(this.judge([input])[0] ?? NaN);
    } catch (error) {
      reject(error);
    }
  }

  private judge(inputs: readonly RewardInput[]): number[] {
    const { folder, kind } = this.spec;
    if (this.loaded === undefined) {
      throw new RewardError(
        `Process reward model ${folder}: expected it to be loaded before it scores.`,
      );
    }
    if (inputs.some(({ turns }) => turns)) {
      throw new RewardError(
        `Process reward model ${folder}: expected one answer to a prompt, received the turns of an environment.`,
        { hint: 'Score the answer of the last turn by a reward function.' },
      );
    }
    const { loaded } = this;
    const judged = whileAwake(loaded.model.trunk, () =>
      judgeSteps({
        ...loaded,
        rows: inputs.map(rowOf),
        completions: inputs.map(({ completion }) => completion),
      }),
    );
    judged.forEach((steps, index) => this.found.set(inputs[index] as RewardInput, steps));
    if (kind === 'sum')
      return judged.map((steps) => steps.reduce((sum, { score }) => sum + score, 0));
    return aggregateSteps(judged, kind).map((score) => (Number.isNaN(score) ? 0 : score));
  }
}

/** The row that a completion answers; one with the prompt as text where it has none, as from a command line. */
function rowOf({ prompt, row, source }: RewardInput): Row {
  const values = 'prompt' in row ? row : { prompt };
  return { values, file: 'prompt', line: 1, ...source };
}
