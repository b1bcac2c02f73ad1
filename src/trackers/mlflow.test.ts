import assert from 'node:assert/strict';
import { after, beforeEach, describe, test } from 'node:test';
import { MlflowStandIn, type StandInRun } from '../../test/mlflowServer.js';
import { TrackerError } from '../errors/index.js';
import { MlflowTracker, mlflowCall, type TrackedRun } from './index.js';

let server = await MlflowStandIn.start();
beforeEach(async () => {
  await server.stop();
  server = await MlflowStandIn.start();
});
after(() => server.stop());

const { signal } = new AbortController();
const time = new Date(1_700_000_000_123);

function trackerOf(answerSeconds?: number): MlflowTracker {
  const access = { address: server.url, authorization: undefined };
  return new MlflowTracker({
    call: mlflowCall(access, answerSeconds),
    ...{ address: server.url, experiment: 'lab' },
  });
}

/** A run that keeps what trackers remember in `memory`. */
function runOf(given: Partial<TrackedRun> = {}): TrackedRun & { readonly memory: unknown[] } {
  const memory: unknown[] = [];
  return {
    ...{ directory: '/runs/first', name: 'first', method: 'sft', seed: 7, commit: 'abc' },
    config: { learningRate: 1e-3, schedule: { kind: 'cosine' }, maxSteps: null, betas: [1, 2] },
    inputs: { model: 'base' },
    ...{ started: '2026-01-02T03:04:05.678Z', totalSteps: 10 },
    ...{ resumedFrom: undefined, changed: [], remembered: undefined, memory },
    remember: (value) => void memory.push(value),
    ...given,
  };
}

function onlyRun(): StandInRun {
  assert.equal(server.runs.length, 1);
  return server.runs[0] as StandInRun;
}

describe('MlflowTracker', () => {
  test('a run has its settings as parameters, every metric by step, and its end', async () => {
    const tracker = trackerOf();
    await tracker.begin(runOf(), signal);
    await tracker.log([{ step: 1, time, metrics: { loss: 0.5, 'reward/a': 1 } }], signal);
    await tracker.log([{ step: 2, time, metrics: { loss: 0.25 } }], signal);
    assert.equal(onlyRun().status, 'RUNNING');
    await tracker.end('finished', signal);
    const { experiment, name, status, params, metrics, tags } = onlyRun();
    assert.deepEqual([experiment, name, status], ['lab', 'first', 'FINISHED']);
    assert.deepEqual(Object.fromEntries(params), {
      ...{ learningRate: '0.001', 'schedule.kind': 'cosine', maxSteps: 'null', betas: '[1,2]' },
    });
    assert.deepEqual(Object.fromEntries(metrics), {
      loss: [
        [1, 0.5],
        [2, 0.25],
      ],
      'reward/a': [[1, 1]],
    });
    assert.deepEqual(
      ['mlflow.source.git.commit', 'posttrain.method', 'posttrain.seed', 'posttrain.inputs'].map(
        (key) => tags.get(key),
      ),
      ['abc', 'sft', '7', '{"model":"base"}'],
    );
  });

  for (const [state, status] of [
    ['stopped', 'KILLED'],
    ['failed', 'FAILED'],
  ] as const) {
    test(`a run that ${state} is ${status}`, async () => {
      const tracker = trackerOf();
      await tracker.begin(runOf(), signal);
      await tracker.end(state, signal);
      assert.equal(onlyRun().status, status);
    });
  }

  test('an experiment that another run makes at the same moment is taken', async () => {
    server.intercept = (request) => {
      if (request.url?.endsWith('experiments/create') === true) server.experiments.push('lab');
      return false;
    };
    await trackerOf().begin(runOf(), signal);
    assert.equal(onlyRun().experiment, 'lab');
  });

  test('a batch has at most 1000 metrics and 100 parameters, and nothing is lost', async () => {
    const tracker = trackerOf();
    const entries = Array.from({ length: 250 }, (_, index) => [`m${index}`, index] as const);
    await tracker.begin(runOf({ config: Object.fromEntries(entries) }), signal);
    const steps = Array.from({ length: 9 }, (_, step) => ({
      ...{ step, time, metrics: Object.fromEntries(entries) },
    }));
    await tracker.log(steps, signal);
    assert.deepEqual(server.batches, [
      [0, 100, 0],
      [0, 100, 0],
      [0, 50, 0],
      [1000, 0, 0],
      [1000, 0, 0],
      [250, 0, 0],
    ]);
    const { params, metrics } = onlyRun();
    assert.equal(params.size, 250);
    for (const [name, value] of entries)
      assert.deepEqual(
        metrics.get(name),
        steps.map(({ step }) => [step, value]),
      );
  });

  test('long values are cut to 6000 characters, and to 500 where the server is old', async () => {
    const config = { long: 'x'.repeat(7000), short: 'y' };
    await trackerOf().begin(runOf({ config, inputs: { data: 'z'.repeat(7000) } }), signal);
    assert.equal(onlyRun().params.get('long'), 'x'.repeat(6000));
    assert.equal(onlyRun().tags.get('posttrain.inputs')?.length, 5000);
    server.mostParamValue = 500;
    await trackerOf().begin(runOf({ config }), signal);
    assert.equal(server.runs[1]?.params.get('long'), 'x'.repeat(500));
    assert.equal(server.runs[1]?.params.get('short'), 'y');
  });

  test('values that are not finite keep what they are', async () => {
    const tracker = trackerOf();
    await tracker.begin(runOf(), signal);
    const metrics = { a: NaN, b: Infinity, c: -Infinity };
    await tracker.log([{ step: 1, time, metrics }], signal);
    assert.deepEqual(Object.fromEntries(onlyRun().metrics), {
      ...{ a: [[1, 'NaN']], b: [[1, 'Infinity']], c: [[1, '-Infinity']] },
    });
  });

  test('names are made such as MLflow takes, and stay apart', async () => {
    const tracker = trackerOf();
    await tracker.begin(runOf(), signal);
    const long = 'n'.repeat(300);
    const metrics = { 'format:/^a//../b$/': 1, 'loss?': 2, 'loss*': 3, '//': 4, [long]: 5 };
    await tracker.log([{ step: 1, time, metrics }], signal);
    await tracker.log([{ step: 2, time, metrics: { 'loss*': 6 } }], signal);
    assert.deepEqual(Object.fromEntries(onlyRun().metrics), {
      'format:/_a/b_': [[1, 1]],
      loss_: [[1, 2]],
      loss__2: [
        [1, 3],
        [2, 6],
      ],
      _: [[1, 4]],
      [long.slice(0, 250)]: [[1, 5]],
    });
  });

  test('a resumed run goes on with the run it was, says so, and sends no parameters again', async () => {
    const first = runOf();
    await trackerOf().begin(first, signal);
    const remembered = first.memory.at(-1);
    server.batches.length = 0;
    const again = runOf({
      ...{ remembered, resumedFrom: 4, changed: ['maxSteps from 10 to 20'] },
      config: { learningRate: 5 },
    });
    const tracker = trackerOf();
    await tracker.begin(again, signal);
    await tracker.log([{ step: 5, time, metrics: { loss: 1 } }], signal);
    const { params, tags, metrics, status } = onlyRun();
    assert.equal(status, 'RUNNING');
    assert.equal(params.get('learningRate'), '0.001');
    assert.equal(tags.get('posttrain.resumed'), 'from step 4; changed maxSteps from 10 to 20');
    assert.deepEqual(metrics.get('loss'), [[5, 1]]);
    assert.deepEqual(server.batches, [
      [0, 0, 1],
      [1, 0, 0],
    ]);
  });

  test('parameters that did not arrive before are sent by the process that resumes', async () => {
    const first = runOf();
    server.intercept = (request, response) => {
      if (request.url?.endsWith('runs/log-batch') !== true) return false;
      response.destroy();
      return true;
    };
    await assert.rejects(async () => trackerOf().begin(first, signal), TrackerError);
    server.intercept = () => false;
    await trackerOf().begin(runOf({ remembered: first.memory.at(-1), resumedFrom: 0 }), signal);
    assert.equal(onlyRun().params.get('learningRate'), '0.001');
  });

  test('beginning again after a failure makes no second run', async () => {
    let refusals = 1;
    server.intercept = (request, response) => {
      if (request.url?.endsWith('runs/log-batch') !== true || refusals-- <= 0) return false;
      response.statusCode = 503;
      response.end();
      return true;
    };
    const tracker = trackerOf();
    await assert.rejects(async () => tracker.begin(runOf(), signal), TrackerError);
    await tracker.begin(runOf(), signal);
    assert.equal(onlyRun().params.size, 4);
  });

  for (const [what, remembered] of [
    ['of another server', { address: 'http://other:1', experiment: 'lab' }],
    ['of another experiment', { experiment: 'other' }],
    ['that was deleted', { experiment: 'lab', runId: 'run-9' }],
  ] as const) {
    test(`a run ${what} is not gone on with`, async () => {
      await trackerOf().begin(runOf(), signal);
      const before = { address: server.url, runId: 'run-0', hasParams: true, ...remembered };
      const run = runOf({ remembered: before, resumedFrom: 3 });
      await trackerOf().begin(run, signal);
      assert.equal(server.runs.length, 2);
      assert.deepEqual(run.memory.at(-1), {
        ...{ address: server.url, experiment: 'lab', runId: 'run-1', hasParams: true },
      });
    });
  }

  test('an answer that is not of MLflow is told as such, and not asked for again', async () => {
    server.intercept = (_request, response) => {
      response.end('<html>Welcome</html>');
      return true;
    };
    await assert.rejects(async () => trackerOf().begin(runOf(), signal), {
      ...{ name: 'TrackerError', code: 'E_TRACKER', again: false },
      message: 'expected experiment.experiment_id in an answer of MLflow, received {}.',
      hint: 'Check that the address is that of an MLflow server.',
    });
  });
});
