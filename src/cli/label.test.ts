import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { capture } from '../../test/cli/capture.js';
import { Keyboard, until } from '../../test/cli/terminal.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';
import { main } from './program.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-label-cli-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);

before(async () => {
  await saveSmallModel(at('model'));
  const prompts = ['1+1=', '2+3=', '40+2=', '9=', '8+8=', '7+1='];
  const lines = prompts.map((prompt) => `${JSON.stringify({ prompt, level: 1 })}\n`);
  writeFileSync(at('prompts.jsonl'), lines.join(''));
});

/** The command; with seed 11 all completions of these prompts differ. */
const label = (out: string, ...more: string[]): string[] => [
  ...['label', '--model', at('model'), '--data', at('prompts.jsonl'), '--out', at(out)],
  ...['--completions', '3', '--max-new-tokens', '6', '--seed', '11', ...more],
];

const rowsOf = (name: string): Record<string, unknown>[] =>
  readFileSync(at(name), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('label with answers from a pipe', () => {
  test('writes preferences that data accepts, and sums up on standard output', async () => {
    const { code, out, err } = await capture('2>1=3\ns\n123\n').run(label('a.jsonl'));
    assert.equal(code, 0, err);
    assert.equal(
      out,
      `6 prompts: 2 judged, 1 skipped, 3 left.\nPreferences: ${at('a.jsonl')} (5 pairs)\nGo on: add --resume to the same command.\n`,
    );
    assert.match(err, /── 1 of 6 · .*prompts\.jsonl:1 ─/);
    const report = await capture().run(['data', at('a.jsonl')]);
    assert.equal(report.code, 0, report.err);
    assert.match(report.out, /^5 rows, preference, no faults\n/);
    assert.deepEqual(new Set(rowsOf('a.jsonl').map(({ level }) => level)), new Set([1]));
  });

  test('--resume goes on, to the end; --json is one line', async () => {
    const { code, out, err } = await capture('u\n321\n1=2=3\n2\n').run(
      label('b.jsonl', '--mode', 'rank'),
    );
    assert.deepEqual([code, out], [1, ''], 'there is nothing to undo');
    assert.match(err, /standard input:1: There is nothing to undo\./);
    const first = await capture('321\n1=2=3\n').run(label('b.jsonl', '--resume', '--json'));
    assert.equal(first.code, 0, first.err);
    const last = await capture('123\n132\n213\ns\n').run(
      label('b.jsonl', '--resume', '--json', '--labeler', 'ben'),
    );
    assert.equal(last.out.trimEnd().split('\n').length, 1);
    assert.deepEqual(JSON.parse(last.out), {
      state: 'finished',
      prompts: 6,
      ranked: 5,
      skipped: 1,
      alike: 0,
      remaining: 0,
      pairs: 12,
      out: at('b.jsonl'),
      session: at('b.session.jsonl'),
    });
    const labelers = rowsOf('b.jsonl').map(
      ({ provenance }) => (provenance as { labeler: unknown }).labeler,
    );
    assert.deepEqual([labelers[0], labelers.at(-1)], [null, 'ben']);
    const finished = await capture('').run(label('b.jsonl', '--resume'));
    assert.equal(
      finished.out,
      `6 prompts: 5 judged, 1 skipped.\nPreferences: ${at('b.jsonl')} (12 pairs)\n`,
    );
  });

  test('a session goes on with nothing but its file: model, prompts and numbers are as they were', async () => {
    const started = await capture('2>1=3\nq\n').run(label('own.jsonl', '--dtype', 'float64'));
    assert.equal(started.code, 0, started.err);
    const resume = ['label', '--out', at('own.jsonl'), '--resume'];
    const { code, out, err } = await capture('3>2>1\nq\n').run(resume);
    assert.equal(code, 0, err);
    assert.match(out, /^6 prompts: 2 judged, 0 skipped, 4 left\.\n/);
    const other = await capture('q\n').run([...resume, '--dtype', 'float32']);
    assert.equal(other.code, 1);
    assert.match(other.err, /expected --dtype float64, as the session was started with/);
    // As sessions of before were: without the files of their prompts.
    const session = at('own.session.jsonl');
    const lines = readFileSync(session, 'utf8').split('\n');
    const header = JSON.parse(lines[0] ?? '') as { settings: Record<string, unknown> };
    delete header.settings['data'];
    writeFileSync(session, [JSON.stringify(header), ...lines.slice(1)].join('\n'));
    const old = await capture('q\n').run(resume);
    assert.equal(old.code, 2);
    assert.match(old.err, /^label: expected --model and --data\./);
    assert.equal(
      (await capture('q\n').run(label('own.jsonl', '--resume', '--dtype', 'float64'))).code,
      0,
    );
  });

  test('what cannot be is refused before anything is written', async () => {
    const wrong: [string[], number, RegExp][] = [
      [['label'], 2, /^required option '--out <file>' not specified/],
      [['label', '--out', at('c.jsonl')], 2, /^label: expected --model and --data\./],
      [label('c.jsonl', '--mode', 'guess'), 2, /Allowed choices are rank, choose\./],
      [
        label('c.jsonl', '--completions', '1'),
        1,
        /^label: expected 2 to 9 completions, received 1\./,
      ],
      [label('c.jsonl', '--temperature', '0'), 1, /^label: expected a temperature above 0/],
      [label('c.jsonl', '--resume'), 1, /^Resuming: expected a session in .*c\.session\.jsonl/],
      [
        label('a.jsonl'),
        1,
        /^label: expected a new file for --out, but .*a\.jsonl is there already/,
      ],
    ];
    for (const [argv, code, message] of wrong) {
      const result = await capture('s\n').run(argv);
      assert.match(result.err, message);
      assert.deepEqual([result.code, result.out], [code, '']);
    }
    assert.equal(existsSync(at('c.jsonl')), false);
    assert.equal(existsSync(at('c.session.jsonl')), false);
  });
});

describe('label on a terminal', () => {
  test('Ctrl-C saves and exits with 130', async () => {
    const stdin = new Keyboard();
    let err = '';
    let out = '';
    const stderr = { isTTY: true, columns: 100, write: (text: string) => (err += text) };
    const io = { ...capture().io, out: (text: string) => (out += text), stderr, stdin };
    const code = main(label('d.jsonl'), io);
    await until(() => err.endsWith('> '));
    stdin.type('3>2=1\r');
    await until(() => err.includes('── 2 of 6') && err.endsWith('> '));
    stdin.type('\x03');
    assert.equal(await code, 130, err);
    assert.match(out, /^6 prompts: 1 judged, 0 skipped, 5 left\.\n/);
    assert.deepEqual(stdin.modes, [true, false]);
    assert.equal(rowsOf('d.jsonl').length, 2);
  });
  test('what is to be judged must be seen', async () => {
    const { io } = capture();
    let err = '';
    const stderr = { write: (text: string) => (err += text) };
    const code = await main(label('e.jsonl'), { ...io, stderr, stdin: new Keyboard() });
    assert.equal(code, 2);
    assert.match(
      err,
      /^label: expected standard error to be a terminal, received a file or pipe\./,
    );
  });
});

describe('label in a process of its own', () => {
  const program = fileURLToPath(new URL(`./main${import.meta.url.slice(-3)}`, import.meta.url));
  const flags = process.execArgv.filter((flag) => !flag.startsWith('--test'));

  /** Answers two prompts, kills the process while the third is open, and tells how it ended. */
  async function killed(name: string, signal: NodeJS.Signals) {
    const child = spawn(process.execPath, [...flags, program, ...label(name)], { stdio: 'pipe' });
    let err = '';
    let out = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    const ended = new Promise<{ code: number | null; by: NodeJS.Signals | null }>((resolve) =>
      child.on('close', (code, by) => resolve({ code, by })),
    );
    child.stdin.write('2>1=3\n321\n');
    await until(() => err.includes('── 3 of 6') || child.exitCode !== null);
    child.kill(signal);
    return { ...(await ended), out, err };
  }

  for (const [signal, expected] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)
    test(`${signal} loses no answer and exits with ${expected}`, async () => {
      const { code, out, err } = await killed(`${signal}.jsonl`, signal);
      assert.equal(code, expected, err);
      assert.match(out, /^6 prompts: 2 judged, 0 skipped, 4 left\.\n/);
      assert.equal(rowsOf(`${signal}.jsonl`).length, 5);
      const resumed = await capture('u\n123\nq\n').run(label(`${signal}.jsonl`, '--resume'));
      assert.equal(resumed.code, 0, resumed.err);
      assert.match(resumed.out, /^6 prompts: 2 judged/);
    });

  test('a process that is killed without a warning loses no answer either', async () => {
    const { by } = await killed('killed.jsonl', 'SIGKILL');
    assert.equal(by, 'SIGKILL');
    assert.equal(rowsOf('killed.jsonl').length, 5, 'even the preferences are whole');
    const resumed = await capture('q\n').run(label('killed.jsonl', '--resume'));
    assert.match(resumed.out, /^6 prompts: 2 judged, 0 skipped, 4 left\.\n/);
  });
});
