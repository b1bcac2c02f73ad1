/** A worked answer that a process reward model was trained on, as samples.jsonl keeps it. */
import type { StepExample } from '../data/index.js';
import type { Tokenizer } from '../tokenizers/index.js';
import type { GivenRecord } from './trainer.js';
import { tokenTexts } from './tokenTexts.js';

/** What is known of an answer of a step. */
export interface KnownAnswer {
  readonly example: StepExample;
  /** Place in the step's batch. */
  readonly place: number;
  /** Probability that each step is right, before the update. */
  readonly scores: readonly number[];
  /** Steps of the whole optimizer step: each weighs the same. */
  readonly steps: number;
}

/** A line of samples.jsonl: the answer with what was thought of each step, and its label. */
export function stepRecord(
  { example, place, scores, steps }: KnownAnswer,
  step: number,
  tokenizer: Tokenizer,
): GivenRecord {
  const { inputIds, stepEnds, labels, promptLength } = example;
  const tokenIds = inputIds.slice(promptLength);
  const ends = new Set(stepEnds.map((end) => end - promptLength));
  const atEnds = (value: number): number[] => tokenIds.map((_, at) => (ends.has(at) ? value : 0));
  const right = labels.filter((label, at) => label === (scores[at] ?? NaN) > 0.5).length;
  return {
    ...{ kind: 'given', step, promptIndex: place, groupIndex: 0, length: tokenIds.length },
    reward: scores.reduce((product, score) => product * score, 1),
    rewards: { accuracy: right / labels.length },
    prompt: tokenizer.decode(inputIds.slice(0, promptLength)),
    completion: tokenizer.decode(tokenIds),
    tokenIds,
    tokens: tokenTexts(tokenizer, tokenIds),
    loss: { method: 'prm', objective: 'stepCrossEntropy' },
    streams: { tokenWeights: atEnds(1 / steps), mask: atEnds(1) },
    steps: stepEnds.map((end, at) => ({
      from: at === 0 ? 0 : (stepEnds[at - 1] ?? 0) + 1 - promptLength,
      to: end + 1 - promptLength,
      score: scores[at] ?? NaN,
      label: labels[at],
    })),
  };
}
