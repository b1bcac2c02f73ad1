/** What a model makes of rows, to compare with what transformers made of them: see tools/interop/reads.py. */
import { sample } from '../../src/generation/index.js';
import { sequenceScores, type Decoder, type ScalarModel } from '../../src/models/index.js';
import { noGrad, tensor, tidy } from '../../src/torch/index.js';

/** Of a language model. */
export interface LanguageReads {
  /** Token ids. */
  readonly rows: readonly (readonly number[])[];
  /** At most 24 tokens each. */
  readonly greedy: readonly (readonly number[])[];
  /** Of the token after each row. */
  readonly logits: readonly (readonly number[])[];
}

/** Of a reward model. */
export interface ScoreReads {
  readonly rows: readonly (readonly number[])[];
  readonly scores: readonly number[];
}

const NEW_TOKENS = 24;

/** Greedy continuations, all rows in one batch, and logits, row by row. */
export async function languageReads(
  model: Decoder,
  rows: readonly (readonly number[])[],
): Promise<LanguageReads> {
  const promptIds = rows.map((row) => [...row]);
  const found = await sample({ model, promptIds, maxNewTokens: NEW_TOKENS, temperature: 0 });
  const logits = promptIds.map((row) =>
    noGrad(() =>
      tidy(() => {
        const { logits: all } = model.forward({ inputIds: tensor([row], { dtype: 'int64' }) });
        return Array.from(
          all
            .select(0, 0)
            .select(0, row.length - 1)
            .toTypedArray(),
          Number,
        );
      }),
    ),
  );
  return { rows, greedy: found.map(({ tokenIds }) => tokenIds), logits };
}

/** Scores, all rows in one batch that is padded at the right. */
export function scoreReads(model: ScalarModel, rows: readonly (readonly number[])[]): ScoreReads {
  const lengths = rows.map(({ length }) => length);
  const longest = Math.max(...lengths);
  const padded = rows.map((row) => [...row, ...Array<number>(longest - row.length).fill(0)]);
  const scores = noGrad(() =>
    tidy(() => {
      const inputIds = tensor(padded, { dtype: 'int64' });
      return Array.from(sequenceScores(model, { inputIds, lengths }).toTypedArray(), Number);
    }),
  );
  return { rows, scores };
}
