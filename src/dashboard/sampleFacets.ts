/** What samples can be filtered by, counted once per sample and not once per question. Knows no files. */
import type { SampleFacets } from './protocol.js';
import type { SampleEntry } from './sampleIndex.js';

/** Prompts that are told at most. */
const MOST_PROMPTS = 200;
/** Names of ends that are told at most: a file that names ever new ones must not fill the memory. */
const MOST_NAMES = 100;

/** A prompt that was sampled. */
interface PromptCount {
  steps: number;
  samples: number;
  lastStep: number;
  /** Place of its first sample. */
  readonly first: number;
}

/** A prompt that is told, with the place of a sample that has its text. */
export interface FrequentPrompt {
  readonly promptId: string;
  readonly steps: number;
  readonly samples: number;
  readonly first: number;
}

/** Counts of the samples of one revision of the index. */
export class FacetCounts {
  private readonly step = new Range();
  private readonly finishReasons = new Map<string, number>();
  private readonly rewardNames = new Set<string>();
  private readonly prompts = new Map<string, PromptCount>();
  private readonly reward = new Range();
  private readonly length = new Range();
  private seen = 0;
  private frequent: readonly FrequentPrompt[] = [];
  private frequentAt = -1;

  /** Counts what has been added. */
  read(entries: readonly SampleEntry[]): void {
    for (; this.seen < entries.length; this.seen++) {
      const entry = entries[this.seen];
      if (entry !== undefined) this.count(entry, this.seen);
    }
  }

  private count(entry: SampleEntry, at: number): void {
    const { step, finishReason, promptId, reward, length } = entry;
    this.step.add(step);
    if (finishReason !== null) {
      const count = this.finishReasons.get(finishReason);
      if (count !== undefined || this.finishReasons.size < MOST_NAMES)
        this.finishReasons.set(finishReason, (count ?? 0) + 1);
    }
    for (const name in entry.rewards)
      if (this.rewardNames.size < MOST_NAMES) this.rewardNames.add(name);
    if (reward !== null) this.reward.add(reward);
    this.length.add(length);
    const prompt = this.prompts.get(promptId);
    if (prompt === undefined) {
      this.prompts.set(promptId, { steps: 1, samples: 1, lastStep: step, first: at });
      return;
    }
    prompt.samples++;
    if (prompt.lastStep !== step) prompt.steps++;
    prompt.lastStep = step;
  }

  /** Those that were sampled in the most steps. */
  frequentPrompts(): readonly FrequentPrompt[] {
    if (this.frequentAt === this.seen) return this.frequent;
    const prompts = Array.from(this.prompts, ([promptId, prompt]) => ({ promptId, ...prompt }));
    prompts.sort((a, b) => b.steps - a.steps || b.samples - a.samples);
    this.frequent = prompts.slice(0, MOST_PROMPTS);
    this.frequentAt = this.seen;
    return this.frequent;
  }

  /** Everything but the texts of prompts. */
  facets(): Omit<SampleFacets, 'run' | 'revision' | 'prompts'> {
    return {
      total: this.seen,
      step: this.step.read(),
      finishReasons: [...this.finishReasons].map(([name, count]) => ({ name, count })),
      rewardNames: [...this.rewardNames],
      reward: this.reward.read(),
      length: this.length.read(),
    };
  }
}

/** Smallest and largest. */
class Range {
  private min = Infinity;
  private max = -Infinity;

  add(value: number): void {
    this.min = Math.min(this.min, value);
    this.max = Math.max(this.max, value);
  }

  read(): { min: number; max: number } | null {
    return this.min <= this.max ? { min: this.min, max: this.max } : null;
  }
}
