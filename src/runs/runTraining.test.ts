import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { CheckpointError, IoError, NumericsError } from '../errors/index.js';
import { CountingTrainer } from '../../test/runs/countingTrainer.js';
import {
  readRunStatus,
  restoreTrainer,
  RunDirectory,
  runTraining,
  saveTrainer,
  type RunTrainingOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-training-'));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);
const DESCRIPTION = { method: 'counting', config: { seed: 0 }, inputs: {} };

function optionsFor(trainer: CountingTrainer, directory: RunDirectory): RunTrainingOptions {
  return {
    trainer,
    directory,
    saveModel: (folder) => {
      mkdirSync(folder);
      writeFileSync(join(folder, 'weights'), String(trainer.sum));
      return Promise.resolve();
    },
    checkpointEvery: 2,
    keepCheckpoints: null,
    logEvery: 1,
    progress: null,
  };
}

async function start(
  totalSteps: number,
): Promise<{ path: string; trainer: CountingTrainer; options: RunTrainingOptions }> {
  const path = newPath();
  const trainer = new CountingTrainer(totalSteps);
  const directory = await RunDirectory.create(path, DESCRIPTION);
  return { path, trainer, options: optionsFor(trainer, directory) };
}

function metricsOf(path: string): Record<string, number>[] {
  const lines = readFileSync(join(path, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line) as Record<string, number>);
}

describe('runTraining', () => {
  test('trains to the last step, with metrics of every step, checkpoints and the model', async () => {
    const { path, options } = await start(5);
    const result = await runTraining(options);
    assert.deepEqual(
      [result.state, result.step, result.totalSteps, result.model],
      ['finished', 5, 5, join(path, 'model')],
    );
    assert.equal(result.metrics['loss'], 0.2);
    assert.deepEqual(
      metricsOf(path).map(({ step, loss }) => [step, loss]),
      [1, 2, 3, 4, 5].map((step) => [step, 1 / step]),
    );
    for (const { stepSeconds, tokensPerSecond, peakResidentBytes } of metricsOf(path)) {
      assert.ok((stepSeconds ?? -1) >= 0);
      assert.ok((tokensPerSecond ?? 0) > 0);
      assert.ok((peakResidentBytes ?? 0) > 2 ** 20);
    }
    assert.deepEqual(readdirSync(join(path, 'checkpoints')).sort(), ['step-2', 'step-4', 'step-5']);
    assert.equal(readFileSync(join(path, 'model', 'weights'), 'utf8'), '15');
    assert.equal(readRunStatus(path)?.state, 'finished');
    const log = readFileSync(join(path, 'log.txt'), 'utf8');
    assert.match(log, /two is odd/);
    assert.match(log, /step 3\/5 loss 0\.3333/);
    assert.match(log, /Finished\.\n$/);
  });

  test('10 steps equal 5 and 5 after a stop', async () => {
    const whole = await start(10);
    await runTraining(whole.options);

    const halves = await start(10);
    const stop = new AbortController();
    halves.trainer.beforeStep = (step) => {
      if (step === 5) stop.abort();
    };
    const first = await runTraining({ ...halves.options, signal: stop.signal });
    assert.deepEqual([first.state, first.step], ['stopped', 5]);
    assert.equal(first.model, join(halves.path, 'checkpoints', 'step-5', 'model'));
    assert.equal(existsSync(join(halves.path, 'model')), false);
    assert.equal(readRunStatus(halves.path)?.state, 'stopped');

    const { directory, checkpoint } = await RunDirectory.resume(halves.path, DESCRIPTION);
    assert.ok(checkpoint);
    const trainer = new CountingTrainer(10);
    restoreTrainer(trainer, checkpoint.path);
    assert.deepEqual([trainer.step, trainer.sum], [5, 15]);
    const options = { ...optionsFor(trainer, directory), resumedFrom: checkpoint };
    assert.equal((await runTraining(options)).state, 'finished');

    const losses = (path: string): unknown[] =>
      metricsOf(path).map(({ step, loss }) => [step, loss]);
    assert.deepEqual(losses(halves.path), losses(whole.path));
    assert.equal(trainer.sum, whole.trainer.sum);
  });

  test('an interrupt ends the run after the step in progress, even where no step ever waits', async () => {
    const { path, trainer, options } = await start(100);
    trainer.beforeStep = (step) => {
      if (step === 3) process.kill(process.pid, 'SIGINT');
    };
    const listeners = process.listenerCount('SIGINT');
    // Without checkpoints in between nothing in the loop waits for the disk either.
    const result = await runTraining({ ...options, checkpointEvery: null });
    assert.deepEqual([result.state, result.stoppedBy], ['stopped', 'SIGINT']);
    // The signal is heard when the process next looks for events: at the end of this step or, at the latest, the next.
    assert.ok(result.step === 3 || result.step === 4, `stopped at step ${result.step}`);
    assert.equal(existsSync(join(path, 'checkpoints', `step-${result.step}`)), true);
    assert.equal(process.listenerCount('SIGINT'), listeners);
    assert.match(readFileSync(join(path, 'log.txt'), 'utf8'), /Stopped by SIGINT\./);
  });

  test('an error of the trainer saves nothing, is told in the folder and thrown on', async () => {
    const { path, trainer, options } = await start(10);
    trainer.beforeStep = (step) => {
      if (step === 4) throw new NumericsError('the loss is NaN', { hint: 'Lower it.' });
    };
    await assert.rejects(runTraining(options), (error: unknown) => error instanceof NumericsError);
    assert.deepEqual(readdirSync(join(path, 'checkpoints')), ['step-2']);
    const status = readRunStatus(path);
    assert.deepEqual(
      [status?.state, status?.step, status?.message],
      ['failed', 3, 'the loss is NaN'],
    );
    assert.match(
      readFileSync(join(path, 'log.txt'), 'utf8'),
      /Failed after step 3: the loss is NaN\n/,
    );
  });

  test('a checkpoint that cannot be written ends the run and leaves the last one', async () => {
    const { path, options } = await start(10);
    let saves = 0;
    const saveModel = async (folder: string): Promise<void> => {
      if (++saves === 2) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      await options.saveModel(folder);
    };
    await assert.rejects(
      runTraining({ ...options, saveModel }),
      (error: unknown) => error instanceof IoError,
    );
    assert.deepEqual(readdirSync(join(path, 'checkpoints')), ['step-2']);
  });

  test('evaluates when it is due and after the last step', async () => {
    const { path, options } = await start(5);
    const evaluate = (): Promise<Record<string, number>> => Promise.resolve({ reward: 0.5 });
    await runTraining({ ...options, evaluate, evalEvery: 2 });
    assert.deepEqual(
      metricsOf(path).map((line) => line['eval/reward']),
      [undefined, 0.5, undefined, 0.5, 0.5],
    );
  });

  test('a listener hears every step, and its sentences are logged', async () => {
    const { path, options } = await start(3);
    const heard: number[] = [];
    await runTraining({
      ...options,
      onStep: (step) => {
        heard.push(step);
        return step === 2 ? 'halfway' : undefined;
      },
    });
    assert.deepEqual(heard, [1, 2, 3]);
    assert.match(readFileSync(join(path, 'log.txt'), 'utf8'), / halfway\n/);
  });

  test('shows plain lines where there is no terminal', async () => {
    const { options } = await start(3);
    let shown = '';
    await runTraining({ ...options, progress: { write: (text) => (shown += text) } });
    assert.match(shown, /^counting step 1\/3 \(33 %\) · .*loss 1\n/);
    assert.match(shown, /two is odd\n/);
    assert.match(shown, /counting step 3\/3 \(100 %\) · .* in all · loss 0\.3333\n$/);
  });
});

describe('restoreTrainer', () => {
  test('refuses a folder without a state and the state of another method', async () => {
    const folder = newPath();
    mkdirSync(folder);
    const trainer = new CountingTrainer(3);
    assert.throws(() => restoreTrainer(trainer, folder), CheckpointError);
    await saveTrainer(trainer, folder);
    restoreTrainer(trainer, folder);
    const path = join(folder, 'trainer.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('counting', 'ppo'));
    assert.throws(
      () => restoreTrainer(trainer, folder),
      /expected the state of counting, received that of ppo/,
    );
  });
});
