import assert from 'node:assert/strict';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../../test/cli/capture.js';
import { HubServer } from '../../../test/hubServer.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-vocabulary-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);

async function init(name: string, characters: string): Promise<void> {
  const { code, err } = await capture().run([
    ...['init', '--out', at(name), '--characters', characters, '--hidden-size', '16'],
    ...['--layers', '1', '--heads', '2', '--max-length', '32'],
  ]);
  assert.equal(code, 0, err);
}

describe('a tokenizer with tokens that its model does not know', () => {
  before(async () => {
    await init('model', '01+=');
    await init('wide', '01+=xyz');
    for (const file of ['tokenizer.json', 'tokenizer_config.json'])
      copyFileSync(join(at('wide'), file), join(at('model'), file));
    const rows = [
      { prompt: '0+1=', completion: '1' },
      { prompt: '0+z=', completion: '1' },
    ];
    writeFileSync(at('rows.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  });
  const refusal = /rows\.jsonl:2: expected token ids below \d+, the model's vocabulary, received/;

  test('data counts the rows that have such tokens, and exits with 1', async () => {
    const { code, out } = await capture().run(['data', at('rows.jsonl'), '--model', at('model')]);
    assert.equal(code, 1, out);
    assert.match(out, /\n1 that cannot be trained:\n/);
    assert.match(out, refusal);
    const other = await capture().run(['data', at('rows.jsonl'), '--model', at('wide')]);
    assert.equal(other.code, 0, other.out);
  });
  test('data does so for a model of the Hub too, of which it downloads no weights', async () => {
    const hub = await HubServer.start();
    const before = { ...process.env };
    const own = { HF_ENDPOINT: hub.url, HF_HUB_CACHE: at('cache'), HF_HUB_OFFLINE: '0' };
    try {
      Object.assign(process.env, own);
      const files = readdirSync(at('model')).map((name) => [
        name,
        readFileSync(join(at('model'), name)),
      ]);
      hub.put('lab/model', Object.fromEntries(files) as Record<string, Buffer>, {
        large: ['model.safetensors'],
      });
      const { code, out } = await capture().run(['data', at('rows.jsonl'), '--model', 'lab/model']);
      assert.equal(code, 1, out);
      assert.match(out, refusal);
      assert.ok(!hub.requests.some((line) => line.includes('safetensors')), 'no weights');
    } finally {
      for (const name of Object.keys(own)) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
      await hub.stop();
    }
  });
  test('eval names the first such row', async () => {
    const argv = ['eval', '--model', at('model'), '--data', at('rows.jsonl')];
    const { code, err } = await capture().run(argv);
    assert.equal(code, 1);
    assert.match(err, refusal);
    writeFileSync(at('one.jsonl'), '{"prompt":"0+1=","completion":"1"}\n');
    const one = await capture().run([...argv.slice(0, 4), at('one.jsonl')]);
    assert.match(one.out, /\(\d+ tokens of 1 row\)\n$/);
  });
});
