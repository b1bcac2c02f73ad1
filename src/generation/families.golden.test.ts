import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import {
  expectedOfFamily,
  FAMILY_FOLDERS,
  familyFolders,
} from '../../test/golden/familyFolders.js';
import { frequenciesDependOnLength, loadModel, tokenLogprobs } from '../models/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';
import { sample } from './sample.js';

const { copyOf, remove } = familyFolders();
after(remove);

for (const name of FAMILY_FOLDERS) {
  const { prompts, greedy } = expectedOfFamily(name);
  const [maxNewTokens = 0] = greedy.map((ids) => ids.length);
  describe(name, () => {
    for (const packing of [true, false])
      test(`26 tokens at temperature 0 are those of transformers, with ${packing ? 'packed' : 'plain'} weights`, async () => {
        const model = await loadModel(copyOf(name));
        const options = { model, promptIds: prompts, maxNewTokens, temperature: 0, packing };
        const rows = await sample({ ...options, eosTokenIds: [] });
        assert.deepEqual(
          rows.map(({ tokenIds }) => tokenIds),
          greedy,
        );
        model.dispose();
      });
    test('many rows, which take another path of attention, and rows that leave the batch', async () => {
      const model = await loadModel(copyOf(name));
      const options = { model, promptIds: prompts, maxNewTokens, temperature: 0 };
      // The longest prompt's rows end after three tokens.
      const [longest = []] = greedy;
      const end = longest[2] ?? 0;
      const rows = await sample({ ...options, eosTokenIds: [end], numCompletions: 6 });
      for (const { promptIndex, tokenIds } of rows) {
        const whole = greedy[promptIndex] ?? [];
        const place = whole.indexOf(end);
        assert.deepEqual(tokenIds, place === -1 ? whole : whole.slice(0, place + 1));
      }
      model.dispose();
    });
    test('the sampler reports the log-probabilities that training computes', async () => {
      const model = await loadModel(copyOf(name));
      // Where rotations depend on the length, those of a token are of the row as it was then.
      const within = frequenciesDependOnLength(model.config);
      const rows = await sample({
        model,
        promptIds: within ? prompts.slice(2) : prompts,
        maxNewTokens: within ? 4 : maxNewTokens,
        temperature: 1.3,
        seed: 3,
        eosTokenIds: [],
      });
      const lines = rows.map(({ promptIndex, tokenIds }) => [
        ...((within ? prompts[2] : prompts[promptIndex]) ?? []),
        ...tokenIds,
      ]);
      const longest = Math.max(...lines.map(({ length }) => length));
      const padded = lines.map((line) => [
        ...line,
        ...Array<number>(longest - line.length).fill(2),
      ]);
      noGrad(() =>
        tidy(() => {
          const { logprobs } = tokenLogprobs(model, {
            inputIds: tensor(padded, { dtype: 'int64' }),
            promptLengths: lines.map(
              (line, row) => line.length - (rows[row]?.tokenIds.length ?? 0),
            ),
            lengths: lines.map(({ length }) => length),
            temperature: 1.3,
          });
          expectClose(
            logprobs,
            rows.map((row) => row.logprobs),
            { atol: 2e-5, rtol: 1e-6 },
          );
        }),
      );
      model.dispose();
    });
  });
}

describe('rotations that depend on the length of a row', () => {
  for (const name of ['rope-dynamic', 'rope-longrope'])
    test(`${name}: a row's log-probabilities do not depend on the rows beside it, nor on packing`, async () => {
      const model = await loadModel(copyOf(name));
      const { prompts, greedy } = expectedOfFamily(name);
      // Below, at and beyond the original context of 16 tokens.
      const lines = [
        [...(prompts[2] ?? []), ...(greedy[2] ?? []).slice(0, 12)],
        [...(prompts[2] ?? []), ...(greedy[2] ?? []).slice(0, 13)],
        [...(prompts[2] ?? []), ...(greedy[2] ?? []).slice(0, 14)],
        [...(prompts[2] ?? []), ...(greedy[2] ?? [])],
      ];
      const scores = (rows: readonly (readonly number[])[]): number[][] =>
        noGrad(() =>
          tidy(() => {
            const longest = Math.max(...rows.map(({ length }) => length));
            const padded = rows.map((row) => [
              ...row,
              ...Array<number>(longest - row.length).fill(7),
            ]);
            const { logprobs } = tokenLogprobs(model, {
              inputIds: tensor(padded, { dtype: 'int64' }),
              promptLengths: rows.map(() => 4),
              lengths: rows.map(({ length }) => length),
            });
            return (logprobs.toArray() as number[][]).map((row, index) =>
              row.slice(0, (rows[index]?.length ?? 0) - 4),
            );
          }),
        );
      const together = scores(lines);
      lines.forEach((line, index) => {
        expectClose(together[index] ?? [], scores([line])[0] ?? [], { atol: 1e-5, rtol: 1e-6 });
      });
      const packed = noGrad(() =>
        tidy(() => {
          const starts = lines.map((_, index) => lines.slice(0, index).flat().length);
          const { logprobs } = tokenLogprobs(model, {
            inputIds: tensor([lines.flat()], { dtype: 'int64' }),
            promptLengths: lines.map(() => 4),
            lengths: lines.map(({ length }) => length),
            packed: {
              sequenceIds: tensor([lines.flatMap((line, index) => line.map(() => index + 1))], {
                dtype: 'int64',
              }),
              places: starts.map((start) => ({ line: 0, start })),
            },
          });
          return logprobs.toArray() as number[][];
        }),
      );
      together.forEach((row, index) => {
        expectClose((packed[index] ?? []).slice(0, row.length), row, { atol: 1e-5, rtol: 1e-6 });
      });
      model.dispose();
    });
});
