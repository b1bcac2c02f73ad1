import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { smallModel } from '../../test/runs/smallModel.js';
import { CheckpointError } from '../errors/index.js';
import { modelPositions } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-positions-'));
after(() => rmSync(root, { recursive: true }));

const raw = (() => {
  const { model } = smallModel();
  model.dispose();
  return model.config.raw;
})();

function folder(config: object | undefined): string {
  const path = mkdtempSync(join(root, 'model-'));
  if (config) writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  return path;
}

describe('modelPositions', () => {
  test('reads config.json, and needs no weights', () => {
    assert.equal(modelPositions(folder({ ...raw, max_position_embeddings: 37 })), 37);
  });
  test('of a model that does not say is that of its family', () => {
    const { max_position_embeddings: _, ...others } = raw;
    assert.equal(modelPositions(folder(others)), 2048);
  });
  test('of what is no model folder is refused as where it is loaded', () => {
    const empty = folder(undefined);
    assert.throws(
      () => modelPositions(empty),
      new CheckpointError(`loadModel: expected a config.json in ${empty}, there is none.`, {
        hint: 'A model folder has config.json, tokenizer.json and *.safetensors.',
      }),
    );
  });
});
