import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { IoError } from '../errors/index.js';
import { quickstart } from './quickstart.js';

describe('quickstart', () => {
  test('touches nothing in a folder that holds something, and refuses a file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'posttrain-'));
    const mine = join(folder, 'problems.jsonl');
    try {
      writeFileSync(mine, 'mine');
      for (const out of [folder, mine]) {
        await assert.rejects(quickstart({ out, progress: null }), (error: Error) => {
          assert.ok(error instanceof IoError);
          assert.match(error.message, /expected a new or empty folder, but .* is not empty/);
          return true;
        });
      }
      assert.deepEqual(readdirSync(folder), ['problems.jsonl']);
      assert.equal(readFileSync(mine, 'utf8'), 'mine');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
