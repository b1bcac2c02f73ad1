/** What GRPO acts on, and what must hold of it before the first step. */
import type { GrpoConfig } from '../config/index.js';
import type { PromptExample } from '../data/index.js';
import { ConfigError, DataError } from '../errors/index.js';
import type { Decoder } from '../models/index.js';
import type { AdamW } from '../optim/index.js';
import type { NamedReward } from '../rewards/index.js';
import type { Tokenizer } from '../tokenizers/index.js';

/** What GRPO acts on, built before. */
export interface GrpoParts {
  readonly policy: Decoder;
  /** Frozen, and another object than the policy; null where `klCoef` is 0. */
  readonly reference: Decoder | null;
  readonly tokenizer: Tokenizer;
  readonly optimizer: AdamW;
  readonly prompts: readonly PromptExample[];
  readonly rewards: readonly NamedReward[];
}

/**
 * Finds before the first step what would otherwise stop a run in the middle, or silently change its objective.
 *
 * @throws ConfigError where a KL term has no reference, or the policy as its own
 * @throws DataError for a prompt that leaves no room for a completion
 */
export function checkGrpoParts(
  { policy, reference, prompts }: GrpoParts,
  { klCoef, sampling: { maxNewTokens } }: GrpoConfig,
): void {
  if (klCoef > 0 && (reference === null || reference === policy)) {
    throw new ConfigError(
      `GrpoTrainer: expected a reference model of its own for klCoef ${klCoef}, received ${reference === null ? 'none' : 'the policy itself'}.`,
      { hint: 'Load the starting model a second time, or set klCoef to 0.' },
    );
  }
  const { maxPositionEmbeddings: positions } = policy.config;
  const tooLong = prompts.find(({ inputIds }) => inputIds.length + maxNewTokens > positions);
  if (tooLong) {
    const { row, inputIds } = tooLong;
    throw new DataError(
      `GrpoTrainer: expected prompt and completion to fit the model's ${positions} positions, but the prompt of ` +
        `${row.file}:${row.line} has ${inputIds.length} tokens and sampling.maxNewTokens is ${maxNewTokens}.`,
      { hint: 'Lower maxPromptLength, which leaves longer prompts out, or sampling.maxNewTokens.' },
    );
  }
}
