/** How far a model has moved from where it began, measured on its own samples. */
import type { PromptExample } from '../data/index.js';
import { sample } from '../generation/index.js';
import { tokenLogprobs, type Decoder } from '../models/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';

/** What the KL is measured on. */
export interface KlOptions {
  /** One completion is sampled for each, at temperature 1. */
  readonly prompts: readonly PromptExample[];
  readonly maxNewTokens: number;
  readonly seed: number;
}

/**
 * The KL of whole completions, by the estimator k1 on samples of the policy:
 *
 *     E[Σₜ log π(yₜ) − log π_ref(yₜ)], y ~ π
 *
 * @returns nats per completion; a sample mean, which may fall below 0 where the two are close
 */
export async function klToReference(
  policy: Decoder,
  reference: Decoder,
  { prompts, maxNewTokens, seed }: KlOptions,
): Promise<number> {
  const promptIds = prompts.map(({ inputIds }) => inputIds);
  const rows = await sample({ model: policy, promptIds, maxNewTokens, seed });
  return tidy(() => {
    const sequences = rows.map(({ promptIndex, tokenIds }) => [
      ...(promptIds[promptIndex] ?? []),
      ...tokenIds,
    ]);
    const width = Math.max(...sequences.map(({ length }) => length));
    const padded = sequences.map((ids) => [
      ...ids,
      ...Array.from({ length: width - ids.length }, () => 0),
    ]);
    const scored = noGrad(() =>
      tokenLogprobs(reference, {
        inputIds: tensor(padded, { dtype: 'int64', device: reference.device }),
        promptLengths: rows.map(({ promptIndex }) => promptIds[promptIndex]?.length ?? 0),
        lengths: sequences.map(({ length }) => length),
      }),
    );
    const ofPolicy = rows
      .flatMap(({ logprobs }) => logprobs)
      .reduce((sum, value) => sum + value, 0);
    return (ofPolicy - scored.logprobs.sum().item()) / rows.length;
  });
}
