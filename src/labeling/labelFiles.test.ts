import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { rowsFromObjects } from '../data/index.js';
import { LabelFiles } from './labelFiles.js';
import { sessionPath, type SessionSettings } from './sessionFile.js';
import type { Decision, SessionRecord } from './session.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-label-'));
after(() => rmSync(root, { recursive: true }));
let made = 0;

const settings: SessionSettings = {
  model: 'model',
  weightsSha256: 'aa',
  data: ['prompts.jsonl'],
  dataSha256: 'bb',
  tokensSha256: 'cc',
  dtype: 'float32',
  prompts: 3,
  completions: 2,
  temperature: 1,
  maxNewTokens: 8,
  seed: 0,
  mode: 'rank',
};
const rows = rowsFromObjects(['p0', 'p1', 'p2'].map((prompt) => ({ prompt })));
const given = { labeler: null, time: '2026-01-01T00:00:00.000Z' };
const undo: SessionRecord = { kind: 'undo', ...given };

function decision(row: number, ranks: number[] | 'skipped' = [2, 1]): Decision {
  const comparison = {
    row,
    completions: ['a', 'b'].map((text) => ({
      text: `${text}${row}`,
      finishReason: 'eos' as const,
      tokens: 2,
      copies: 1,
    })),
    order: [1, 0],
    empty: 0,
    ...given,
  };
  return ranks === 'skipped'
    ? { kind: 'skipped', ...comparison }
    : { kind: 'ranked', ...comparison, ranks };
}

function open(out: string, resume = false, changes: Partial<SessionSettings> = {}): LabelFiles {
  return LabelFiles.open({ out, settings: { ...settings, ...changes }, rows, resume });
}

const newPath = (): string => join(root, `${made++}.jsonl`);

/** What chosen rows a preference file has. */
function chosenIn(out: string): string[] {
  return readFileSync(out, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as { chosen: string }).chosen);
}

describe('LabelFiles', () => {
  test('every step is in both files when it is taken', () => {
    const out = newPath();
    const files = open(out);
    assert.equal(readFileSync(out, 'utf8'), '', 'there from the start');
    files.take(decision(0));
    assert.deepEqual(chosenIn(out), ['b0']);
    files.take(decision(1, [1, 2]));
    assert.deepEqual(chosenIn(out), ['b0', 'a1']);
    files.take(undo);
    assert.deepEqual(chosenIn(out), ['b0']);
    files.take(decision(1));
    assert.deepEqual(chosenIn(out), ['b0', 'b1'], 'in the file that was written anew');
    files.take(undo);
    files.take(decision(1, 'skipped'));
    files.take(decision(2, [1, 1]));
    assert.deepEqual([chosenIn(out), files.pairs], [['b0'], 1]);
    const steps = readFileSync(sessionPath(out), 'utf8').trimEnd().split('\n');
    assert.deepEqual(
      steps.map((line) => (JSON.parse(line) as { kind: string }).kind),
      ['session', 'ranked', 'ranked', 'undo', 'ranked', 'undo', 'skipped', 'ranked'],
    );
    files.close();
    assert.deepEqual(chosenIn(out), ['b0']);
    assert.equal(
      readdirSync(root).some((name) => name.includes('.tmp-')),
      false,
      'nothing is left over',
    );
  });
  test('a session goes on where it was, and can be undone beyond where it was resumed', () => {
    const out = newPath();
    const first = open(out);
    first.take(decision(0));
    first.take(decision(1));
    first.close();
    const second = open(out, true);
    assert.equal(second.session.position, 2);
    assert.deepEqual(second.take(undo), [decision(1)]);
    assert.deepEqual(second.take(undo), [decision(0)]);
    second.take(decision(0, [1, 2]));
    second.close();
    assert.deepEqual(chosenIn(out), ['a0']);
    const third = open(out, true);
    assert.deepEqual(
      [third.session.position, third.session.decisions[0]],
      [1, decision(0, [1, 2])],
    );
    third.close();
  });
  test('all pairs of a prompt share a comparison, which no other session has', () => {
    const outs = [newPath(), newPath()];
    const comparisons = outs.map((out) => {
      const files = open(out);
      files.take(decision(0));
      files.close();
      const again = open(out, true);
      again.take(decision(1));
      again.close();
      const lines = readFileSync(out, 'utf8').trimEnd().split('\n');
      return lines.map((line) => (JSON.parse(line) as { comparison: string }).comparison);
    });
    for (const [first, second] of comparisons) {
      assert.match(first ?? '', /^[0-9a-f]{12}-0$/);
      assert.equal(second, first?.replace(/0$/, '1'), 'a resumed session keeps its name');
    }
    assert.notEqual(comparisons[0]?.[0], comparisons[1]?.[0]);
  });
  test('a line that was torn at any byte is dropped, and every whole one is kept', () => {
    const out = newPath();
    const files = open(out);
    files.take(decision(0));
    files.close();
    const whole = readFileSync(sessionPath(out));
    const line = Buffer.from(`${JSON.stringify(decision(1))}\n`);
    for (const bytes of [1, 20, line.length - 2, line.length - 1]) {
      writeFileSync(sessionPath(out), Buffer.concat([whole, line.subarray(0, bytes)]));
      const resumed = open(out, true);
      assert.equal(resumed.session.position, 1, `${bytes} bytes`);
      resumed.close();
      assert.deepEqual(readFileSync(sessionPath(out)), whole);
    }
    const resumed = open(out, true);
    resumed.take(decision(1));
    resumed.close();
    assert.deepEqual(readFileSync(sessionPath(out)), Buffer.concat([whole, line]));
  });
  test('preferences that are torn, behind or gone are written anew from the session', () => {
    const out = newPath();
    const files = open(out);
    files.take(decision(0));
    files.take(decision(1));
    files.close();
    const right = readFileSync(out, 'utf8');
    const damage = [
      () => truncateSync(out, right.length - 9),
      () => writeFileSync(out, ''),
      () => rmSync(out),
      () => appendFileSync(out, '{"chosen": "x'),
    ];
    for (const damageIt of damage) {
      damageIt();
      open(out, true); // and the process ends here
      assert.equal(readFileSync(out, 'utf8'), right);
    }
  });

  describe('rejects', () => {
    test('a new session over files that are there', () => {
      const out = newPath();
      open(out).close();
      const message = (path: string) =>
        `label: expected a new file for --out, but ${path} is there already.`;
      const hint = 'Add --resume to go on with it, or choose another name.';
      assert.throws(() => open(out), { name: 'IoError', message: message(out), hint });
      rmSync(out);
      assert.throws(() => open(out), { name: 'IoError', message: message(sessionPath(out)), hint });
      assert.equal(existsSync(out), false);
    });
    test('going on with a session that is not there', () => {
      const out = newPath();
      assert.throws(() => open(out, true), {
        name: 'IoError',
        message: `Resuming: expected a session in ${sessionPath(out)}, but there is no such file.`,
        hint: 'Leave --resume out to start one.',
      });
    });
    test('a folder that is not there', () => {
      assert.throws(() => open(join(root, 'none', 'x.jsonl')), { name: 'IoError' });
    });
    const changed: [Partial<SessionSettings>, string][] = [
      [
        { weightsSha256: 'ab' },
        'the weights with SHA-256 aa, as the session was started with, received ab',
      ],
      [
        { dataSha256: 'x' },
        'the data with SHA-256 bb, as the session was started with, received x',
      ],
      [
        { tokensSha256: 'y' },
        'prompt tokens with SHA-256 cc, as the session was started with, received y',
      ],
      [{ dtype: 'float64' }, '--dtype float32, as the session was started with, received float64'],
      [{ prompts: 4 }, 'the number of prompts 3, as the session was started with, received 4'],
      [{ completions: 3 }, '--completions 2, as the session was started with, received 3'],
      [{ temperature: 0.5 }, '--temperature 1, as the session was started with, received 0.5'],
      [{ maxNewTokens: 9 }, '--max-new-tokens 8, as the session was started with, received 9'],
      [{ seed: 1 }, '--seed 0, as the session was started with, received 1'],
      [{ mode: 'choose' }, '--mode rank, as the session was started with, received choose'],
    ];
    for (const [changes, message] of changed)
      test(`another ${Object.keys(changes).join()}`, () => {
        const out = newPath();
        open(out).close();
        assert.throws(() => open(out, true, changes), {
          name: 'CheckpointError',
          message: `Resuming: expected ${message}.`,
          hint: 'Give what the session was started with, or start a new one with another --out.',
        });
      });
    test('but not a model folder that was moved', () => {
      const out = newPath();
      open(out).close();
      open(out, true, { model: 'elsewhere' }).close();
    });

    const damaged: [string, (text: string) => string, string | RegExp][] = [
      [
        'text that is no JSON',
        (text) => `${text}hello\n`,
        '2: expected a line of JSON, received other text.',
      ],
      [
        'a step of another kind',
        (text) => `${text}{"kind": "erased"}\n`,
        /2: expected a step of a labelling session, but kind: Invalid/,
      ],
      [
        'a step with a value of another kind',
        (text) => `${text}${JSON.stringify({ ...decision(0), row: 'x' })}\n`,
        /2: expected a step of a labelling session, but row: Invalid input: expected number/,
      ],
      [
        'a step that cannot come there',
        (text) => `${text}${JSON.stringify(decision(2))}\n`,
        '2: LabelSession: expected a decision on prompt 0 of 3, received one on prompt 2.',
      ],
      [
        'an undo of nothing',
        (text) => `${text}${JSON.stringify(undo)}\n`,
        '2: LabelSession: expected a decision to undo, but there is none.',
      ],
      [
        'another first line',
        () => `${JSON.stringify(decision(0))}\n`,
        /1: expected a step of a labelling session, but kind: Invalid/,
      ],
      ['nothing', () => '', '1: expected the first line of a session, but the file is empty.'],
    ];
    for (const [what, change, message] of damaged)
      test(`a session with ${what}`, () => {
        const out = newPath();
        open(out).close();
        const path = sessionPath(out);
        writeFileSync(path, change(readFileSync(path, 'utf8')));
        assert.throws(
          () => open(out, true),
          (error) => {
            assert.ok(error instanceof Error && error.name === 'DataError', String(error));
            assert.ok(error.message.startsWith(`${path}:`), error.message);
            const rest = error.message.slice(path.length + 1);
            if (typeof message === 'string') assert.equal(rest, message);
            else assert.match(rest, message);
            return true;
          },
        );
      });
    test('a step that cannot come now, and writes nothing', () => {
      const out = newPath();
      const files = open(out);
      const before = readFileSync(sessionPath(out), 'utf8');
      assert.throws(() => files.take(undo), { name: 'DataError' });
      assert.throws(() => files.take(decision(1)), { name: 'DataError' });
      assert.equal(readFileSync(sessionPath(out), 'utf8'), before);
      files.close();
    });
  });
});

describe('sessionPath', () => {
  test('stands beside the preferences', () => {
    assert.equal(sessionPath('a/preferences.jsonl'), 'a/preferences.session.jsonl');
    assert.equal(sessionPath('a/preferences.json'), 'a/preferences.json.session.jsonl');
  });
});
