import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { until } from '../../test/dashboardRun.js';
import { saveSmallModel, smallModel } from '../../test/runs/smallModel.js';
import type { CompleteJob, LabAnswer, ScoreJob } from '../dashboard/index.js';
import { LabProcess, type LabProcessOptions } from './labProcess.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-lab-process-'));
const at = (name: string): string => join(root, name);
const never = new AbortController().signal;
const labs: LabProcess[] = [];

before(async () => {
  await saveSmallModel(at('model'));
  const note = `writeFileSync(${JSON.stringify(at('begun'))}, '')`;
  writeFileSync(
    at('loop.ts'),
    `import { writeFileSync } from 'node:fs';\nexport default function loop() { ${note}; for (;;); }`,
  );
  writeFileSync(at('crash.ts'), 'export default function crash() { process.exit(3); }');
});
after(async () => {
  await Promise.all(labs.map((lab) => lab.close()));
  rmSync(root, { recursive: true });
});

function openLab(options: Partial<LabProcessOptions> = {}): LabProcess {
  const lab = new LabProcess({ device: 'cpu', dtype: 'float32', ...options });
  labs.push(lab);
  return lab;
}
const model = { from: at('model'), base: null };
const question: CompleteJob = {
  ...{ model, prompt: '1+1=', chat: false, givenIds: [], seed: 1, alternatives: 2 },
  maxNewTokens: 5,
};
function scored(file: string): ScoreJob {
  const rewards = [{ spec: at(file), source: null, refusal: null }];
  const completionIds = smallModel().tokenizer.encode('2');
  return {
    ...{ model, prompt: '1+1=', chat: false, completionIds, finishReason: 'eos' },
    ...{ row: {}, rewards, weights: {} },
  };
}
function codeOf(answer: LabAnswer<unknown>): string {
  return 'failure' in answer ? answer.failure.code : 'none';
}

describe('LabProcess', () => {
  test('starts with the first question, answers in order, and tells what is wrong', async () => {
    const lab = openLab();
    assert.equal(lab.pid, undefined);
    const answers = await Promise.all([
      lab.complete(question, never),
      lab.complete({ ...question, prompt: '1'.repeat(99) }, never),
      lab.complete(question, never),
    ]);
    assert.deepEqual(answers.map(codeOf), ['none', 'E_RANGE', 'none']);
    const [first, wrong, third] = answers;
    assert.ok(
      first && 'value' in first && third && 'value' in third && wrong && 'failure' in wrong,
    );
    assert.deepEqual(first.value.sequence, third.value.sequence);
    assert.match(wrong.failure.hint ?? '', /Shorten the prompt/);
    assert.ok(lab.pid !== undefined && lab.pid !== process.pid);
    await lab.close();
    assert.equal(lab.pid, undefined);
    assert.equal(codeOf(await lab.complete(question, never)), 'E_CANCELLED');
  });

  test('what waits is bounded, and is taken back at once; the active one ends soon', async () => {
    const lab = openLab({ mostWaiting: 1, graceMs: 300 });
    const stopActive = new AbortController();
    const active = lab.score(scored('loop.ts'), stopActive.signal);
    const stopWaiting = new AbortController();
    const waiting = lab.complete(question, stopWaiting.signal);
    assert.equal(codeOf(await lab.complete(question, never)), 'E_BUSY');
    stopWaiting.abort();
    assert.equal(codeOf(await waiting), 'E_CANCELLED');
    // Code in a loop hears nothing: the process is ended, and the next question gets another one.
    const next = lab.complete(question, never);
    const before = lab.pid;
    await until(
      () => Promise.resolve(existsSync(at('begun'))),
      (hasBegun) => hasBegun,
    );
    stopActive.abort();
    assert.equal(codeOf(await active), 'E_CANCELLED');
    assert.equal(codeOf(await next), 'none');
    assert.notEqual(lab.pid, before);
  });

  test('a question that takes too long, and a process that ends by itself, are told', async () => {
    const slow = await openLab({ limitMs: 1500 }).score(scored('loop.ts'), never);
    assert.equal(codeOf(slow), 'E_TIMEOUT');
    const lab = openLab();
    const crashed = await lab.score(scored('crash.ts'), never);
    assert.ok('failure' in crashed);
    assert.match(crashed.failure.message, /ended \(exit code 3\)/);
    assert.equal(codeOf(await lab.complete(question, never)), 'none');
  });

  test('tells tokens before the answer, and none of what was taken back', async () => {
    const lab = openLab();
    const told: number[] = [];
    const answer = await lab.complete(question, never, ({ id }) => told.push(id));
    assert.ok('value' in answer);
    assert.deepEqual(told, answer.value.sequence.tokenIds);
    const stop = new AbortController();
    let after = 0;
    const long = { ...question, givenIds: [], maxNewTokens: 50 };
    const taken = await lab.complete(long, stop.signal, () => {
      if (stop.signal.aborted) after++;
      stop.abort();
    });
    assert.deepEqual([codeOf(taken), after], ['E_CANCELLED', 0]);
  });

  test('ends when nobody asks', async () => {
    const lab = openLab({ idleMs: 50 });
    await lab.complete(question, never);
    await until(
      () => Promise.resolve(lab.pid),
      (pid) => pid === undefined,
    );
  });

  test('knows the columns of rewards without starting', async () => {
    const lab = openLab();
    const specs = ['exact-match', 'bleu:summary', 'length:3', './mine.ts', 'nonsense'];
    assert.deepEqual(await lab.rewardColumns(specs), ['answer', 'summary', null, null, null]);
    assert.equal(lab.pid, undefined);
  });
});
