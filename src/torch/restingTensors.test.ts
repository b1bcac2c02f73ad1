import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { IoError, NativeError } from '../errors/index.js';
import {
  Generator,
  mapFile,
  ones,
  putToRest,
  randn,
  restingTensors,
  tensor,
  tidy,
  zeros,
  type Tensor,
} from './index.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-resting-'));
after(() => rmSync(folder, { recursive: true }));
const generator = new Generator(3);

/** Bytes of files that are mapped in part or whole and stand in memory. */
function mappedBytes(): number {
  const [, , shared] = readFileSync('/proc/self/statm', 'utf8').split(' ').map(Number);
  return (shared ?? NaN) * 4096;
}

const isLinux = process.platform === 'linux';

describe('restingTensors', () => {
  const given = (): Map<string, Tensor> =>
    new Map([
      ['odd', tensor([1, 2, 3, 4, 5], { dtype: 'uint8' })],
      ['float32', randn([7, 33], { generator })],
      ['turned', randn([33, 7], { generator }).transpose(0, 1)],
      ['bfloat16', randn([5, 3], { generator }).to('bfloat16')],
      ['float64', randn([2, 3, 4], { generator, dtype: 'float64' })],
      ['int64', tensor([-1, 2 ** 40], { dtype: 'int64' })],
      ['none', zeros([0, 4])],
      ['one', tensor(3)],
    ]);

  test('have the numbers, shapes and dtypes of the originals, before and after a rest', () => {
    tidy(() => {
      const originals = given();
      const copies = restingTensors(folder, originals);
      assert.deepEqual([...copies.keys()], [...originals.keys()]);
      for (const resting of [false, true]) {
        if (resting) putToRest(copies.get('float32') as Tensor);
        for (const [name, original] of originals) {
          const copy = copies.get(name) as Tensor;
          assert.deepEqual([copy.dtype, copy.shape], [original.dtype, original.shape]);
          assert.ok(copy.equal(original), name);
        }
      }
      for (const copy of copies.values()) copy.dispose();
    });
  });

  test('what is written to a copy stays, and reaches neither the original nor a second copy', () => {
    tidy(() => {
      const original = ones([1000]);
      const [first, second] = [1, 2].map(() =>
        restingTensors(folder, new Map([['x', original]])).get('x'),
      ) as [Tensor, Tensor];
      first.mul_(3);
      putToRest(first);
      putToRest(second);
      assert.deepEqual(
        [first, second, original].map((each) => each.sum().item()),
        [3000, 1000, 1000],
      );
      first.dispose();
      second.dispose();
    });
  });

  test('leave no name in the folder', () => {
    tidy(() => {
      const { x } = Object.fromEntries(restingTensors(folder, new Map([['x', ones([4])]])));
      assert.deepEqual(readdirSync(folder), []);
      x?.dispose();
    });
  });

  if (isLinux)
    test('take memory while they are read, none after a rest, and none when they are disposed', () => {
      const megabyte = 2 ** 20;
      tidy(() => {
        const original = ones([64, 2 ** 18]); // 64 MiB
        const before = mappedBytes();
        const taken = (): number => Math.round((mappedBytes() - before) / megabyte);
        const x = restingTensors(folder, new Map([['x', original]])).get('x') as Tensor;
        assert.equal(x.sum().item(), 2 ** 24);
        assert.ok(taken() >= 60, `${taken()} MiB read`);
        putToRest(x);
        assert.ok(taken() <= 2, `${taken()} MiB at rest`);
        assert.equal(x.sum().item(), 2 ** 24);
        x.dispose();
        assert.ok(taken() <= 2, `${taken()} MiB left`);
      });
    });

  if (isLinux)
    test('leave no file open and no mapping behind, also where there is no such folder', () => {
      const held = (): number[] => [
        readdirSync('/proc/self/fd').length,
        readFileSync('/proc/self/maps', 'utf8').split('.weights (deleted)').length,
      ];
      const before = held();
      for (let i = 0; i < 8; i++)
        tidy(() => {
          restingTensors(folder, given()).forEach((copy) => copy.dispose());
          assert.throws(() => restingTensors(join(folder, 'missing'), given()), IoError);
        });
      assert.deepEqual(held(), before);
    });

  test('a folder that is not there, or is none, is an IoError that names it', () => {
    for (const wrong of [join(folder, 'missing'), '/dev/null'])
      assert.throws(
        () => tidy(() => restingTensors(wrong, new Map([['x', ones([4])]]))),
        (error) => error instanceof IoError && error.message.includes(wrong),
      );
  });
});

describe('putToRest', () => {
  test('refuses tensors that lie in no file', () => {
    tidy(() => {
      assert.throws(() => putToRest(ones([4])), NativeError);
      assert.throws(() => putToRest(zeros([0])), NativeError);
    });
  });

  test('takes any tensor of a mapped file', () => {
    tidy(() => {
      const x = mapFile(import.meta.filename ?? new URL(import.meta.url).pathname, 16);
      putToRest(x);
      assert.equal(
        Buffer.from(x.toBytes()).toString(),
        readFileSync(new URL(import.meta.url))
          .subarray(0, 16)
          .toString(),
      );
    });
  });
});
