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
  demonstrations,
  evalPrompts,
  evenDigits,
  linesOf,
  model,
  options,
  prompts,
  recordOf,
  resultOf,
  root,
  trained,
} from '../../test/runs/rlhfJob.js';
import { readRunStatus, type RlhfRunOptions } from './index.js';

describe('a pipeline resumes to the same bits', () => {
  const out = join(root, 'whole');
  let whole: Record<string, unknown>;
  before(async () => {
    await trained(options({}, { out }));
    whole = resultOf(out);
  });

  /** Runs in the same folder as the whole pipeline, so that paths in records are the same. */
  async function afresh(work: (given: RlhfRunOptions) => Promise<void>): Promise<void> {
    rmSync(out, { recursive: true, force: true });
    await work(options({}, { out }));
    assert.deepEqual(resultOf(out), whole);
  }
  const resumed = (given: RlhfRunOptions) => trained({ ...given, config: {}, resume: true });
  const lineCount = (name: string): number =>
    existsSync(join(out, name)) ? linesOf(join(out, name)).length : 0;

  /** Asks the pipeline to stop once the condition holds, looked at whenever it waits. */
  async function stoppedOnce(given: RlhfRunOptions, holds: () => boolean): Promise<void> {
    const controller = new AbortController();
    const timer = setInterval(() => holds() && controller.abort(), 1);
    try {
      const { state } = await trained(given, controller.signal);
      assert.equal(state, 'stopped');
      assert.equal(readRunStatus(out)?.state, 'stopped');
    } finally {
      clearInterval(timer);
    }
  }

  /** Asks it to stop while the annotator scores a completion, counted from the beginning. */
  async function stoppedAtCall(given: RlhfRunOptions, at: number): Promise<void> {
    const controller = new AbortController();
    let calls = 0;
    // The name is part of what is recorded.
    const annotator = {
      name: 'evenDigits',
      weight: 1,
      fn: (input: { completion: string }): number => {
        calls += 1;
        if (calls === at) controller.abort();
        return evenDigits(input);
      },
    };
    const { state } = await trained({ ...given, annotator }, controller.signal);
    assert.equal(state, 'stopped');
  }

  test('without an interruption the same pipeline gives the same bits', async () => {
    await afresh(async (given) => void (await trained(given)));
  });

  for (const [folder, steps, finished] of [
    ['1-sft', 8, 0],
    ['3-reward', 8, 2],
    ['4-ppo', 6, 3],
  ] as const) {
    test(`stopped in the middle of ${folder}`, async () => {
      await afresh(async (given) => {
        await stoppedOnce(given, () => lineCount(`${folder}/metrics.jsonl`) > 0);
        const done = lineCount(`${folder}/metrics.jsonl`);
        assert.ok(done > 0 && done < steps, `${done} steps of ${steps}`);
        assert.equal(readRunStatus(out)?.step, finished);
        assert.equal(recordOf(out).stages.at(-1)?.state, 'begun');
        const { state } = await resumed(given);
        assert.equal(state, 'finished');
      });
    });
  }

  test('stopped while the annotator ranks', async () => {
    await afresh(async (given) => {
      await stoppedAtCall(given, 10);
      assert.equal(lineCount('2-preferences/rankings.jsonl'), 64);
      await resumed(given);
    });
  });

  test('a torn line, a part of a chunk and a line of zeros are drawn again', async () => {
    const path = join(out, '2-preferences/rankings.jsonl');
    const damages = [
      () => truncateSync(path, readFileSync(path).length - 7),
      () => writeFileSync(path, ''),
      () => {
        const lines = readFileSync(path, 'utf8').split('\n');
        writeFileSync(path, `${lines.slice(0, 5).join('\n')}\n`);
      },
      () => appendFileSync(path, `${'\0'.repeat(40)}\n{"ranking":64,"compl`),
    ];
    rmSync(out, { recursive: true });
    const given = options({}, { out });
    for (const [index, damage] of damages.entries()) {
      await stoppedAtCall({ ...given, resume: index > 0 }, 10);
      assert.equal(lineCount('2-preferences/rankings.jsonl'), 64);
      damage();
    }
    await resumed(given);
    assert.deepEqual(resultOf(out), whole);
  });

  /** The record as it was when a stage had begun, and the folders of later ones removed. */
  function takeBack(stage: string, ...removed: string[]): void {
    const { stages } = recordOf(out);
    const at = stages.findIndex(({ folder }) => folder === stage);
    const before = stages
      .slice(0, at + 1)
      .map((entry, index) =>
        index < at ? entry : { ...entry, state: 'begun', outputs: {}, numbers: {}, warnings: [] },
      );
    writeFileSync(join(out, 'rlhf.json'), JSON.stringify({ stages: before }));
    for (const name of ['model', ...removed]) rmSync(join(out, name), { recursive: true });
  }
  const kills: [when: string, undo: () => void][] = [
    ['before the models were measured', () => rmSync(join(out, 'model'), { recursive: true })],
    ['before the last stage was written down as finished', () => takeBack('4-ppo')],
    [
      'while the folder of the last stage was made',
      () => {
        takeBack('4-ppo', '4-ppo');
        mkdirSync(join(out, '4-ppo/checkpoints'), { recursive: true });
      },
    ],
    ['before the reward model was written down as finished', () => takeBack('3-reward', '4-ppo')],
    ['before the reward model was begun', () => takeBack('3-reward', '4-ppo', '3-reward')],
    [
      'before the preferences were written, all rankings there',
      () => {
        takeBack('2-preferences', '4-ppo', '3-reward');
        for (const name of ['preferences', 'train', 'held-out'])
          rmSync(join(out, `2-preferences/${name}.jsonl`));
      },
    ],
    [
      'before the first stage was written down as finished',
      () => takeBack('1-sft', '4-ppo', '3-reward', '2-preferences'),
    ],
    [
      'before anything but its folder was there',
      () => {
        const left = ['1-sft', '2-preferences', '3-reward', '4-ppo', 'model', 'rlhf.json'];
        for (const name of left) rmSync(join(out, name), { recursive: true });
      },
    ],
  ];
  for (const [when, undo] of kills) {
    test(`killed ${when}`, async () => {
      await afresh(async (given) => {
        await trained(given);
        undo();
        assert.equal((await resumed(given)).state, 'finished');
      });
    });
  }

  test('a finished pipeline that is resumed trains nothing and tells the same', async () => {
    await afresh(async (given) => {
      await trained(given);
      const logs = ['1-sft', '3-reward', '4-ppo'].map((stage) => join(out, stage, 'log.txt'));
      const before = logs.map((path) => readFileSync(path, 'utf8'));
      const { state, step, stages } = await resumed(given);
      assert.deepEqual([state, step, stages.length], ['finished', 4, 4]);
      assert.deepEqual(
        logs.map((path) => readFileSync(path, 'utf8')),
        before,
      );
    });
  });

  test('killed by SIGKILL while it ranks, stopped by SIGINT and by SIGTERM, resumed by the command', async () => {
    const jsonl = (name: string, rows: readonly object[]): string => {
      const path = join(root, name);
      writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
      return path;
    };
    const calls = join(root, 'calls');
    const annotator = join(root, 'evenDigits.ts');
    // Counts its calls in a file. In the second chunk it kills the process, then interrupts it, and as the true reward
    // it ends it in the middle of PPO.
    writeFileSync(
      annotator,
      `import { appendFileSync, existsSync, statSync } from 'node:fs';
       const file = ${JSON.stringify(calls)};
       export default function evenDigits({ completion }) {
         if (existsSync(file)) {
           appendFileSync(file, '.');
           const { size } = statSync(file);
           if (size === 270) process.kill(process.pid, 'SIGKILL');
           if (size === 290) process.kill(process.pid, 'SIGINT');
           if (size === 304) process.kill(process.pid, 'SIGTERM');
         }
         return [...completion].filter((digit) => '02468'.includes(digit)).length;
       }\n`,
    );
    const command = async (...more: string[]): Promise<[number | null, string | null]> => {
      const main = join(ROOT, 'dist/src/cli/main.js');
      const child = spawn(process.execPath, [main, 'train', 'rlhf', '--out', out, ...more], {
        stdio: 'ignore',
      });
      return await new Promise((done) => child.on('exit', (code, by) => done([code, by])));
    };
    const settings = join(root, 'rlhf.json');
    writeFileSync(
      settings,
      JSON.stringify({ ...CONFIG, inputs: { model: 'model', annotator: './evenDigits.ts' } }),
    );
    const first = [
      ...['--config', settings, '--prompts', jsonl('prompts.jsonl', prompts)],
      ...['--demonstrations', jsonl('demonstrations.jsonl', demonstrations)],
      ...['--eval-prompts', jsonl('eval.jsonl', evalPrompts), '--eval-reward', annotator],
    ];
    rmSync(out, { recursive: true });
    assert.deepEqual(await command(...first), [0, null]);
    const uninterrupted = resultOf(out);
    rmSync(out, { recursive: true });
    writeFileSync(calls, '');
    assert.deepEqual(await command(...first), [null, 'SIGKILL']);
    assert.equal(lineCount('2-preferences/rankings.jsonl'), 64);
    assert.equal(readRunStatus(out)?.state, 'running');
    assert.deepEqual(await command('--resume'), [130, null]);
    assert.equal(lineCount('2-preferences/rankings.jsonl'), 72);
    assert.equal(readRunStatus(out)?.state, 'stopped');
    assert.deepEqual(await command(...first, '--resume'), [143, null]);
    assert.equal(lineCount('4-ppo/metrics.jsonl'), 3);
    assert.deepEqual(await command('--resume'), [0, null]);
    assert.deepEqual(resultOf(out), uninterrupted);
    assert.ok(existsSync(join(model, 'model.safetensors')), 'the inputs are left alone');
  });
});
