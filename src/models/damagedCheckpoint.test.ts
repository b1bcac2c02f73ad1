import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import { CheckpointError } from '../errors/index.js';
import { memory } from '../torch/index.js';
import { loadModel } from './index.js';

const GOLDEN = join(ROOT, 'test/golden/models');
const root = mkdtempSync(join(tmpdir(), 'posttrain-damaged-'));
after(() => rmSync(root, { recursive: true }));

const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const SECOND = 'model-00002-of-00003.safetensors';

/** A folder to be damaged. */
class Damaged {
  readonly folder: string;

  constructor(name: string) {
    this.folder = mkdtempSync(join(root, 'model-'));
    cpSync(join(GOLDEN, name), this.folder, { recursive: true });
  }

  path(file: string): string {
    return join(this.folder, file);
  }

  json(file: string, change: (value: Record<string, unknown>) => unknown): void {
    const value = JSON.parse(readFileSync(this.path(file), 'utf8')) as Record<string, unknown>;
    writeFileSync(this.path(file), JSON.stringify(change(value)));
  }

  bytes(file: string, change: (bytes: Buffer) => Buffer): void {
    writeFileSync(this.path(file), change(readFileSync(this.path(file))));
  }

  /** Another header before the same data. */
  header(change: (header: Record<string, Entry>) => unknown): void {
    this.headerText((text) => {
      const changed = change(JSON.parse(text) as Record<string, Entry>);
      return typeof changed === 'string' ? changed : JSON.stringify(changed);
    });
  }

  headerText(change: (text: string) => string): void {
    this.bytes(WEIGHTS, (bytes) => {
      const end = 8 + Number(bytes.readBigUInt64LE());
      const text = Buffer.from(change(bytes.subarray(8, end).toString()));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(text.length));
      return Buffer.concat([length, text, bytes.subarray(end)]);
    });
  }

  /** Another first number of a float32 tensor. */
  number(name: string, value: number): void {
    let begin = 0;
    this.header((header) => {
      [begin] = entry(header, name).data_offsets;
      return header;
    });
    this.bytes(WEIGHTS, (bytes) => {
      bytes.writeFloatLE(value, 8 + Number(bytes.readBigUInt64LE()) + begin);
      return bytes;
    });
  }

  claim(length: bigint): void {
    this.bytes(WEIGHTS, (bytes) => {
      bytes.writeBigUInt64LE(length);
      return bytes;
    });
  }

  /** Every file's name and hash; of a link that leads nowhere where it leads. */
  fingerprint(): string[] {
    return readdirSync(this.folder)
      .sort()
      .map((name) => {
        const isThere = existsSync(this.path(name));
        const content = isThere ? readFileSync(this.path(name)) : readlinkSync(this.path(name));
        return `${name} ${createHash('sha256').update(content).digest('hex')}`;
      });
  }
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const NORM = 'model.norm.weight';
const LFS_POINTER = `version https://git-lfs.github.com/spec/v1
oid sha256:${'0'.repeat(64)}
size 270000000
`;
const entry = (header: Record<string, Entry>, name = NORM): Entry => {
  const found = header[name];
  assert.ok(found, `${name} is in the header`);
  return found;
};

/** An object less one of its keys. */
const without = (value: object, key: string): object =>
  Object.fromEntries(Object.entries(value).filter(([name]) => name !== key));

type Case = readonly [what: string, damage: (model: Damaged) => void, message: RegExp];

const CONFIG: readonly Case[] = [
  [
    'an unknown family of a known kind',
    (m) => m.json('config.json', (c) => ({ ...c, model_type: 'qwen4' })),
    /config\.json: expected model_type to be one of llama, .*, received "qwen4"/,
  ],
  [
    'no family',
    (m) => m.json('config.json', (c) => without(c, 'model_type')),
    /expected model_type .* received undefined/,
  ],
  [
    'a family that is a list nested deeply',
    (m) =>
      m.bytes('config.json', () =>
        Buffer.from(`{"model_type":${'['.repeat(1e5)}${']'.repeat(1e5)}}`),
      ),
    /received (\[+…|a value nested too deeply to be shown)/,
  ],
  [
    'sizes beyond every memory',
    (m) => m.json('config.json', (c) => ({ ...c, hidden_size: 2 ** 40 })),
    /of another shape than config\.json says/,
  ],
  [
    'a size that is not a number',
    (m) => m.json('config.json', (c) => ({ ...c, num_hidden_layers: '2' })),
    /expected num_hidden_layers to be a positive integer, received "2"/,
  ],
  [
    'a config.json cut short',
    (m) => m.bytes('config.json', (b) => b.subarray(0, 40)),
    /expected JSON/,
  ],
  [
    'a config.json that is a list',
    (m) => m.json('config.json', () => []),
    /expected a JSON object/,
  ],
  ['no config.json', (m) => rmSync(m.path('config.json')), /expected a config\.json in/],
];

const HEADER: readonly Case[] = [
  ['no file of weights', (m) => rmSync(m.path(WEIGHTS)), /there is neither/],
  [
    'a pickle only',
    (m) => renameSync(m.path(WEIGHTS), m.path('pytorch_model.bin')),
    /found pytorch_model\.bin, which can run code when it is read/,
  ],
  [
    'weights in another format only',
    (m) => renameSync(m.path(WEIGHTS), m.path('model.gguf')),
    /expected model\.safetensors or .* found model\.gguf\.$/,
  ],
  [
    'a link to what is gone',
    (m) => {
      rmSync(m.path(WEIGHTS));
      symlinkSync(join(root, 'gone'), m.path(WEIGHTS));
    },
    /found a link to .*gone, which is not there/,
  ],
  [
    'a pointer of Git LFS',
    (m) => m.bytes(WEIGHTS, () => Buffer.from(LFS_POINTER)),
    /it is a pointer of Git LFS\.$/,
  ],
  ['an empty file', (m) => m.bytes(WEIGHTS, () => Buffer.alloc(0)), /the file ends earlier/],
  [
    'a file cut short',
    (m) => m.bytes(WEIGHTS, (b) => b.subarray(0, -7)),
    /its tensors end at byte/,
  ],
  [
    'a file cut in its header',
    (m) => m.bytes(WEIGHTS, (b) => b.subarray(0, 99)),
    /its header claims/,
  ],
  [
    'bytes after the last tensor',
    (m) => m.bytes(WEIGHTS, (b) => Buffer.concat([b, Buffer.alloc(3)])),
    /its tensors end at byte/,
  ],
  ['a header of 2^63 bytes', (m) => m.claim(2n ** 63n), /at most 100000000 bytes/],
  ['a header of 2^64 − 1 bytes', (m) => m.claim(2n ** 64n - 1n), /at most 100000000 bytes/],
  [
    'a header of 99 MB in a small file',
    (m) => m.claim(99_000_000n),
    /its header claims 99000000 bytes/,
  ],
  ['a header of no bytes', (m) => m.claim(0n), /too short/],
  ['a header that ends too early', (m) => m.claim(64n), /its header is not JSON/],
  ['a header that is no object', (m) => m.headerText(() => '[1,2]'), /does not begin with "\{"/],
  [
    'a header that is not UTF-8',
    (m) => m.bytes(WEIGHTS, (b) => b.fill(0xc3, 20, 22)),
    /its header is not UTF-8/,
  ],
  [
    'a header nested deeply',
    (m) =>
      m.headerText((text) => `{"x":${'{"x":'.repeat(1e5)}1${'}'.repeat(1e5)},${text.slice(1)}`),
    /tensor "x" has no dtype/,
  ],
  [
    'a tensor that stands twice in the header',
    (m) =>
      m.headerText((text) => {
        const { [NORM]: norm } = JSON.parse(text) as Record<string, Entry>;
        return `{"${NORM}":${JSON.stringify(norm)},${text.slice(1)}`;
      }),
    /has "model\.norm\.weight" twice in one object/,
  ],
  [
    'an offset beyond the file',
    (m) =>
      m.header((header) => {
        const { shape, dtype } = entry(header);
        return { ...header, [NORM]: { shape, dtype, data_offsets: [2 ** 40, 2 ** 40 + 192] } };
      }),
    /leaves a gap before it/,
  ],
  [
    'offsets that overlap',
    (m) =>
      m.header((header) => {
        const { data_offsets, ...norm } = entry(header);
        const [begin, end] = data_offsets;
        return { ...header, [NORM]: { ...norm, data_offsets: [begin - 4, end - 4] } };
      }),
    /overlaps the one before it/,
  ],
  [
    'a negative offset',
    (m) =>
      m.header((header) => ({ ...header, [NORM]: { ...entry(header), data_offsets: [-192, 0] } })),
    /data_offsets that are not two integers ≥ 0/,
  ],
  [
    'a hole where a tensor was',
    (m) => m.header((header) => without(header, 'model.layers.0.mlp.up_proj.weight')),
    /leaves a gap before it/,
  ],
  [
    'a shape whose size overflows',
    (m) =>
      m.header((header) => ({
        ...header,
        [NORM]: { ...entry(header), shape: [2 ** 31, 2 ** 31, 2 ** 31] },
      })),
    /more elements than can be counted/,
  ],
  [
    'an element type of another size',
    (m) => m.header((header) => ({ ...header, [NORM]: { ...entry(header), dtype: 'F64' } })),
    /spans 192 bytes, its shape and dtype need 384/,
  ],
  [
    'an element type that there is not',
    (m) => m.header((header) => ({ ...header, [NORM]: { ...entry(header), dtype: 'F4' } })),
    /has the dtype "F4"; posttrain reads/,
  ],
];

const TENSORS: readonly Case[] = [
  [
    'integers for weights',
    (m) => m.header((header) => ({ ...header, [NORM]: { ...entry(header), dtype: 'I32' } })),
    /1 not of floating point: model\.norm\.weight \(int32\)/,
  ],
  [
    'a weight that is not a number',
    (m) => m.number(NORM, NaN),
    /expected finite weights in .*, received 1 of 48 numbers of model\.norm\.weight that are NaN/,
  ],
  [
    'an infinite weight',
    (m) => m.number('model.layers.1.mlp.down_proj.weight', -Infinity),
    /received 1 of 3840 numbers of model\.layers\.1\.mlp\.down_proj\.weight/,
  ],
  [
    'a tensor under another name',
    (m) => m.headerText((text) => text.replace(NORM, 'model.norm.wait')),
    /1 missing: model\.norm\.weight; 1 not part of this model: model\.norm\.wait/,
  ],
  [
    'a matrix the other way round',
    (m) =>
      m.header((header) => {
        const name = 'model.layers.1.mlp.down_proj.weight';
        return { ...header, [name]: { ...entry(header, name), shape: [80, 48] } };
      }),
    /down_proj\.weight \[80, 48\] instead of \[48, 80\]/,
  ],
  [
    'fewer layers than config.json says',
    (m) => m.json('config.json', (c) => ({ ...c, num_hidden_layers: 3, layer_types: null })),
    /\d+ missing: model\.layers\.2\./,
  ],
  [
    'more layers than config.json says',
    (m) => m.json('config.json', (c) => ({ ...c, num_hidden_layers: 1, layer_types: null })),
    /\d+ not part of this model: model\.layers\.1\./,
  ],
];

const pointTo = (m: Damaged, shard: unknown): void =>
  m.json(INDEX, (index) => ({ ...index, weight_map: { [NORM]: shard } }));

const SHARDS: readonly Case[] = [
  ['a missing shard', (m) => rmSync(m.path(SECOND)), /expected the shards model-00002-of-00003/],
  [
    'a shard cut short',
    (m) => m.bytes(SECOND, (b) => b.subarray(0, -100)),
    /00002-of-00003\.safetensors is not a valid safetensors file/,
  ],
  [
    'one shard in place of another',
    (m) => cpSync(m.path('model-00001-of-00003.safetensors'), m.path(SECOND)),
    /is in .*00001.* and again in .*00002/,
  ],
  [
    'an index that leaves the folder',
    (m) => pointTo(m, '../model.safetensors'),
    /received "\.\.\//,
  ],
  ['an index with an absolute path', (m) => pointTo(m, '/etc/x.safetensors'), /received "\/etc\//],
  ['an index with another separator', (m) => pointTo(m, '..\\x.safetensors'), /not there|received/],
  ['an index that names a pickle', (m) => pointTo(m, 'model.bin'), /received "model\.bin"/],
  ['an index that names a number', (m) => pointTo(m, 7), /received 7/],
  ['an index of no tensors', (m) => m.json(INDEX, () => ({ weight_map: {} })), /\d+ missing/],
  [
    'an index without a map',
    (m) => m.json(INDEX, () => ({})),
    /expected weight_map to be an object/,
  ],
  [
    'an index cut short',
    (m) => m.bytes(INDEX, (b) => b.subarray(0, 99)),
    /index\.json: expected JSON/,
  ],
];

const ALL = [
  ...[...CONFIG, ...HEADER, ...TENSORS].map((damaged) => ['qwen2', damaged] as const),
  ...SHARDS.map((damaged) => ['qwen2-sharded', damaged] as const),
];

describe('a damaged model folder is refused with what is wrong, where and what to do, and stays as it is', () => {
  for (const [name, [what, damage, message]] of ALL)
    test(what, async () => {
      const model = new Damaged(name);
      damage(model);
      const [files, tensors] = [model.fingerprint(), memory().liveTensors];
      const resident = process.memoryUsage().rss;
      await assert.rejects(loadModel(model.folder), (error) => {
        assert.ok(error instanceof CheckpointError, String(error));
        assert.match(error.message, message);
        assert.ok(error.message.includes(model.folder), `the place is named: ${error.message}`);
        assert.ok(error.message.length < 3000, 'a message and no dump');
        return true;
      });
      assert.deepEqual(model.fingerprint(), files, 'the folder is as it was');
      assert.equal(memory().liveTensors, tensors, 'nothing stays in memory');
      assert.ok(process.memoryUsage().rss - resident < 300e6, 'memory is bounded');
    });
});

test('an error of a family says which ones are near', async () => {
  const hintOf = async (type: string): Promise<string | undefined> => {
    const model = new Damaged('qwen2');
    model.json('config.json', (config) => ({ ...config, model_type: type }));
    const error: unknown = await loadModel(model.folder).catch((cause: unknown) => cause);
    assert.ok(error instanceof CheckpointError, type);
    return error.hint;
  };
  assert.match(
    (await hintOf('qwen4')) ?? '',
    /The nearest that posttrain has: qwen2, qwen3, qwen3_moe\./,
  );
  assert.match((await hintOf('gemma3')) ?? '', /its language model alone is a gemma3_text/);
  assert.match((await hintOf('rwkv')) ?? '', /convert the model, or choose another one/);
});

test('finite weights whose sum is not are read, and refused in a dtype that has no room for them', async () => {
  for (const dtype of ['float32', 'bfloat16', 'float64'] as const) {
    const model = new Damaged('qwen2');
    for (const name of ['model.embed_tokens.weight', NORM]) model.number(name, 3.4e38);
    model.bytes(WEIGHTS, (bytes) => {
      const start = 8 + Number(bytes.readBigUInt64LE());
      for (let at = start; at < start + 40; at += 4) bytes.writeFloatLE(3.4e38, at);
      return bytes;
    });
    const loading = loadModel(model.folder, { dtype });
    if (dtype === 'bfloat16') await assert.rejects(loading, /that are NaN or infinite as bfloat16/);
    else (await loading).dispose();
  }
});
