import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { ROOT } from '../../test/root.js';
import {
  CONFIG,
  evenDigits,
  model,
  N,
  options,
  problems,
  resultOf,
  root,
  trained,
} from '../../test/runs/rejectionJob.js';
import type { RewardInput } from '../rewards/index.js';
import { readRunStatus, type RejectionRunOptions } from './index.js';

describe('a job of rejection sampling resumes to the same bits', () => {
  const out = join(root, 'whole');
  let whole: Record<string, string>;
  before(async () => {
    await trained(options({}, { out }));
    whole = resultOf(out);
  });

  /** Runs in the same folder as the whole job, so that paths in provenance are the same. */
  async function afresh(work: (given: RejectionRunOptions) => Promise<void>): Promise<void> {
    rmSync(out, { recursive: true, force: true });
    await work(options({}, { out }));
    assert.deepEqual(resultOf(out), whole);
  }

  async function stopped(given: RejectionRunOptions, signal: AbortSignal): Promise<void> {
    const result = await trained(given, signal);
    assert.equal(result.state, 'stopped');
    assert.equal(readRunStatus(out)?.state, 'stopped');
  }

  /** Asks the job to stop while it scores a completion, counted from the beginning. */
  async function stoppedAtCall(given: RejectionRunOptions, at: number): Promise<void> {
    const controller = new AbortController();
    let calls = 0;
    const fn = (input: RewardInput): number => {
      calls += 1;
      if (calls === at) controller.abort();
      return evenDigits(input);
    };
    const rewards = [{ name: 'evenDigits', weight: 1, fn }];
    await stopped({ ...given, rewards }, controller.signal);
  }

  /** Asks the job to stop once the condition holds, looked at whenever it waits. */
  async function stoppedOnce(given: RejectionRunOptions, holds: () => boolean): Promise<void> {
    const controller = new AbortController();
    const timer = setInterval(() => holds() && controller.abort(), 1);
    try {
      await stopped(given, controller.signal);
    } finally {
      clearInterval(timer);
    }
  }
  const lineCount = (name: string): number =>
    existsSync(join(out, name)) ? readFileSync(join(out, name), 'utf8').split('\n').length - 1 : 0;

  test('without an interruption the same job gives the same bits', async () => {
    await afresh(async (given) => void (await trained(given)));
  });

  for (const iteration of [1, 2]) {
    test(`stopped while it samples (iteration ${iteration})`, async () => {
      await afresh(async (given) => {
        const name = `iteration-${iteration}/samples.jsonl`;
        await stoppedAtCall(given, (iteration - 1) * 4 * N + 10);
        assert.equal(lineCount(name), 2 * N);
        await trained({ ...given, config: {}, resume: true });
      });
    });
    test(`stopped while it fine-tunes (iteration ${iteration})`, async () => {
      await afresh(async (given) => {
        const name = `iteration-${iteration}/sft/metrics.jsonl`;
        await stoppedOnce(given, () => lineCount(name) > 0);
        assert.ok(lineCount(name) < 4, `${lineCount(name)} steps`);
        await trained({ ...given, config: {}, resume: true });
      });
    });
  }

  test('a torn line, a part of a chunk and a line of zeros are drawn again', async () => {
    for (const damage of [
      (path: string, size: number) => truncateSync(path, size - 7),
      (path: string) => appendFileSync(path, '{"promptIndex":2,"complet'),
      (path: string) => appendFileSync(path, `${'\0'.repeat(40)}\n`),
      (path: string) => writeFileSync(path, ''),
      (path: string) => {
        const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
        writeFileSync(path, `${lines.slice(0, -1).join('\n')}\n${'\0'.repeat(40)}\n`);
      },
      (path: string) => {
        const lines = readFileSync(path, 'utf8').split('\n');
        writeFileSync(path, `${lines.slice(0, 5).join('\n')}\n`);
      },
    ]) {
      await afresh(async (given) => {
        const name = 'iteration-1/samples.jsonl';
        await stoppedAtCall(given, 10);
        const path = join(out, name);
        damage(path, readFileSync(path).length);
        await trained({ ...given, config: {}, resume: true });
      });
    }
  });

  const kills: [when: string, undo: () => void][] = [
    ['before the last checkpoint', () => undefined],
    ['before the second fine-tuning', () => remove('iteration-2/sft')],
    [
      'while the folder of the second fine-tuning was made',
      () => {
        remove('iteration-2/sft');
        mkdirSync(join(out, 'iteration-2/sft/checkpoints'), { recursive: true });
      },
    ],
    ['before the second selection was written', () => remove('iteration-2/sft', SELECTED)],
    ['before anything of the second iteration but its folder', () => remove(...ALL_OF_SECOND)],
    ['before the second iteration', () => remove('iteration-2')],
  ];
  const SELECTED = 'iteration-2/selected.jsonl';
  const ALL_OF_SECOND = ['sft', 'selected.jsonl', 'samples.jsonl', 'iteration.json'].map(
    (name) => `iteration-2/${name}`,
  );
  const remove = (...names: string[]): void => {
    for (const name of names) rmSync(join(out, name), { recursive: true });
  };
  for (const [when, undo] of kills) {
    test(`killed ${when}`, async () => {
      await afresh(async (given) => {
        await trained(given);
        remove('model', 'checkpoints/step-2');
        undo();
        const { state } = await trained({ ...given, config: {}, resume: true });
        assert.equal(state, 'finished');
      });
    });
  }

  test('a finished job goes on with more iterations, and is the longer job', async () => {
    await afresh(async (given) => {
      await trained({ ...given, config: { ...CONFIG, iterations: 1 } });
      const result = await trained({ ...given, config: { iterations: 2 }, resume: true });
      assert.deepEqual([result.state, result.step], ['finished', 2]);
    });
  });

  test('killed by SIGKILL in the middle of a chunk, stopped by SIGINT, resumed by the command', async () => {
    const data = join(root, 'problems.jsonl');
    writeFileSync(data, problems.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const reward = join(root, 'evenDigits.ts');
    const calls = join(root, 'calls');
    // Counts its calls in a file; in the second chunk it kills the process, in the next iteration it interrupts it.
    writeFileSync(
      reward,
      `import { appendFileSync, existsSync, statSync } from 'node:fs';
       const file = ${JSON.stringify(calls)};
       export default function evenDigits({ completion }) {
         if (existsSync(file)) {
           appendFileSync(file, '.');
           const { size } = statSync(file);
           if (size === 300) process.kill(process.pid, 'SIGKILL');
           if (size === 600) process.kill(process.pid, 'SIGINT');
         }
         return [...completion].filter((digit) => '02468'.includes(digit)).length;
       }\n`,
    );
    const command = async (...more: string[]): Promise<[number | null, string | null]> => {
      const main = join(ROOT, 'dist/src/cli/main.js');
      const child = spawn(process.execPath, [main, 'train', 'rejection', '--out', out, ...more], {
        stdio: 'ignore',
      });
      return await new Promise((done) => child.on('exit', (code, by) => done([code, by])));
    };
    const settings = join(root, 'rejection.json');
    writeFileSync(settings, JSON.stringify(CONFIG));
    const first = ['--model', model, '--data', data, '--reward', reward, '--config', settings];
    rmSync(out, { recursive: true });
    assert.deepEqual(await command(...first), [0, null]);
    const uninterrupted = resultOf(out);
    rmSync(out, { recursive: true });
    writeFileSync(calls, '');
    assert.deepEqual(await command(...first), [null, 'SIGKILL']);
    assert.equal(lineCount('iteration-1/samples.jsonl'), 2 * N);
    assert.equal(readRunStatus(out)?.state, 'running');
    assert.deepEqual(await command('--resume'), [130, null]);
    assert.equal(readRunStatus(out)?.state, 'stopped');
    assert.deepEqual(await command('--resume'), [0, null]);
    assert.deepEqual(resultOf(out), uninterrupted);
    // Written by a file of the same name, the reward is that of the other tests.
    assert.deepEqual(uninterrupted, whole);
  });
});
