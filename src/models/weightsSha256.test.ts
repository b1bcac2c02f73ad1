import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { weightsSha256 } from './weightsSha256.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-sha-'));
after(() => rmSync(root, { recursive: true }));

function folder(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(root, 'model-'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

const sha256 = (data: string | Uint8Array) => createHash('sha256').update(data).digest('hex');

describe('weightsSha256', () => {
  test('is that of the one file, whatever its size', async () => {
    const large = 'weights'.repeat(500_000); // more than the pieces it is read in
    const path = folder({ 'config.json': '{}', 'model.safetensors': large });
    assert.equal(await weightsSha256(path), sha256(readFileSync(join(path, 'model.safetensors'))));
    // `printf abc | sha256sum`
    const small = folder({ 'config.json': '{}', 'model.safetensors': 'abc', 'README.md': 'x' });
    assert.equal(
      await weightsSha256(small),
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
  });
  test('of shards is that of what sha256sum lists, in the order of their names', async () => {
    const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const path = folder({
      'config.json': '{}',
      [names[1] ?? '']: 'two',
      [names[0] ?? '']: 'one',
      'other.safetensors': 'three',
    });
    const listing = `${sha256('one')}  ${names[0]}\n${sha256('two')}  ${names[1]}\n`;
    assert.equal(await weightsSha256(path), sha256(listing));
  });
  test('one file comes before shards, as in loading', async () => {
    const path = folder({
      'config.json': '{}',
      'model.safetensors': 'abc',
      'model-00001-of-00001.safetensors': 'one',
    });
    assert.equal(await weightsSha256(path), sha256('abc'));
  });
  test('is that of the present content, also where it is asked for again', async () => {
    const path = folder({ 'config.json': '{}', 'model.safetensors': 'abc' });
    const file = join(path, 'model.safetensors');
    assert.equal(await weightsSha256(path), sha256('abc'));
    writeFileSync(file, 'xyz');
    assert.equal(await weightsSha256(path), sha256('xyz'));
    await sleep(2100); // from now on what is read is remembered
    for (const text of ['xyz', 'uvw', 'abc']) {
      if (text !== 'xyz') writeFileSync(file, text);
      utimesSync(file, 1, 1);
      for (const _ of [1, 2]) assert.equal(await weightsSha256(path), sha256(text));
    }
  });
  test('rejects a folder that is none', async () => {
    await assert.rejects(weightsSha256(join(root, 'none')), {
      name: 'CheckpointError',
      message: `weightsSha256: expected a model folder, but ${join(root, 'none')} does not exist.`,
    });
  });
  test('rejects a model without weights', async () => {
    const path = folder({ 'config.json': '{}' });
    await assert.rejects(weightsSha256(path), {
      name: 'CheckpointError',
      message: `weightsSha256: expected model.safetensors or model.safetensors.index.json in ${path}, there is neither.`,
    });
  });
  test('says what is there in the place of weights', async () => {
    const path = folder({ 'config.json': '{}', 'model.gguf': 'GGUF' });
    await assert.rejects(weightsSha256(path, '--model'), {
      name: 'CheckpointError',
      message: `--model: expected model.safetensors or model.safetensors.index.json in ${path}, found model.gguf.`,
      hint: 'Fetch the model as transformers saves it: its weights in safetensors, shards with their index.',
    });
    const index = JSON.stringify({ weight_map: { a: 'model-00001-of-00002.safetensors' } });
    const torn = folder({ 'config.json': '{}', 'model.safetensors.index.json': index });
    await assert.rejects(weightsSha256(torn), {
      name: 'CheckpointError',
      message: `${join(torn, 'model.safetensors.index.json')}: expected the shards model-00001-of-00002.safetensors beside it, they are not there.`,
    });
  });
});
