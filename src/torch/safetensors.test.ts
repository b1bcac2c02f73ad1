import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { CheckpointError, IoError } from '../errors/index.js';
import {
  arange,
  complex,
  DTYPE_BYTES,
  memory,
  noGrad,
  readSafetensors,
  tensor,
  tidy,
  uniformAt,
  writeSafetensors,
  zeros,
  type Tensor,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden/safetensors/dtypes.safetensors');
const folder = mkdtempSync(join(tmpdir(), 'posttrain-safetensors-'));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string): string => join(folder, name);

/** The tensors of tools/golden/safetensors_files.py. */
function goldenTensors(): Map<string, Tensor> {
  const counting = tensor([
    [0, 1, 2],
    [3, 4, 5],
  ]);
  const exact = counting.to('float64');
  return new Map([
    ['scalar', tensor(1.5)],
    ['empty', zeros([0, 4])],
    ['bool', counting.remainder(2).eq(0)],
    ['uint8', counting.to('uint8')],
    ['int32', counting.to('int32').mul(-5)],
    ['int64', counting.to('int64').mul(2 ** 40)],
    ['float16', counting.div(3).to('float16')],
    ['bfloat16', counting.div(3).to('bfloat16')],
    ['é.float32', counting.div(7)],
    ['a.float32', counting.div(3)],
    ['b.float64', exact.div(3)],
    ['complex64', complex(counting, counting.neg())],
  ]);
}

/** A file from a header and data, however wrong. */
function fileOf(header: unknown, data = Buffer.alloc(0), claimed?: bigint): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimed ?? BigInt(text.length));
  return Buffer.concat([prefix, text, data]);
}

const bytesOf = (value: Tensor): Buffer =>
  Buffer.from((value.dtype === 'complex64' ? value.viewAsReal() : value).toBytes());

describe('safetensors', () => {
  test('a file of ours is byte for byte that of the reference implementation', async () => {
    await writeSafetensors(file('ours'), goldenTensors());
    assert.deepEqual(readFileSync(file('ours')), readFileSync(GOLDEN));
  });
  test('every dtype of a file of the reference implementation is read exactly', () => {
    const opened = readSafetensors(GOLDEN);
    const expected = goldenTensors();
    assert.deepEqual([...opened.names].sort(), [...expected.keys()].sort());
    assert.deepEqual(opened.metadata, { format: 'pt' });
    for (const [name, want] of expected) {
      const got = opened.tensor(name);
      assert.equal(got.dtype, want.dtype, name);
      assert.deepEqual(got.shape, want.shape, name);
      assert.deepEqual(opened.shapeOf(name), want.shape, name);
      assert.equal(opened.dtypeOf(name), want.dtype, name);
      assert.deepEqual(bytesOf(got), bytesOf(want), name);
    }
    opened.dispose();
  });
  test('views and metadata are written as they are', async () => {
    const base = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const tensors = new Map([['turned', base.transpose(0, 1)]]);
    await writeSafetensors(file('views'), tensors, { step: '7', about: 'ä' });
    const opened = readSafetensors(file('views'));
    assert.deepEqual(opened.tensor('turned').toArray(), [
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
    assert.deepEqual(opened.metadata, { format: 'pt', step: '7', about: 'ä' });
  });
  test('no tensors at all make a valid file', async () => {
    await writeSafetensors(file('none'), new Map());
    assert.deepEqual(readSafetensors(file('none')).names, []);
  });
  test('a parameter that requires a gradient is written', async () => {
    const parameter = tensor([1, 2], { requiresGrad: true });
    await writeSafetensors(file('leaf'), new Map([['w', parameter.mul(2)]]));
    assert.deepEqual(readSafetensors(file('leaf')).tensor('w').toArray(), [2, 4]);
  });
  test('several files are read as one, and a name in two of them is an error', async () => {
    await writeSafetensors(file('one'), new Map([['a', tensor([1])]]));
    await writeSafetensors(file('two'), new Map([['b', tensor([2])]]));
    const opened = readSafetensors([file('one'), file('two')]);
    assert.deepEqual(opened.names, ['a', 'b']);
    assert.deepEqual(opened.tensor('b').toArray(), [2]);
    assert.throws(() => readSafetensors([file('one'), file('one')]), {
      code: 'E_CHECKPOINT',
      message: `readSafetensors: tensor "a" is in ${file('one')} and again in ${file('one')}.`,
    });
    assert.throws(() => opened.tensor('c'), {
      message: `readSafetensors: expected a tensor "c" in ${file('one')}, ${file('two')}, there is none.`,
    });
  });
  test('elements that are not aligned in the file are read', () => {
    const data = Buffer.alloc(9);
    data.writeFloatLE(1.5, 1);
    data.writeFloatLE(-2, 5);
    const header = {
      byte: { dtype: 'U8', shape: [1], data_offsets: [0, 1] },
      odd: { dtype: 'F32', shape: [2], data_offsets: [1, 9] },
    };
    for (const padding of ['', ' ', '  ', '   ']) {
      writeFileSync(file('odd'), fileOf(JSON.stringify(header) + padding, data));
      assert.deepEqual(readSafetensors(file('odd')).tensor('odd').toArray(), [1.5, -2]);
      assert.deepEqual(readSafetensors(file('odd')).read('odd').toArray(), [1.5, -2]);
    }
  });
});

describe('tensors that are read', () => {
  test('are those that are mapped, of every dtype', () => {
    const opened = readSafetensors(GOLDEN);
    const openFiles = (): number => readdirSync('/proc/self/fd').length;
    const before = openFiles();
    for (const name of opened.names) opened.read(name);
    assert.equal(openFiles(), before);
    for (const name of opened.names) {
      const [read, mapped] = [opened.read(name), opened.tensor(name)];
      assert.deepEqual([read.dtype, read.shape], [mapped.dtype, mapped.shape]);
      assert.deepEqual(bytesOf(read), bytesOf(mapped));
    }
  });
  test('are whole where they are larger than what is read at a time', async () => {
    const count = 2 ** 23 + 12_345;
    await writeSafetensors(file('large'), new Map([['w', arange(count).remainder(65_537)]]));
    const read = readSafetensors(file('large')).read('w');
    assert.ok(read.equal(arange(count).remainder(65_537)));
  });
  test('are converted to another dtype, as a whole tensor is', async () => {
    const count = 2 ** 20 + 7;
    const numbers = arange(count).div(3);
    await writeSafetensors(file('converted'), new Map([['w', numbers.view([count, 1])]]));
    const opened = readSafetensors(file('converted'));
    for (const dtype of ['bfloat16', 'float64', 'int32'] as const) {
      const read = opened.read('w', dtype);
      assert.deepEqual([read.dtype, read.shape], [dtype, [count, 1]]);
      assert.ok(read.equal(numbers.to(dtype).view([count, 1])));
    }
  });
  test('keep their numbers when the file is overwritten in place, and can be trained', async () => {
    await writeSafetensors(file('own'), new Map([['w', tensor([1, 2, 3])]]));
    const read = readSafetensors(file('own')).read('w');
    writeFileSync(file('own'), '');
    assert.deepEqual(read.toArray(), [1, 2, 3]);
    read.requiresGrad = true;
    tidy(() => read.square().sum().backward());
    assert.deepEqual(read.grad?.toArray(), [2, 4, 6]);
  });
  test('of a file that was cut short, replaced or removed are an error', async () => {
    await writeSafetensors(file('short'), new Map([['w', tensor([1, 2, 3])]]));
    const opened = readSafetensors(file('short'));
    const other = tensor([4, 5, 6]);
    const before = memory().liveTensors;
    const refused = (pattern: RegExp): void => {
      assert.throws(
        () => opened.read('w'),
        (error) => error instanceof IoError && pattern.test(error.message),
      );
    };
    truncateSync(file('short'), readFileSync(file('short')).length - 4);
    refused(/short was changed after it was opened/);
    await writeSafetensors(file('short'), new Map([['w', other]]));
    refused(/short was changed after it was opened/);
    rmSync(file('short'));
    refused(/short can no longer be read: ENOENT/);
    mkdirSync(file('short'));
    refused(/short was changed after it was opened/);
    assert.equal(memory().liveTensors, before);
  });
});

describe('mapped tensors', () => {
  test('writing to one changes memory and not the file', async () => {
    await writeSafetensors(file('mapped'), new Map([['w', tensor([1, 2, 3])]]));
    const opened = readSafetensors(file('mapped'));
    const mapped = opened.tensor('w');
    noGrad(() => mapped.mul_(10));
    assert.deepEqual(mapped.toArray(), [10, 20, 30]);
    assert.deepEqual(readSafetensors(file('mapped')).tensor('w').toArray(), [1, 2, 3]);
  });
  test('one stays valid when its file is replaced or removed, and after dispose', async () => {
    await writeSafetensors(file('gone'), new Map([['w', tensor([1, 2, 3])]]));
    const opened = readSafetensors(file('gone'));
    const mapped = opened.tensor('w');
    opened.dispose();
    await writeSafetensors(file('gone'), new Map([['w', tensor([7, 8, 9])]]));
    rmSync(file('gone'));
    assert.deepEqual(mapped.toArray(), [1, 2, 3]);
  });
  test('a model can be saved over the file it is mapped from', async () => {
    await writeSafetensors(file('self'), new Map([['w', tensor([1, 2, 3])]]));
    const mapped = readSafetensors(file('self')).tensor('w');
    noGrad(() => mapped.add_(1));
    await writeSafetensors(file('self'), new Map([['w', mapped]]));
    assert.deepEqual(readSafetensors(file('self')).tensor('w').toArray(), [2, 3, 4]);
  });
  test('parameters made from one can be trained', () => {
    const opened = readSafetensors(GOLDEN);
    const parameter = opened.tensor('a.float32');
    parameter.requiresGrad = true;
    tidy(() => parameter.mul(2).sum().backward());
    noGrad(() => parameter.sub(parameter.grad ?? 0));
    noGrad(() => parameter.add_(1));
    assert.deepEqual(parameter.grad?.toArray(), [
      [2, 2, 2],
      [2, 2, 2],
    ]);
  });
  test('everything is freed', () => {
    const before = memory().liveTensors;
    const opened = readSafetensors(GOLDEN);
    for (const name of opened.names) opened.tensor(name).dispose();
    opened.dispose();
    assert.equal(memory().liveTensors, before);
  });
});

describe('writeSafetensors', () => {
  test('refuses one tensor under two names', async () => {
    const shared = tensor([1]);
    const tensors = new Map([
      ['a', shared],
      ['b', shared],
    ]);
    await assert.rejects(writeSafetensors(file('twice'), tensors), {
      code: 'E_CHECKPOINT',
      message: 'writeSafetensors: "a" and "b" are one tensor; expected it once.',
    });
  });
  test('refuses a dtype that the format lacks', async () => {
    const wide = complex(zeros([1], { dtype: 'float64' }), zeros([1], { dtype: 'float64' }));
    await assert.rejects(writeSafetensors(file('wide'), new Map([['w', wide]])), CheckpointError);
  });
  test('a failure names the path and leaves neither a file nor a temporary one', async () => {
    const target = file('folder');
    mkdirSync(join(target, 'model.safetensors'), { recursive: true });
    // A folder of that name stands in the way of the rename, at the very end.
    const path = join(target, 'model.safetensors');
    await assert.rejects(writeSafetensors(path, new Map([['w', tensor([1])]])), (error) => {
      assert.ok(error instanceof IoError);
      assert.ok(error.message.startsWith(`writing ${path} failed: `), error.message);
      return true;
    });
    assert.deepEqual(readdirSync(target), ['model.safetensors']);
    await assert.rejects(writeSafetensors(file('no/such/folder'), new Map()), IoError);
  });
  test('a tensor freed while it is written leaves the old file in place', async () => {
    await writeSafetensors(file('old'), new Map([['w', tensor([1])]]));
    const freed = tensor([2]);
    const writing = writeSafetensors(file('old'), new Map([['w', freed]]));
    freed.dispose();
    await assert.rejects(writing, { code: 'E_DISPOSED' });
    assert.deepEqual(readSafetensors(file('old')).tensor('w').toArray(), [1]);
    assert.ok(!readdirSync(folder).some((name) => name.endsWith('.tmp')));
  });
});

describe('readSafetensors refuses', () => {
  const entry = { dtype: 'F32', shape: [1], data_offsets: [0, 4] };
  const four = Buffer.alloc(4);
  const cases: [string, Buffer, RegExp][] = [
    ['an empty file', Buffer.alloc(0), /expected 8 bytes at 0, the file ends earlier/],
    ['a header longer than the file', fileOf({}, four, 100n), /claims 100 bytes, the file has 14/],
    ['a header longer than 100 MB', fileOf({}, four, 2n ** 63n), /at most 100000000 bytes/],
    ['an empty header', fileOf('', four), /too short/],
    ['what is not an object', fileOf('[]', four), /does not begin with "{"/],
    ['what is not JSON', fileOf('{]', four), /not JSON/],
    ['what is not UTF-8', fileOf('{'.padEnd(9), four).fill(0xff, 9, 12), /not UTF-8/],
    ['what is nested deeply', fileOf(`{"w":${'['.repeat(2e5)}${']'.repeat(2e5)}}`), /"w" is not/],
    [
      'one tensor twice',
      fileOf(`{"w":${JSON.stringify(entry)},"w":${JSON.stringify(entry)}}`, four),
      /has "w" twice in one object/,
    ],
    [
      'one tensor twice, once in other letters',
      fileOf(`{"w":${JSON.stringify(entry)},"\\u0077":${JSON.stringify(entry)}}`, four),
      /has "\\u0077" twice in one object/,
    ],
    [
      'one field twice',
      fileOf('{"w":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,4]}}', four),
      /has "dtype" twice in one object/,
    ],
    ['metadata that is not text', fileOf({ __metadata__: { a: 1 } }), /object of strings/],
    ['a tensor that is not an object', fileOf({ w: 1 }), /tensor "w" is not described/],
    ['no dtype', fileOf({ w: { ...entry, dtype: 3 } }, four), /tensor "w" has no dtype/],
    ['a dtype it has not', fileOf({ w: { ...entry, dtype: 'F8_E4M3' } }, four), /"F8_E4M3"/],
    ['a dtype by inheritance', fileOf({ w: { ...entry, dtype: 'toString' } }, four), /"toString"/],
    ['a negative size', fileOf({ w: { ...entry, shape: [-1] } }, four), /list of integers ≥ 0/],
    ['a broken size', fileOf({ w: { ...entry, shape: [0.5] } }, four), /list of integers ≥ 0/],
    [
      'too many elements',
      fileOf({ w: { ...entry, shape: [2 ** 30, 2 ** 30, 0] } }, four),
      /more elements than can be counted/,
    ],
    ['one offset', fileOf({ w: { ...entry, data_offsets: [0] } }, four), /two integers/],
    ['offsets turned round', fileOf({ w: { ...entry, data_offsets: [4, 0] } }, four), /spans -4/],
    ['another size', fileOf({ w: { ...entry, shape: [2] } }, four), /spans 4 bytes.* need 8/],
    ['a file cut short', fileOf({ w: entry }, four.subarray(1)), /end at byte \d+, the file has/],
    ['bytes too many', fileOf({ w: entry }, Buffer.alloc(5)), /end at byte \d+, the file has/],
    [
      'a gap',
      fileOf({ w: entry, v: { ...entry, data_offsets: [8, 12] } }, Buffer.alloc(12)),
      /tensor "v" leaves a gap before it/,
    ],
    [
      'an overlap',
      fileOf(
        {
          w: { ...entry, shape: [2], data_offsets: [0, 8] },
          v: { ...entry, data_offsets: [4, 8] },
        },
        Buffer.alloc(8),
      ),
      /tensor "v" overlaps the one before it/,
    ],
  ];
  for (const [what, bytes, message] of cases)
    test(what, () => {
      writeFileSync(file('wrong'), bytes);
      assert.throws(
        () => readSafetensors(file('wrong')),
        (error) => {
          assert.ok(error instanceof CheckpointError, String(error));
          assert.ok(error.message.includes(file('wrong')));
          assert.match(error.message, message);
          return true;
        },
      );
    });
  test('a name in two tensors’ descriptions, and one that looks like two, are no repetition', () => {
    const twice = { 'a":{"b': entry, a: { ...entry, data_offsets: [4, 8] } };
    writeFileSync(file('right'), fileOf(twice, Buffer.alloc(8)));
    assert.deepEqual(readSafetensors(file('right')).names, ['a":{"b', 'a']);
  });
  test('a file that is not there, and a folder', () => {
    assert.throws(() => readSafetensors(file('nothing')), IoError);
    assert.throws(() => readSafetensors(folder), CheckpointError);
  });
});

describe('a damaged header', () => {
  const original = readFileSync(GOLDEN);
  const headerEnd = 8 + Number(original.readBigUInt64LE());

  /** Another digit for a digit and another letter for a letter, so that the header stays JSON and says something else. */
  function swapped(byte: number, by: number): number {
    if (byte >= 48 && byte < 58) return 48 + by;
    return byte >= 97 && byte < 123 ? 97 + by : byte;
  }

  /** Bytes flipped, inserted, removed or replaced by what a header is made of, at places drawn from the seed. */
  function mutate(seed: number): Buffer {
    let counter = 0;
    const below = (limit: number): number => Math.floor(uniformAt(seed, counter++) * limit);
    let bytes = Buffer.from(original);
    for (let times = 1 + below(4); times > 0; times--) {
      const at = below(Math.min(bytes.length, below(4) === 0 ? 8 : headerEnd));
      const piece = Buffer.from(
        ['9', '-', '0', '"', '[', ']', '{', '}', ',', '1e99', 'F64', 'null'][below(12)] ?? '',
      );
      const kind = below(8);
      if (kind === 0) bytes[at] = below(256);
      else if (kind === 1) bytes.set(piece.subarray(0, bytes.length - at), at);
      else if (kind === 2)
        bytes = Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
      else if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]);
      else if (kind === 4) bytes = bytes.subarray(0, below(bytes.length + 1));
      else bytes[at] = swapped(bytes[at] ?? 0, below(10));
      // Half of the files claim their header's true length again, so that the mutation is looked at.
      const end = bytes.lastIndexOf('}}');
      if ((kind === 2 || kind === 3) && end > 8 && below(2) === 0)
        bytes.writeBigUInt64LE(BigInt(end + 2 - 8));
    }
    return bytes;
  }

  test('3,000 mutations are either refused or read: none crashes, hangs or allocates by a lying length', () => {
    const path = file('fuzz');
    const started = process.memoryUsage().rss;
    let read = 0;
    const refusals = new Map<string, number>();
    for (let seed = 0; seed < 3000; seed++) {
      writeFileSync(path, mutate(seed));
      try {
        const opened = readSafetensors(path);
        // What is read must be the file: the tensors' bytes and the header are all that there is.
        const header = 8 + Number(readFileSync(path).readBigUInt64LE());
        const described = opened.names.map(
          (name) =>
            opened.shapeOf(name).reduce((product, size) => product * size, 1) *
            DTYPE_BYTES[opened.dtypeOf(name)],
        );
        assert.equal(
          described.reduce((sum, bytes) => sum + bytes, header),
          readFileSync(path).length,
          `seed ${seed}`,
        );
        for (const name of opened.names)
          tidy(() => {
            const value = opened.tensor(name);
            assert.equal(value.toBytes().length, value.numel * DTYPE_BYTES[value.dtype]);
          });
        opened.dispose();
        read += 1;
      } catch (error) {
        assert.ok(error instanceof CheckpointError, `seed ${seed}: ${String(error)}`);
        const reason = error.message
          .replace(/.*valid safetensors file: |"[^"]*"|\d+/gs, '')
          .slice(0, 40);
        refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
      }
    }
    // Else the mutations no longer reach the later checks.
    assert.ok(read > 200 && refusals.size > 12, `${read} read; ${[...refusals.keys()].join('; ')}`);
    assert.ok(process.memoryUsage().rss - started < 500e6);
  });
});
