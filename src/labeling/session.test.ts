import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DataError } from '../errors/index.js';
import { LabelSession, type Decision, type SessionRecord } from './session.js';

const given = { labeler: 'ann', time: '2026-01-01T00:00:00.000Z' };
const undo: SessionRecord = { kind: 'undo', ...given };

function decision(row: number, kind: Decision['kind'] = 'ranked', ranks = [2, 1]): Decision {
  const count = kind === 'alike' ? 1 : 2;
  const comparison = {
    row,
    completions: ['a', 'b'].slice(0, count).map((text) => ({
      text,
      finishReason: 'eos' as const,
      tokens: 2,
      copies: 1,
    })),
    order: [1, 0].slice(2 - count),
    empty: 0,
  };
  return kind === 'ranked'
    ? { kind, ...comparison, ranks, ...given }
    : { kind, ...comparison, ...given };
}

function sessionOf(prompts: number, ...records: SessionRecord[]): LabelSession {
  const session = new LabelSession(prompts);
  for (const record of records) session.apply(record);
  return session;
}

describe('LabelSession', () => {
  test('begins at the first prompt and ends behind the last', () => {
    const session = sessionOf(2);
    assert.deepEqual([session.position, session.isDone, session.canUndo], [0, false, false]);
    session.apply(decision(0));
    assert.deepEqual([session.position, session.isDone, session.canUndo], [1, false, true]);
    session.apply(decision(1, 'skipped'));
    assert.deepEqual([session.position, session.isDone], [2, true]);
    assert.deepEqual(
      session.decisions.map(({ kind }) => kind),
      ['ranked', 'skipped'],
    );
  });
  test('undo takes back decisions one by one, to the first, and other answers take their place', () => {
    const session = sessionOf(3, decision(0), decision(1, 'skipped'), decision(2));
    assert.deepEqual(session.apply(undo), [decision(2)]);
    assert.deepEqual(session.apply(undo), [decision(1, 'skipped')]);
    assert.equal(session.position, 1);
    session.apply(decision(1, 'ranked', [1, 2]));
    assert.deepEqual(session.decisions[1], decision(1, 'ranked', [1, 2]));
    session.apply(undo);
    session.apply(undo);
    assert.deepEqual([session.position, session.canUndo], [0, false]);
  });
  test('undo goes through what nobody was asked for to the last answer of a person', () => {
    const session = sessionOf(4, decision(0), decision(1, 'alike'), decision(2, 'alike'));
    assert.deepEqual(session.apply(undo), [
      decision(2, 'alike'),
      decision(1, 'alike'),
      decision(0),
    ]);
    assert.equal(session.position, 0);
  });
  test('what nobody was asked for cannot be undone by itself', () => {
    const session = sessionOf(2, decision(0, 'alike'));
    assert.equal(session.canUndo, false);
    assert.throws(() => session.apply(undo), {
      message: 'LabelSession: expected a decision to undo, but there is none.',
    });
    assert.equal(session.position, 1, 'nothing was taken back');
  });

  describe('rejects', () => {
    const wrong: [string, LabelSession, SessionRecord, string][] = [
      ['an undo of nothing', sessionOf(1), undo, 'expected a decision to undo, but there is none.'],
      [
        'another prompt than the next',
        sessionOf(3, decision(0)),
        decision(2),
        'expected a decision on prompt 1 of 3, received one on prompt 2.',
      ],
      [
        'the same prompt again',
        sessionOf(3, decision(0)),
        decision(0),
        'expected a decision on prompt 1 of 3, received one on prompt 0.',
      ],
      [
        'a decision behind the last prompt',
        sessionOf(1, decision(0)),
        decision(1),
        'expected no further decision of 1, received one on prompt 1.',
      ],
      [
        'ranks of another number of completions',
        sessionOf(1),
        decision(0, 'ranked', [1]),
        'expected 2 ranks, received 1.',
      ],
      ...[[0, 0], [0], [0, 2]].map((order): [string, LabelSession, SessionRecord, string] => [
        `the order ${order.join(', ')}`,
        sessionOf(1),
        { ...decision(0), order },
        `expected an order of 2 completions, received [${order.join(', ')}].`,
      ]),
    ];
    for (const [what, session, record, message] of wrong)
      test(what, () => {
        const before = session.position;
        const expected = { name: DataError.name, message: `LabelSession: ${message}` };
        assert.throws(() => session.check(record), expected);
        assert.throws(() => session.apply(record), expected);
        assert.equal(session.position, before, 'nothing has changed');
      });
  });
});
