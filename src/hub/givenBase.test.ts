import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { describe, test } from 'node:test';
import { giveBase, givenBase } from './index.js';

describe('giveBase', () => {
  test('is true of the folder however its path is written, and of no other; the last one counts', () => {
    giveBase(resolve('runs/first'), '/models/a');
    giveBase('runs/first', '/models/b');
    assert.equal(givenBase('./runs/../runs/first/'), '/models/b');
    assert.equal(givenBase('runs/second'), undefined);
  });
});
