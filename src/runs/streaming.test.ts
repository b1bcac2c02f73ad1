import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { configFromObject, type ConfigSource } from '../config/index.js';
import { ConfigError } from '../errors/index.js';
import { loadTokenizer } from '../tokenizers/index.js';
import {
  createCpoRun,
  createDpoRun,
  createKtoRun,
  createOrpoRun,
  createPrmRun,
  createRewardRun,
  createSimpoRun,
  readRunRecord,
  type RunResult,
  type TrainOptions,
} from './index.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-streaming-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);
const model = at('model');

interface Runnable {
  readonly trainer: { readonly step: number };
  train(options: TrainOptions): Promise<RunResult>;
  dispose(): void;
}
interface Options {
  readonly data: string | readonly string[] | readonly Record<string, unknown>[];
  readonly evalData?: string;
  readonly out: string;
  readonly resume?: boolean;
  readonly config?: ConfigSource;
}
type Create = (
  options: Options & { model: string; progress: { write(text: string): void } },
) => Promise<Runnable>;

const METHODS: Record<string, { create: Create; data: string }> = {
  dpo: { create: createDpoRun, data: 'pairs.jsonl' },
  orpo: { create: createOrpoRun, data: 'pairs.jsonl' },
  simpo: { create: createSimpoRun, data: 'pairs.jsonl' },
  cpo: { create: createCpoRun, data: 'pairs.jsonl' },
  kto: { create: createKtoRun, data: 'judged.csv' },
  'kto on pairs': { create: createKtoRun, data: 'pairs.jsonl' },
  reward: { create: createRewardRun, data: 'pairs.jsonl' },
  'reward on rankings': { create: createRewardRun, data: 'rankings.jsonl' },
  prm: { create: createPrmRun, data: 'steps.jsonl' },
};

/** What a method needs to read its rows. */
const NEEDED: Record<string, object> = {
  prm: { stepSeparator: '=' },
  'reward on rankings': { faulty: 'skip' },
};

const jsonl = (rows: readonly object[]): string =>
  rows.map((row) => `${JSON.stringify(row)}\n`).join('');
const numbers = Array.from({ length: 13 }, (_, i) => i);
const pairs = numbers.map((i) => ({
  prompt: `${i}+${i}=`,
  chosen: `${2 * i}`,
  rejected: `${2 * i + 1}0`,
}));
/** A row that is no pair, one that is too long, and one that is like none. */
const faulty = [
  { prompt: '1+1=', chosen: '2', rejected: '2' },
  { prompt: '1+', chosen: '2'.repeat(40), rejected: '3' },
  { text: '1+1' },
];

before(async () => {
  await saveSmallModel(model, { seed: 4 });
  writeFileSync(at('pairs.jsonl'), jsonl(pairs));
  writeFileSync(
    at('other.jsonl'),
    jsonl(pairs.slice(0, 4).map((row) => ({ ...row, chosen: '7' }))),
  );
  writeFileSync(at('faulty.jsonl'), jsonl([...faulty.slice(2), ...pairs, ...faulty]));
  const judged = numbers.map((i) => `${i}+${i}=,0${2 * i},${['True', 'false', '1', '0'][i % 4]}\n`);
  writeFileSync(at('judged.csv'), `prompt,completion,label\n${judged.join('')}`);
  writeFileSync(
    at('steps.jsonl'),
    jsonl(
      numbers.map((i) => ({
        prompt: `${i}+${i}=`,
        completions: [`${i}`, `${2 * i}`],
        labels: [true, i % 3 === 0],
      })),
    ),
  );
  const ranked = (i: number, chosen: number, rejected: number) => ({
    ...{ prompt: `${i}+${i}=`, chosen: `${chosen}`, rejected: `${rejected}`, comparison: i },
  });
  writeFileSync(
    at('rankings.jsonl'),
    jsonl([
      // The rows of a ranking stand apart, and one contradicts another.
      ...numbers.slice(0, 6).map((i) => ranked(i, 2 * i, 2 * i + 1)),
      ...pairs.slice(6),
      ...numbers.slice(0, 6).map((i) => ranked(i, 2 * i, 99)),
      ranked(2, 5, 4),
    ]),
  );
});

let runs = 0;
async function train(
  method: string,
  config: object = {},
  more: Partial<Options> = {},
): Promise<{ out: string; metrics: string; told: string }> {
  const { create, data } = METHODS[method] ?? assert.fail(method);
  const out = more.out ?? at(`run${runs++}`);
  let told = '';
  const run = await create({
    ...{ model, data: at(data), out, progress: { write: (text) => void (told += text) } },
    config: settings({ ...NEEDED[method], ...config }),
    ...more,
  });
  await run.train({ progress: null });
  run.dispose();
  // How much memory is left changes meanwhile.
  return { out, metrics: metricsOf(out), told: told.replaceAll(/of the [\d.]+ GB/g, '') };
}

function settings(config: object): ConfigSource {
  const usual = { maxSteps: 4, batchSize: 5, learningRate: 1e-2, warmupSteps: 0, seed: 5 };
  return configFromObject({ ...usual, ...config }, 'test');
}

/** Every metric of every step but what the clock and the memory say. */
function metricsOf(out: string): string {
  const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const measured = lines.map((line) => {
    const { time, stepSeconds, tokensPerSecond, peakResidentBytes, ...rest } = JSON.parse(
      line,
    ) as Record<string, unknown>;
    assert.ok(time ?? stepSeconds ?? tokensPerSecond ?? peakResidentBytes, 'nothing was timed');
    return JSON.stringify(rest);
  });
  return measured.join('\n');
}

const weightsOf = (out: string): string =>
  readFileSync(join(out, 'model', 'model.safetensors')).toString('base64');

function expectSame(
  a: { out: string; metrics: string },
  b: { out: string; metrics: string },
): void {
  assert.equal(a.metrics, b.metrics);
  assert.equal(weightsOf(a.out), weightsOf(b.out));
  const recorded = (out: string): unknown => readRunRecord(out).inputs['data'];
  assert.deepEqual(recorded(a.out), recorded(b.out));
}

const CASES: [method: string, config: object, more: () => Partial<Options>][] = [
  ...Object.keys(METHODS).map((method): (typeof CASES)[number] => [method, {}, () => ({})]),
  ['dpo', { data: { holdOut: 3 }, evalEvery: 2 }, () => ({})],
  ['kto', { data: { holdOut: 3 } }, () => ({})],
  ['dpo', { data: { weights: [1, 3] } }, () => ({ data: [at('pairs.jsonl'), at('other.jsonl')] })],
  [
    'reward',
    { data: { weights: [1, 3] }, normalizeOn: 'chosen' },
    () => ({ data: [at('pairs.jsonl'), at('other.jsonl')] }),
  ],
  ['dpo', { faulty: 'skip', maxLength: 30 }, () => ({ data: at('faulty.jsonl') })],
  ['kto', { faulty: 'skip', maxLength: 30 }, () => ({ data: at('faulty.jsonl') })],
];

describe('streaming trains every method on the same batches: all metrics and weights are the same bits', () => {
  for (const [method, config, more] of CASES) {
    test(`${method} ${JSON.stringify(config)}`, async () => {
      const whole = await train(method, config, more());
      const streamed = await train(method, { ...config, streaming: true }, more());
      expectSame(streamed, whole);
      const note = 'Rows stay in their files and are read again when they are trained.\n';
      assert.ok(streamed.told.includes(note));
      assert.equal(streamed.told.replace(note, ''), whole.told.replace(note, ''));
    });
  }
});

describe('a streamed run that is stopped and resumed ends with the same bits', () => {
  for (const method of ['dpo', 'kto', 'reward on rankings', 'prm']) {
    test(method, async () => {
      const config = { streaming: true };
      const whole = await train(method, config);
      const { create, data } = METHODS[method] ?? assert.fail(method);
      const out = at(`run${runs++}`);
      const stop = new AbortController();
      const progress = { write: () => undefined };
      const first = await create({
        model,
        data: at(data),
        out,
        progress,
        config: settings({ ...NEEDED[method], ...config }),
      });
      const stopped = await first.train({
        ...{ progress: null, signal: stop.signal },
        onStep: (step) => {
          if (step === 2) stop.abort();
          return undefined;
        },
      });
      first.dispose();
      assert.equal(stopped.step, 2);
      expectSame(await train(method, config, { out, resume: true }), whole);
    });
  }
});

describe('ids beyond the vocabulary of the model', () => {
  test('are refused with row, id and vocabulary by every method, whatever happens to rows with faults', async () => {
    const small = at('small');
    await saveSmallModel(small, { seed: 4 });
    const path = join(small, 'config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as { vocab_size: number };
    const tokenizer = await loadTokenizer(small);
    const [last = 0] = tokenizer.encode('=', { addSpecialTokens: false });
    const eos = tokenizer.eosTokenId ?? 0;
    assert.ok(eos < last, 'the model keeps its end token');
    writeFileSync(path, JSON.stringify({ ...config, vocab_size: last }));
    for (const [method, { create, data }] of Object.entries(METHODS)) {
      if (method === 'reward on rankings') continue;
      for (const streaming of [false, true]) {
        const out = at(`run${runs++}`);
        const needed = { ...NEEDED[method], faulty: 'skip', streaming };
        await assert.rejects(
          create({
            ...{ model: small, data: at(data), out, progress: { write: () => undefined } },
            config: settings(needed),
          }),
          (error: unknown) => {
            assert.ok(error instanceof ConfigError, String(error));
            const line = data === 'judged.csv' ? 2 : 1;
            const place = `${at(data)}:${line}`;
            assert.equal(
              error.message,
              `${place}: expected token ids below ${last}, the model's vocabulary, received ${last}.`,
            );
            return true;
          },
        );
        assert.equal(existsSync(out), false);
      }
    }
  });
});

describe('streaming refuses', () => {
  test('rows in memory, for every method', async () => {
    for (const method of ['dpo', 'kto', 'reward', 'prm']) {
      await assert.rejects(train(method, { streaming: true }, { data: [...pairs] }), {
        code: 'E_CONFIG',
        message: 'streaming: expected false for rows in memory, received true.',
      });
    }
  });
  test('a reference that is computed before training', async () => {
    await assert.rejects(train('dpo', { streaming: true, reference: 'precomputed' }), {
      code: 'E_CONFIG',
      message: /reference.*expected live with streaming/s,
    });
  });
  test('a fault and a contradiction, before anything is written, as without it', async () => {
    for (const streaming of [true, false]) {
      await assert.rejects(
        train('dpo', { streaming, maxLength: 30 }, { data: at('faulty.jsonl') }),
        {
          code: 'E_DATA',
          message: `${at('faulty.jsonl')}:1: expected preference rows, received language-modeling rows (text).`,
        },
      );
      await assert.rejects(train('reward on rankings', { streaming, faulty: 'stop' }), {
        code: 'E_DATA',
        message: `${at('rankings.jsonl')}:20: expected the preference of ${at('rankings.jsonl')}:3, which is of comparison "2" too, received the opposite one.`,
      });
    }
  });
});
