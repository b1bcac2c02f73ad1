import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { Keyboard, until } from '../../test/cli/terminal.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { readRows, tokenizePreferences, validateRows } from '../data/index.js';
import { createModel, loadModel, makeDecoderConfig, type Decoder } from '../models/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { label, type LabelOptions, type LabelResult } from './label.js';
import { sessionPath } from './sessionFile.js';
import type { Ranked, SessionRecord } from './session.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-label-'));
const folder = join(root, 'model');
let model: Decoder;
let tokenizer: Tokenizer;
let made = 0;

before(async () => {
  await saveSmallModel(folder);
  model = await loadModel(folder);
  tokenizer = await loadTokenizer(folder);
});
after(() => {
  model.dispose();
  rmSync(root, { recursive: true });
});

const PROMPTS = ['1+1=', '2+3=', '40+2=', '9=', '8+8=', '7+1='].map((prompt, index) => ({
  prompt,
  answer: `answer ${index}`,
}));

const newPath = (): string => join(root, `${made++}.jsonl`);

interface Labelled {
  readonly result: LabelResult;
  readonly screen: string;
  readonly out: string;
}

/** Labels with answers from a pipe; a test says only what it is about. */
async function labelled(answers: string, overrides: Partial<LabelOptions> = {}): Promise<Labelled> {
  let screen = '';
  const options: LabelOptions = {
    model,
    tokenizer,
    modelFolder: folder,
    data: PROMPTS,
    out: newPath(),
    completions: 3,
    maxNewTokens: 6,
    seed: 11,
    input: Readable.from([answers]),
    screen: { columns: 40, write: (text: string) => (screen += text) },
    ...overrides,
  };
  return { result: await label(options), screen, out: options.out };
}

const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);

/** The steps of a session, without its first line. */
const stepsOf = (out: string): SessionRecord[] =>
  linesOf(sessionPath(out)).slice(1) as unknown as SessionRecord[];

/** Sets are compared, not orders. */
function sorted<Value>(values: readonly Value[]): Value[] {
  return [...values].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

/** The completions of each prompt as they stood on the screen below each other: `shown[prompt][number − 1]`. */
function shownOn(screen: string): string[][] {
  return screen
    .split(/^── \d+ of \d+ .*$/m)
    .slice(1)
    .map((part) =>
      part
        .split(/^── \d .*$/m)
        .slice(1)
        .map((text) => text.split('\n\n')[0]?.trim() ?? ''),
    );
}

describe('label', () => {
  test('what was ranked on the screen is what the pairs say', async () => {
    const { result, screen, out } = await labelled('2>1=3\ns\n1=2=3\n3 1 2\nq\n', {
      labeler: 'ann',
    });
    const shown = shownOn(screen);
    assert.equal(shown.length, 5);
    const [first = [], , , fourth = []] = shown;
    assert.equal(new Set([...first, ...fourth]).size, 6, 'texts that tell places apart');
    const pairs = linesOf(out).map(({ prompt, chosen, rejected }) => [prompt, chosen, rejected]);
    const expected = [
      ['1+1=', first[1], first[0]],
      ['1+1=', first[1], first[2]],
      ['9=', fourth[2], fourth[0]],
      ['9=', fourth[2], fourth[1]],
      ['9=', fourth[0], fourth[1]],
    ];
    assert.deepEqual(sorted(pairs), sorted(expected));
    assert.deepEqual(result, {
      state: 'stopped',
      prompts: 6,
      ranked: 3,
      skipped: 1,
      alike: 0,
      remaining: 2,
      pairs: 5,
      stoppedBy: undefined,
      out,
      session: sessionPath(out),
    });
  });

  test('the file is one of preferences, ready to train on, with columns and origin kept', async () => {
    const { out } = await labelled('123\n321\nq\n', { labeler: 'ann', temperature: 0.9 });
    const rows = await readRows(out);
    assert.deepEqual(validateRows(rows, ['preference'], ['answer']), {
      name: 'preference',
      conversational: false,
    });
    const { pairs, report } = tokenizePreferences(rows, tokenizer, { maxLength: 32 });
    assert.deepEqual([pairs.length, report.comparisons], [6, 2]);
    const { answer, provenance } = rows[3]?.values ?? {};
    assert.equal(answer, 'answer 1');
    const { weightsSha256, time, ranks, order, ...rest } = provenance as Record<string, unknown>;
    assert.match(String(weightsSha256), /^[0-9a-f]{64}$/);
    assert.match(String(time), /^\d{4}-\d\d-\d\dT.*Z$/);
    assert.deepEqual(sorted(ranks as number[]), [1, 2, 3]);
    assert.deepEqual(sorted(order as number[]), [0, 1, 2]);
    assert.equal(rest['model'], folder);
    assert.deepEqual(rest['sampling'], { completions: 3, temperature: 0.9, maxNewTokens: 6 });
    assert.deepEqual(
      [rest['seed'], rest['labeler'], rest['mode'], rest['line'], rest['file']],
      [11, 'ann', 'rank', 2, '<memory>'],
    );
  });

  test('the best one is chosen over each other one', async () => {
    const { screen, out } = await labelled('2\n1=3\nq\n', { mode: 'choose' });
    const [first = [], second = []] = shownOn(screen);
    assert.deepEqual(
      sorted(linesOf(out).map(({ chosen, rejected }) => [chosen, rejected])),
      sorted([
        [first[1], first[0]],
        [first[1], first[2]],
        [second[0], second[1]],
        [second[2], second[1]],
      ]),
    );
  });

  test('a session that was interrupted shows what it would have shown', async () => {
    const answers = ['123', '321', 's', '2=1>3', '213', '312'];
    const whole = await labelled(`${answers.join('\n')}\n`);
    assert.deepEqual([whole.result.state, whole.result.remaining], ['finished', 0]);
    let parts = '';
    const out = newPath();
    for (const [index, answer] of answers.entries())
      parts += (await labelled(`${answer}\n`, { out, resume: index > 0 })).screen;
    const ranked = (path: string) =>
      stepsOf(path).map((step) => ({ ...step, time: '', labeler: '' }));
    assert.deepEqual(ranked(out), ranked(whole.out));
    const seen = new Set(shownOn(parts).map((texts) => texts.join('|')));
    assert.deepEqual(seen, new Set(shownOn(whole.screen).map((texts) => texts.join('|'))));
    const other = await labelled('123\n', { seed: 14 });
    assert.notDeepEqual(shownOn(other.screen)[0], shownOn(whole.screen)[0]);
  });

  test('undo goes back beyond where the session was resumed, and shows what was judged', async () => {
    const first = await labelled('2>1=3\n321\n');
    assert.deepEqual([first.result.state, first.result.ranked], ['stopped', 2]);
    const { out } = first;
    const second = await labelled('u\nu\n1>2=3\ns\n', { out, resume: true });
    const before = shownOn(first.screen);
    const after = shownOn(second.screen);
    // Third prompt, second, first again, then second and third again.
    assert.deepEqual(after, [before[2], before[1], before[0], before[1], before[2]]);
    const texts = before[0] ?? [];
    assert.deepEqual(
      linesOf(out).map(({ prompt, chosen }) => [prompt, chosen]),
      [
        ['1+1=', texts[0]],
        ['1+1=', texts[0]],
      ],
    );
    assert.deepEqual(
      stepsOf(out).map(({ kind }) => kind),
      ['ranked', 'ranked', 'undo', 'undo', 'ranked', 'skipped'],
    );
  });

  test('settings that are not given are as they were', async () => {
    const { out } = await labelled('21\n', { completions: 2, temperature: 0.8, mode: 'rank' });
    const { result } = await labelled('s\n', {
      out,
      resume: true,
      completions: undefined,
      temperature: undefined,
      maxNewTokens: undefined,
      seed: undefined,
    });
    assert.deepEqual([result.ranked, result.skipped], [1, 1]);
    await assert.rejects(labelled('s\n', { out, resume: true, completions: 2, temperature: 0.9 }), {
      name: 'CheckpointError',
      message:
        'Resuming: expected --temperature 0.8, as the session was started with, received 0.9.',
    });
    await assert.rejects(
      labelled('s\n', { out, resume: true, completions: 2, data: PROMPTS.slice(1) }),
      { name: 'CheckpointError', message: /^Resuming: expected the data with SHA-256 / },
    );
    const otherFolder = join(root, 'other');
    await saveSmallModel(otherFolder, { seed: 1 });
    await assert.rejects(
      labelled('s\n', { out, resume: true, completions: 2, modelFolder: otherFolder }),
      { name: 'CheckpointError', message: /^Resuming: expected the weights with SHA-256 / },
    );
  });

  test('without settings four completions are ranked, at temperature 1 and seed 0', async () => {
    const { out } = await labelled('q\n', {
      completions: undefined,
      maxNewTokens: undefined,
      seed: undefined,
    });
    const { settings } = linesOf(sessionPath(out))[0] as { settings: Record<string, unknown> };
    assert.deepEqual(
      [settings['completions'], settings['temperature'], settings['seed'], settings['mode']],
      [4, 1, 0, 'rank'],
    );
    assert.equal(settings['maxNewTokens'], 64 - 5, 'what fits behind the longest prompt');
  });

  test('nobody is asked about completions that are alike', async () => {
    // So cold that every sample takes the most likely token.
    const { result, screen, out } = await labelled('', { temperature: 1e-6 });
    assert.deepEqual([result.state, result.alike, result.pairs], ['finished', 6, 0]);
    assert.deepEqual(shownOn(screen), []);
    assert.deepEqual(linesOf(out), []);
    assert.match(screen, /Every prompt is decided/);
    const again = await labelled('', { out, resume: true, temperature: 1e-6 });
    assert.deepEqual([again.result.alike, stepsOf(out).length], [6, 6], 'remembered as done');
  });

  test('all of a session may be undone at its end; a line too many is refused', async () => {
    const data = PROMPTS.slice(0, 2);
    const { result, out } = await labelled('123\n123\nu\nu\n321\ns\n\n', { data });
    assert.deepEqual([result.state, result.ranked, result.skipped], ['finished', 1, 1]);
    assert.equal(linesOf(out).length, 3);
    await assert.rejects(labelled('s\ns\n123\n', { data }), {
      name: 'DataError',
      message: 'standard input:3: There is no prompt left to answer.',
    });
  });

  test('an answer that is none ends a pipe with its line, and all before it is kept', async () => {
    const out = newPath();
    await assert.rejects(labelled('123\n1>2\n321\n', { out }), {
      name: 'DataError',
      message:
        'standard input:2: rank: expected all of 1 to 3, but "1>2" lacks 3. For example 2>1=4>3, or 21=43 for the same: best first, = between those that are as good as each other.',
    });
    assert.equal(linesOf(out).length, 3);
    await assert.rejects(labelled('u\nu\n', { out, resume: true }), {
      name: 'DataError',
      message: 'standard input:2: There is nothing to undo.',
    });
    const { result } = await labelled('', { out, resume: true });
    assert.equal(result.ranked, 0);
  });

  test('an answer that is meant for another prompt is refused', async () => {
    const out = newPath();
    await assert.rejects(labelled('1: 2>1=3\n2:s\n2: 123\n', { out }), {
      name: 'DataError',
      message: 'standard input:3: Expected an answer to prompt 3, received one to 2.',
    });
    assert.deepEqual(
      stepsOf(out).map(({ kind }) => kind),
      ['ranked', 'skipped'],
    );
  });

  test('who leaves does not wait for what is sampled ahead', async () => {
    // Nothing ends these completions early: the four prompts behind the first take as long as it at least, while `q` is
    // there at once.
    const config = makeDecoderConfig({
      vocabSize: tokenizer.vocabSize,
      hiddenSize: 16,
      intermediateSize: 32,
      numLayers: 1,
      numHeads: 2,
      maxPositionEmbeddings: 512,
      initializerRange: 0.2,
    });
    const endless = createModel(config, { seed: 0 });
    let decoded = 0;
    const counting = Object.create(tokenizer, {
      eosTokenId: { value: undefined },
      decode: { value: (ids: readonly number[]) => `${decoded++} ${ids.join(' ')}` },
    }) as Tokenizer;
    const { result } = await labelled('q\n', {
      model: endless,
      tokenizer: counting,
      maxNewTokens: 400,
    });
    endless.dispose();
    assert.deepEqual([result.state, decoded], ['stopped', 3], 'only the first prompt is decoded');
  });

  test('prompts that are too long are left out, and told', async () => {
    const data = [{ prompt: '1'.repeat(60) }, ...PROMPTS];
    const { result, screen } = await labelled('q\n', { data });
    assert.equal(result.prompts, 6);
    assert.match(screen, /^Left out, because too long: 1 prompt\.\n/);
  });

  describe('rejects', () => {
    const wrong: [string, Partial<LabelOptions>, string, RegExp][] = [
      [
        'one completion',
        { completions: 1 },
        'ValueRangeError',
        /^label: expected 2 to 9 completions, received 1\.$/,
      ],
      [
        'ten completions',
        { completions: 10 },
        'ValueRangeError',
        /^label: expected 2 to 9 completions, received 10\.$/,
      ],
      ['half a completion', { completions: 2.5 }, 'ValueRangeError', /received 2\.5\.$/],
      [
        'greedy samples',
        { temperature: 0 },
        'ValueRangeError',
        /^label: expected a temperature above 0, received 0\.$/,
      ],
      [
        'a temperature that is no number',
        { temperature: NaN },
        'ValueRangeError',
        /received NaN\.$/,
      ],
      [
        'rows without prompts',
        { data: [{ text: 'x' }] },
        'DataError',
        /expected prompt-only or prompt-completion rows/,
      ],
      [
        'rows that are judged already',
        { data: [{ prompt: '1', chosen: '2', rejected: '3' }] },
        'DataError',
        /expected prompt-only or prompt-completion rows, received preference rows/,
      ],
      [
        'a column that labelling writes',
        { data: [{ prompt: '1', margin: 2 }] },
        'DataError',
        /without a column "margin"/,
      ],
    ];
    for (const [what, overrides, name, message] of wrong)
      test(what, async () => {
        await assert.rejects(labelled('', overrides), { name, message });
      });
  });
});

describe('label on a terminal', () => {
  test('a person ranks, corrects, asks for help, undoes, and leaves with Ctrl-C', async () => {
    const keyboard = new Keyboard();
    let screen = '';
    const out = newPath();
    const running = labelled('', {
      out,
      input: keyboard,
      screen: { isTTY: true, columns: 40, write: (text: string) => (screen += text) },
    });
    const questions = () => screen.split('s skip · u undo').length - 1;
    await until(() => screen.endsWith('> '));
    keyboard.type('2>9');
    await until(() => screen.endsWith('> 2>9'));
    keyboard.type('\x7f1=3\r');
    await until(() => questions() === 2 && screen.endsWith('> '));
    assert.equal(linesOf(out).length, 2, 'on the disk before the next question');
    keyboard.type('1\r');
    await until(() => screen.includes('rank: expected all of 1 to 3, but "1" lacks 2, 3.'));
    keyboard.type('?');
    await until(() => screen.includes('says that 2 is better than 1'));
    keyboard.type('r');
    await until(() => questions() === 3 && screen.endsWith('> '));
    keyboard.type('u');
    await until(() => questions() === 4 && screen.endsWith('> 2>1=3'));
    assert.equal(linesOf(out).length, 0, 'undone');
    keyboard.type('\r');
    await until(() => questions() === 5 && screen.endsWith('> '));
    keyboard.type('\x03');
    const { result } = await running;
    assert.deepEqual(
      [result.state, result.stoppedBy, result.ranked, result.pairs],
      ['stopped', 'SIGINT', 1, 2],
    );
    assert.deepEqual(keyboard.modes, [true, false], 'the terminal is as it was');
    const [first = [], second = [], again = [], undone = []] = shownOn(screen);
    assert.deepEqual([again, undone], [second, first]);
    assert.deepEqual(
      linesOf(out).map(({ chosen }) => chosen),
      [first[1], first[1]],
    );
  });

  test('q ends while the model still samples ahead, and at the end Enter does', async () => {
    const keyboard = new Keyboard();
    let screen = '';
    const running = labelled('', {
      input: keyboard,
      data: PROMPTS.slice(0, 1),
      screen: { isTTY: true, columns: 40, write: (text: string) => (screen += text) },
    });
    await until(() => screen.endsWith('> '));
    keyboard.type('s');
    await until(() => screen.includes('Every prompt is decided') && screen.endsWith('> '));
    keyboard.type('1\r');
    await until(() => screen.includes('There is no prompt left to answer.\n'));
    keyboard.type('\r');
    assert.equal((await running).result.state, 'finished');

    const other = new Keyboard();
    let shown = '';
    const leaving = labelled('', {
      input: other,
      screen: { isTTY: true, columns: 40, write: (text: string) => (shown += text) },
    });
    await until(() => shown.endsWith('> '));
    other.type('q');
    const { result } = await leaving;
    assert.deepEqual([result.state, result.stoppedBy, result.remaining], ['stopped', undefined, 6]);
  });
});

describe('label of conversations', () => {
  const TEMPLATE =
    '{% for m in messages %}{% if m.role == "user" %}{{ m.content }}={% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}';

  test('prompts stay conversations, and answers are messages of the assistant', async () => {
    const chat = join(root, 'chat');
    await saveSmallModel(chat);
    const path = join(chat, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    writeFileSync(path, JSON.stringify({ ...config, chat_template: TEMPLATE }));
    const withTemplate = await loadTokenizer(chat);
    const prompt = [{ role: 'user', content: '1+2' }];
    const { screen, out } = await labelled('2>1=3\nq\n', {
      data: [{ prompt, level: 3 }],
      modelFolder: chat,
      tokenizer: withTemplate,
      seed: 14,
    });
    assert.match(screen, /\nuser: 1\+2\n/);
    const rows = await readRows(out);
    assert.deepEqual(validateRows(rows, ['preference']), {
      name: 'preference',
      conversational: true,
    });
    const [texts = []] = shownOn(screen);
    const values: Readonly<Record<string, unknown>> = rows[0]?.values ?? {};
    assert.deepEqual(values['prompt'], prompt);
    assert.equal(values['level'], 3);
    assert.deepEqual(values['chosen'], [{ role: 'assistant', content: texts[1] }]);
    const { report } = tokenizePreferences(rows, withTemplate, { maxLength: 32 });
    assert.deepEqual([report.examples, report.comparisons], [2, 1]);
  });
});

/** Only ranked steps have ranks. */
const isRanked = (step: SessionRecord): step is Ranked => step.kind === 'ranked';

describe('the session', () => {
  test('keeps completions, places and ranks of every answer', async () => {
    const { screen, out } = await labelled('3>1=2\nq\n');
    const [step] = stepsOf(out).filter(isRanked);
    assert.ok(step !== undefined, 'one ranked step');
    const places = step.order.map((index) => step.completions[index]?.text);
    assert.deepEqual(places, shownOn(screen)[0]);
    assert.deepEqual(
      step.order.map((index) => step.ranks[index]),
      [2, 2, 1],
    );
    for (const { text, tokens, finishReason, copies } of step.completions) {
      assert.match(text, /^[0-9+=]+$/, 'no special token is shown');
      assert.ok(tokens >= 1 && tokens <= 6, String(tokens));
      assert.ok(finishReason === 'eos' || tokens === 6, finishReason);
      assert.equal(copies, 1);
    }
  });
});
