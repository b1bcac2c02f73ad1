import assert from 'node:assert/strict';
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, mock, test } from 'node:test';
import { CheckpointError, IoError } from '../errors/index.js';
import { listCheckpoints, readRunRecord, readRunStatus, RunDirectory } from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-runs-'));
after(() => rmSync(root, { recursive: true }));
let folders = 0;
const newPath = (): string => join(root, `run${folders++}`);

const DESCRIPTION = { method: 'grpo', config: { seed: 7, groupSize: 8 }, inputs: { model: '/m' } };

function jsonLines(path: string): unknown[] {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as unknown);
}

const writeModel =
  (text: string) =>
  (folder: string): Promise<void> => {
    mkdirSync(join(folder, 'model'));
    writeFileSync(join(folder, 'model', 'weights'), text);
    writeFileSync(join(folder, 'trainer.json'), '{}');
    return Promise.resolve();
  };

describe('a new run directory', () => {
  test('records settings, inputs, versions, seed, commit and command before anything is trained', async () => {
    const path = newPath();
    (await RunDirectory.create(path, DESCRIPTION)).close();
    const record = readRunRecord(path);
    assert.deepEqual(record.config, DESCRIPTION.config);
    assert.deepEqual(record.inputs, DESCRIPTION.inputs);
    assert.equal(record.seed, 7);
    assert.match(record.versions.libtorch, /^\d+\.\d+/);
    assert.equal(record.versions.node, process.versions.node);
    assert.match(record.versions.posttrain, /^\d+\.\d+\.\d+$/);
    assert.ok(record.commit === null || /^[0-9a-f]{40}(\+changes)?$/.test(record.commit));
    assert.deepEqual(record.command, process.argv);
    assert.ok(Date.parse(record.started) <= Date.now());
  });

  test('refuses a folder that holds a run, or anything else', async () => {
    const path = newPath();
    (await RunDirectory.create(path, DESCRIPTION)).close();
    await assert.rejects(RunDirectory.create(path, DESCRIPTION), (error: unknown) => {
      assert.ok(error instanceof IoError);
      assert.match(error.message, /expected a new or empty folder, but it holds a run already\./);
      assert.equal(error.hint, 'Go on with it by --resume, or choose another folder.');
      return true;
    });
    const other = newPath();
    mkdirSync(other);
    writeFileSync(join(other, 'thesis.tex'), '');
    await assert.rejects(RunDirectory.create(other, DESCRIPTION), /it holds thesis\.tex already/);
  });

  test('says what is in the way when it cannot be made', async () => {
    const path = newPath();
    writeFileSync(path, 'a file');
    for (const place of [path, join(path, 'run')])
      await assert.rejects(RunDirectory.create(place, DESCRIPTION), {
        name: 'IoError',
        hint: 'There is a file where a folder is needed: choose another folder.',
      });
  });
});

describe('metrics and samples', () => {
  test('are whole lines on the disk as soon as they are written', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    directory.writeMetrics(1, { loss: 0.5, reward: 1 });
    directory.writeSamples(1, [{ step: 0, completion: 'a\nb' }, { completion: 'c' }]);
    const [line] = jsonLines(join(path, 'metrics.jsonl')) as Record<string, unknown>[];
    assert.deepEqual(Object.keys(line ?? {}), ['step', 'time', 'loss', 'reward']);
    assert.deepEqual([line?.['step'], line?.['loss']], [1, 0.5]);
    assert.deepEqual(jsonLines(join(path, 'samples.jsonl')), [
      { step: 1, completion: 'a\nb' },
      { step: 1, completion: 'c' },
    ]);
    directory.close();
  });

  test('a value that is not finite is null, and told once', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    assert.deepEqual(directory.writeMetrics(1, { loss: Number.NaN }), [
      'Metric loss is NaN at step 1; it is written as null.',
    ]);
    assert.deepEqual(directory.writeMetrics(2, { loss: Infinity }), []);
    directory.close();
    const lines = jsonLines(join(path, 'metrics.jsonl')) as { loss: unknown }[];
    assert.deepEqual(
      lines.map(({ loss }) => loss),
      [null, null],
    );
    assert.match(readFileSync(join(path, 'log.txt'), 'utf8'), /Metric loss is NaN at step 1/);
  });
});

describe('checkpoints', () => {
  test('stand under their name only when they are whole; the oldest go last', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    const folder = join(path, 'checkpoints');
    for (const step of [2, 4, 10]) {
      const saved = await directory.saveCheckpoint(
        step,
        (to) => {
          assert.equal(existsSync(join(folder, `step-${step}`)), false);
          return writeModel(`w${step}`)(to);
        },
        2,
      );
      assert.deepEqual(saved, { step, path: join(folder, `step-${step}`) });
    }
    assert.deepEqual(readdirSync(folder).sort(), ['step-10', 'step-4']);
    const marker = readFileSync(join(folder, 'step-10', 'complete.json'), 'utf8');
    assert.deepEqual(JSON.parse(marker), {
      step: 10,
      files: { 'model/weights': 3, 'trainer.json': 2 },
    });
    directory.close();
  });

  test('an error while one is written leaves the earlier ones and nothing else', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    await directory.saveCheckpoint(1, writeModel('one'), 1);
    const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    await assert.rejects(
      directory.saveCheckpoint(
        2,
        async (to) => {
          await writeModel('two')(to);
          throw full;
        },
        1,
      ),
      (error: unknown) =>
        error instanceof IoError && error.message.endsWith('step-2: the disk is full.'),
    );
    assert.deepEqual(readdirSync(join(path, 'checkpoints')), ['step-1']);
    directory.close();
  });

  test('a torn one never counts, whatever was torn', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    for (const step of [1, 2, 3, 4, 5]) {
      await directory.saveCheckpoint(step, writeModel('weights'), null);
    }
    directory.close();
    const at = (step: number, name: string): string =>
      join(path, 'checkpoints', `step-${step}`, name);
    rmSync(at(5, 'complete.json'));
    truncateSync(at(4, 'model/weights'), 3);
    rmSync(at(3, 'trainer.json'));
    writeFileSync(at(2, 'complete.json'), '{"step": 2, "fil');
    mkdirSync(join(path, 'checkpoints', '.tmp-step-6-1'));

    const { whole, torn } = await listCheckpoints(join(path, 'checkpoints'));
    assert.deepEqual(
      whole.map(({ step }) => step),
      [1],
    );
    assert.deepEqual(torn.map(({ reason }) => reason).sort(), [
      'complete.json cannot be read',
      'complete.json is missing',
      'model/weights has 3 bytes instead of 7',
      'trainer.json is missing',
    ]);
    const { directory: again, checkpoint } = await RunDirectory.resume(path, DESCRIPTION);
    assert.equal(checkpoint?.step, 1);
    const log = readFileSync(join(path, 'log.txt'), 'utf8');
    assert.match(log, /Resumed from .*step-1\./);
    assert.match(log, /Ignored .*step-4: model\/weights has 3 bytes instead of 7\./);
    assert.equal(existsSync(join(path, 'checkpoints', '.tmp-step-6-1')), false);
    // A torn one is replaced when its step comes again.
    await again.saveCheckpoint(4, writeModel('again'), null);
    assert.equal(readFileSync(at(4, 'model/weights'), 'utf8'), 'again');
    again.close();
  });
});

describe('the published model', () => {
  test('has the bytes of the checkpoint, stays when that is removed, and is replaced as a whole', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    const first = await directory.saveCheckpoint(1, writeModel('one'), null);
    await directory.publishModel(join(first.path, 'model'));
    rmSync(first.path, { recursive: true });
    assert.equal(readFileSync(join(path, 'model', 'weights'), 'utf8'), 'one');
    const second = await directory.saveCheckpoint(2, writeModel('two'), null);
    assert.equal(await directory.publishModel(join(second.path, 'model')), join(path, 'model'));
    assert.equal(readFileSync(join(path, 'model', 'weights'), 'utf8'), 'two');
    assert.equal(statSync(join(path, 'model', 'weights')).nlink, 2, 'shares bytes on the disk');
    directory.close();
  });
});

describe('resuming', () => {
  test('cuts off what came after the checkpoint, a torn last line too, so that no step is there twice', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    for (let step = 1; step <= 5; step++) {
      directory.writeMetrics(step, { loss: step });
      directory.writeSamples(step, [{ text: 'ä' }, { text: 'b' }]);
      if (step === 3) await directory.saveCheckpoint(3, writeModel('w'), null);
    }
    directory.close();
    writeFileSync(join(path, 'metrics.jsonl'), '{"step":6,"lo', { flag: 'a' });

    const { directory: again } = await RunDirectory.resume(path, DESCRIPTION);
    again.writeMetrics(4, { loss: 40 });
    again.close();
    const steps = (jsonLines(join(path, 'metrics.jsonl')) as { step: number; loss: number }[]).map(
      ({ step, loss }) => [step, loss],
    );
    assert.deepEqual(steps, [
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 40],
    ]);
    const samples = jsonLines(join(path, 'samples.jsonl')) as { step: number }[];
    assert.deepEqual(
      samples.map(({ step }) => step),
      [1, 1, 2, 2, 3, 3],
    );
    const log = readFileSync(join(path, 'log.txt'), 'utf8');
    assert.match(log, /Cut off 3 lines of metrics\.jsonl and 4 of samples\.jsonl after step 3/);
  });

  test('records when, from where and with which changed settings it went on', async () => {
    const path = newPath();
    (await RunDirectory.create(path, DESCRIPTION)).close();
    const config = { seed: 7, groupSize: 16 };
    const { directory, checkpoint } = await RunDirectory.resume(path, { ...DESCRIPTION, config });
    directory.close();
    assert.equal(checkpoint, undefined);
    const record = readRunRecord(path);
    assert.deepEqual(record.config, config);
    assert.equal(record.resumed?.length, 1);
    assert.equal(record.resumed?.[0]?.fromStep, 0);
    assert.deepEqual(record.resumed?.[0]?.changed, ['groupSize: 8 → 16']);
  });

  test('refuses a folder without a run, and a run of another method', async () => {
    await assert.rejects(RunDirectory.resume(newPath(), DESCRIPTION), (error: unknown) => {
      assert.ok(error instanceof CheckpointError);
      assert.match(error.message, /expected a run directory, but it has no config\.json\.$/);
      return true;
    });
    const path = newPath();
    (await RunDirectory.create(path, DESCRIPTION)).close();
    await assert.rejects(
      RunDirectory.resume(path, { ...DESCRIPTION, method: 'sft' }),
      /expected a run of sft, received one of grpo\./,
    );
  });

  test('refuses a run that a living process writes to, and not one of a dead process', async () => {
    const path = newPath();
    (await RunDirectory.create(path, DESCRIPTION)).close();
    const status = { state: 'running', step: 1, totalSteps: 2, host: hostname(), updated: '' };
    writeFileSync(join(path, 'status.json'), JSON.stringify({ ...status, pid: process.ppid }));
    await assert.rejects(RunDirectory.resume(path, DESCRIPTION), /but process \d+ writes to it\./);
    writeFileSync(join(path, 'status.json'), JSON.stringify({ ...status, pid: 2 ** 22 + 1 }));
    (await RunDirectory.resume(path, DESCRIPTION)).directory.close();
  });

  test('status.json says how the run stands', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    assert.equal(readRunStatus(path), undefined);
    directory.writeStatus({ state: 'failed', step: 3, totalSteps: 9, message: 'no' });
    const status = readRunStatus(path);
    assert.deepEqual(
      [status?.state, status?.step, status?.totalSteps, status?.message, status?.pid],
      ['failed', 3, 9, 'no', process.pid],
    );
    directory.close();
  });

  test('a full disk keeps the status of a run that goes on, and not the one of its failure', async () => {
    const path = newPath();
    const directory = await RunDirectory.create(path, DESCRIPTION);
    directory.writeStatus({ state: 'running', step: 3, totalSteps: 9 });
    const full = mock.method(fs, 'renameSync', () => {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    });
    syncBuiltinESMExports();
    try {
      assert.throws(() => directory.writeStatus({ state: 'running', step: 4, totalSteps: 9 }), {
        message: /status\.json: the disk is full\.$/,
      });
      assert.deepEqual([readRunStatus(path)?.state, readRunStatus(path)?.step], ['running', 3]);
      directory.writeStatus({ state: 'failed', step: 4, totalSteps: 9, message: 'full' });
    } finally {
      full.mock.restore();
      syncBuiltinESMExports();
      directory.close();
    }
    const { state, step, message } = readRunStatus(path) ?? {};
    assert.deepEqual([state, step, message], ['failed', 4, 'full']);
    assert.deepEqual(
      readdirSync(path).filter((name) => name.includes('tmp')),
      [],
    );
  });
});
