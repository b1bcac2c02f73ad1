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
