import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hostMemory, ones, releaseHostMemory, tidy } from '../torch/index.js';
import {
  createModel,
  createScalarModel,
  loadModel,
  loadScalarModel,
  makeDecoderConfig,
  whileAwake,
  type Decoder,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-while-awake-'));
const [language, judge] = [join(root, 'language'), join(root, 'judge')];
before(async () => {
  const config = makeDecoderConfig({
    ...{ vocabSize: 4096, hiddenSize: 256, intermediateSize: 64, tieWordEmbeddings: true },
    ...{ numLayers: 1, numHeads: 2, numKeyValueHeads: 1, padTokenId: 0 },
  });
  const model = createModel(config, { seed: 1 });
  await model.save(language);
  const scalar = createScalarModel(model, { seed: 1 });
  await scalar.save(judge);
  scalar.dispose();
});
after(() => rmSync(root, { recursive: true }));

const MIB = 2 ** 20;
const WEIGHTS = 4096 * 256 * 4; // and a little more
const isLinux = process.platform === 'linux';

/** KiB of weights at rest that are in memory. */
function residentKilobytes(): number {
  const entries = readFileSync('/proc/self/smaps', 'utf8').matchAll(
    /\.weights \(deleted\)\n[^]*?^Rss: +(\d+) kB$/gm,
  );
  return Array.from(entries, ([, size]) => Number(size)).reduce((sum, size) => sum + size, 0);
}

/** Frees so many blocks of 1 MiB. */
function keep(mebibytes: number): void {
  releaseHostMemory();
  tidy(() => {
    for (let made = 0; made < mebibytes; made++) ones([2 ** 18]);
  });
}

const read = (model: Decoder): number => tidy(() => model.embedTokens.weight.sum().item());

describe('whileAwake', () => {
  test('gives back as much of what is kept as the weights need, and none for a model that does not rest', async () => {
    const resting = await loadModel(language, { restIn: root });
    const plain = await loadModel(language);
    keep(16);
    assert.equal(hostMemory().bytesKept, 16 * MIB);
    whileAwake(plain, () => assert.equal(hostMemory().bytesKept, 16 * MIB));
    whileAwake(resting, () => {
      const given = 16 * MIB - hostMemory().bytesKept;
      assert.ok(given >= WEIGHTS && given <= WEIGHTS + 3 * MIB, `${given}`);
    });
    releaseHostMemory();
    for (const model of [resting, plain]) model.dispose();
  });

  if (isLinux)
    test('leaves a model at rest, also one without its output layer and after an error', async () => {
      const model = await loadModel(language, { restIn: root });
      const scalar = await loadScalarModel(judge, { restIn: root });
      const made = createScalarModel(await loadModel(language, { restIn: root }), { seed: 1 });
      for (const one of [model, scalar.trunk, made.trunk]) {
        const failing = (): void =>
          whileAwake(one, () => {
            read(one);
            assert.ok(residentKilobytes() > 1000);
            throw new Error('in the middle');
          });
        assert.throws(failing, /in the middle/);
        assert.equal(residentKilobytes(), 0);
      }
      for (const each of [model, scalar, made]) each.dispose();
    });
});
