import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { MlflowStandIn } from '../../test/mlflowServer.js';
import { CountingTrainer } from '../../test/runs/countingTrainer.js';
import { tinyModel, tinyTokenizer } from '../../test/tinyRun.js';
import { NumericsError } from '../errors/index.js';
import type { TrackedRun, TrackedStep, Tracker } from '../trackers/index.js';
import { createSftRun, restoreTrainer, RunDirectory, runTraining } from './index.js';
import { trackersOf } from './tracking.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-tracking-'));
const server = await MlflowStandIn.start();
after(async () => {
  await server.stop();
  rmSync(root, { recursive: true });
});
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);
const DESCRIPTION = { method: 'counting', config: { seed: 3 }, inputs: { data: 'rows' } };

/** Keeps what it is told, and remembers how many processes began. */
class Spy implements Tracker {
  readonly name = 'spy';
  run: TrackedRun | undefined;
  readonly steps: TrackedStep[] = [];
  end = (state: string): void => void (this.state = state);
  state: string | undefined;

  begin(run: TrackedRun): void {
    this.run = run;
    run.remember(Number(run.remembered ?? 0) + 1);
  }

  log(steps: readonly TrackedStep[]): void {
    this.steps.push(...steps);
  }
}

function optionsOf(trainer: CountingTrainer, directory: RunDirectory, trackers: Tracker[]) {
  return {
    ...{ trainer, directory, trackers, progress: null },
    ...{ checkpointEvery: null, keepCheckpoints: null, logEvery: 1 },
    saveModel: (folder: string) => {
      mkdirSync(folder);
      return Promise.resolve();
    },
  };
}

async function start(trackers: Tracker[], totalSteps = 3) {
  const path = newPath();
  const trainer = new CountingTrainer(totalSteps);
  const directory = await RunDirectory.create(path, DESCRIPTION);
  return { path, trainer, options: optionsOf(trainer, directory, trackers) };
}

describe('a run that is followed', () => {
  test('tells what it is, every step with what metrics.jsonl has, and how it ended', async () => {
    const spy = new Spy();
    const { path, options } = await start([spy]);
    await runTraining(options);
    const { directory, name, method, config, inputs, seed, totalSteps, resumedFrom } =
      spy.run ?? assert.fail('never begun');
    assert.deepEqual(
      { directory, name, method, config, inputs, seed, totalSteps, resumedFrom },
      {
        ...{ directory: path, name: basename(path), ...DESCRIPTION, seed: 3 },
        ...{ totalSteps: 3, resumedFrom: undefined },
      },
    );
    const lines = readFileSync(join(path, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
    assert.deepEqual(
      spy.steps.map(({ step, time, metrics }) => ({ step, time: time.toISOString(), ...metrics })),
      lines.map((line) => JSON.parse(line) as object),
    );
    assert.equal(spy.steps.length, 3);
    assert.equal(spy.state, 'finished');
  });

  test('a run that fails tells so, and throws its own error', async () => {
    const spy = new Spy();
    const { trainer, options } = await start([spy]);
    trainer.beforeStep = (step) => {
      if (step === 2) throw new NumericsError('the loss is NaN');
    };
    await assert.rejects(runTraining(options), NumericsError);
    assert.deepEqual([spy.steps.length, spy.state], [1, 'failed']);
  });

  test('a tracker that fails does not end the run; log.txt says so once, with what was lost', async () => {
    const spy = new Spy();
    const bad: Tracker = {
      name: 'bad',
      begin: () => undefined,
      log: () => Promise.reject(new TypeError('no room')),
      end: () => undefined,
    };
    const { path, options } = await start([bad, spy], 5);
    assert.equal((await runTraining(options)).state, 'finished');
    assert.equal(spy.steps.length, 5);
    const told = readFileSync(join(path, 'log.txt'), 'utf8').match(/bad: .*/g);
    assert.deepEqual(told, [
      'bad: no room. The run goes on; further failures are counted.',
      'bad: 5 of 5 steps did not arrive.',
    ]);
  });

  test('a resumed run says from where, and gives back what was remembered', async () => {
    const spy = new Spy();
    const { path, trainer, options } = await start([spy], 6);
    const stop = new AbortController();
    trainer.beforeStep = (step) => {
      if (step === 2) stop.abort();
    };
    await runTraining({ ...options, signal: stop.signal });
    assert.equal(spy.state, 'stopped');
    assert.deepEqual(JSON.parse(readFileSync(join(path, 'trackers.json'), 'utf8')), { spy: 1 });

    const resumed = await RunDirectory.resume(path, { ...DESCRIPTION, config: { seed: 4 } });
    const again = new CountingTrainer(6);
    restoreTrainer(again, resumed.checkpoint?.path ?? '');
    const second = new Spy();
    await runTraining({
      ...optionsOf(again, resumed.directory, [second]),
      resumedFrom: resumed.checkpoint,
    });
    assert.deepEqual([second.run?.resumedFrom, second.run?.remembered], [2, 1]);
    assert.deepEqual(second.run?.changed, ['seed: 3 → 4']);
    assert.deepEqual(
      second.steps.map(({ step }) => step),
      [3, 4, 5, 6],
    );
    assert.deepEqual(JSON.parse(readFileSync(join(path, 'trackers.json'), 'utf8')), { spy: 2 });
  });

  test('a stage is named with its job', async () => {
    const { path } = await start([]);
    const spy = new Spy();
    const directory = await RunDirectory.create(join(path, 'iteration-1', 'sft'), DESCRIPTION);
    await runTraining(optionsOf(new CountingTrainer(1), directory, [spy]));
    assert.equal(spy.run?.name, `${basename(path)}/iteration-1/sft`);
  });

  test('trackers.json that is no JSON is refused before the first step', async () => {
    const { path, trainer, options } = await start([new Spy()]);
    writeFileSync(join(path, 'trackers.json'), '{');
    await assert.rejects(runTraining(options), {
      code: 'E_CHECKPOINT',
      message: `${join(path, 'trackers.json')}: expected JSON, received something else.`,
      hint: 'Remove it: trackers then begin anew.',
    });
    assert.equal(trainer.step, 0);
  });
});

describe('trackersOf', () => {
  test('refuses two trackers of one name', () => {
    const off = { mlflow: null, experiment: 'posttrain' };
    assert.throws(() => trackersOf(off, [new Spy(), new Spy()]), {
      code: 'E_USAGE',
      message: 'train: expected trackers of different names, received two of spy.',
    });
    assert.deepEqual(trackersOf(off), []);
  });
});

describe('track.mlflow', () => {
  const model = join(root, 'model');
  const rows = Array.from({ length: 4 }, () => ({ prompt: 'a:', completion: 'x' }));
  const inputs = { model, data: rows, progress: null };
  test('a run is one run of MLflow from its first step to its last, in two processes', async () => {
    const decoder = tinyModel();
    await decoder.save(model);
    await tinyTokenizer().save(model);
    decoder.dispose();
    const out = newPath();
    const config = { batchSize: 2, maxSteps: 3, track: { mlflow: server.url, experiment: 'lab' } };
    const spy = new Spy();
    const first = await createSftRun({ ...inputs, out, config });
    const stop = new AbortController();
    const onStep = (step: number): undefined => {
      if (step === 2) stop.abort();
    };
    await first.train({ progress: null, trackers: [spy], onStep, signal: stop.signal });
    first.dispose();
    assert.equal(server.runs[0]?.status, 'KILLED');
    const second = await createSftRun({ ...inputs, out, resume: true });
    await second.train({ progress: null });
    second.dispose();
    assert.equal(server.runs.length, 1);
    const [{ experiment, status, params, metrics, tags } = assert.fail('no run')] = server.runs;
    assert.deepEqual([experiment, status], ['lab', 'FINISHED']);
    assert.deepEqual([params.get('batchSize'), params.get('track.experiment')], ['2', 'lab']);
    assert.deepEqual(
      metrics.get('loss')?.map(([step]) => step),
      [1, 2, 3],
    );
    assert.equal(tags.get('posttrain.resumed'), 'from step 2');
    assert.equal(spy.steps.length, 2);
    assert.doesNotMatch(readFileSync(join(out, 'log.txt'), 'utf8'), /mlflow/);
  });

  test('an address that is none, and a password in it, are refused before anything is written', async () => {
    const out = newPath();
    const refused = (mlflow: string): Promise<unknown> =>
      createSftRun({ ...inputs, out, config: { track: { mlflow } } });
    await assert.rejects(refused('host:5000'), {
      code: 'E_CONFIG',
      message:
        'Invalid SFT settings:\n  createSftRun: track.mlflow: expected null, env, or the address of a server such as http://localhost:5000, received "host:5000".',
    });
    await assert.rejects(refused('http://ann:secret@host:5000'), (error: Error) => {
      assert.match(error.message, /^track\.mlflow: expected an address without user and password/);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
    assert.throws(() => readFileSync(join(out, 'config.json')), { code: 'ENOENT' });
  });
});
