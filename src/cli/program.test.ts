import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { ROOT } from '../../test/root.js';
import { NumericsError, ValueRangeError } from '../errors/index.js';
import { examine } from './examine.js';
import { buildProgram, describeError } from './program.js';
import type { Command } from 'commander';

/** Every command with its full name. */
function commandsOf(command: Command, name = 'posttrain'): [string, Command][] {
  return [
    [name, command],
    ...command.commands.flatMap((sub) => commandsOf(sub, `${name} ${sub.name()}`)),
  ];
}

describe('the command line', () => {
  const program = buildProgram({ io: capture().io, setExitCode: () => undefined });

  for (const [name] of commandsOf(program)) {
    test(`${name} --help prints its use with an example and exits with 0`, async () => {
      const { run } = capture();
      const { code, out, err } = await run([...name.split(' ').slice(1), '--help']);
      assert.equal(code, 0);
      assert.ok(out.startsWith(`Usage: ${name}`), out);
      assert.match(out, /\nExamples?:\n {2}\$ posttrain /);
      assert.equal(err, '');
    });
  }

  test('no command at all is a wrong call that shows the help', async () => {
    const { code, out, err } = await capture().run([]);
    assert.equal(code, 2);
    assert.equal(out, '');
    assert.match(err, /^Usage: posttrain/);
  });

  test('--version prints that of the package', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      version: string;
    };
    const { code, out } = await capture().run(['--version']);
    assert.deepEqual([code, out], [0, `${version}\n`]);
  });

  const wrong: [string[], RegExp][] = [
    [['trian'], /^unknown command 'trian'\n\(Did you mean train\?\)/],
    [['train', 'grop'], /^unknown command 'grop'\n\(Did you mean grpo\?\)/],
    [['train', 'grpo', '--modle', 'x'], /^unknown option '--modle'\n\(Did you mean --model\?\)/],
    [['generate'], /^required option '--model <model>' not specified/],
    [
      ['generate', '--model', 'x', '--seed', '-1'],
      /argument '-1' is invalid\. Expected an integer/,
    ],
    [['train', 'sft', '--model', 'x'], /^train: expected --out, the folder of the run\./],
    [['train', 'sft', '--out', '/nowhere/x'], /^train: expected --model and --data\./],
    [['config', 'gpro'], /received "gpro"\. Did you mean grpo\?/],
    [['dashboard', 'runs', '--port', '65536'], /Expected a port from 0 to 65535/],
    [['init', '--out', '/nowhere/x'], /^init: expected either --text or --characters\./],
  ];
  for (const [argv, message] of wrong) {
    test(`posttrain ${argv.join(' ')} is a wrong call`, async () => {
      const { code, out, err } = await capture().run(argv);
      assert.match(err, message);
      assert.deepEqual([code, out], [2, '']);
    });
  }
});

describe('starting', () => {
  test('loads neither tensors nor models before a command runs', () => {
    const main = join(ROOT, 'src/cli/main.ts');
    const reached = new Set<string>();
    const visit = (file: string): void => {
      if (reached.has(file)) return;
      reached.add(file);
      const text = readFileSync(file, 'utf8');
      for (const [statement, target] of text.matchAll(
        /^(?:import|export)[^'";]*?from '(\.[^']+)'/gms,
      )) {
        if (/^(import|export) type /.test(statement) || target === undefined) continue;
        visit(join(dirname(file), target.replace(/\.js$/, '.ts')));
      }
    };
    visit(main);
    const layers = new Set([...reached].map((file) => file.split('/src/')[1]?.split('/')[0] ?? ''));
    assert.deepEqual(layers, new Set(['cli', 'config', 'errors']));
  });
});

describe('errors', () => {
  const cause = new ValueRangeError('a cause');
  const error = new NumericsError('the loss is NaN.', { hint: 'Lower it.', cause });

  test('show message and hint, and no stack', () => {
    assert.equal(describeError(error, false), 'the loss is NaN.\nLower it.');
  });
  test('show stack and causes with --verbose', () => {
    const text = describeError(error, true);
    assert.match(text, /NumericsError: the loss is NaN\.\n {4}at .*program\.test/);
    assert.match(text, /Caused by: ValueRangeError: a cause\n {4}at /);
  });
  test('a bug says that it is one', () => {
    assert.equal(
      describeError(new TypeError('x is not a function'), false),
      'Unexpected error: x is not a function\nRun it with --verbose to see where it happened.',
    );
  });
  test('--verbose is heard before and after the command', async () => {
    for (const argv of [
      ['--verbose', 'data', '/nowhere.jsonl'],
      ['data', '/nowhere.jsonl', '--verbose'],
    ]) {
      const { code, err } = await capture().run(argv);
      assert.equal(code, 1);
      assert.match(err, /^\/nowhere\.jsonl: expected a data file, but there is no such file\./);
      assert.match(err, /\n {4}at /);
    }
    assert.doesNotMatch((await capture().run(['data', '/nowhere.jsonl'])).err, /\n {4}at /);
  });
});

describe('reproduce', () => {
  test('what it does not know is a wrong call, before anything is made', async () => {
    for (const [argv, message] of [
      [['reproduce', 'everything'], /expected one of methods, dapo-ladder, maj-pass/],
      [
        ['reproduce', 'methods', '--methods', 'ppo,sarsa'],
        /expected some of ppo,.*received "sarsa"/,
      ],
      [['reproduce', 'scst', '--methods', 'ppo'], /--methods: expected the claim methods/],
      [
        ['reproduce', 'scst', '--seeds', '1,x'],
        /--seeds: expected different integers of at least 0/,
      ],
      [['reproduce', 'scst', '--seeds', ''], /--seeds: expected .*, received ""/],
      [['reproduce', 'scst', '--seeds', '1,1'], /--seeds: expected .*, received "1,1"/],
    ] as const) {
      const { code, err } = await capture().run([...argv]);
      assert.match(err, message);
      assert.equal(code, 2);
    }
  });
});

describe('config', () => {
  test('a preset shows what it sets, from which sentence, and what differs', async () => {
    for (const argv of [
      ['config', 'dapo'],
      ['config', 'grpo', '--preset', 'dapo'],
    ]) {
      const { code, out } = await capture().run(argv);
      assert.equal(code, 0);
      assert.match(out, /^clip\.high = 0\.28 {2}\(default 0\.2\)\n.*\n {4}Source: §4\.1/m);
      assert.match(out, /What differs from the paper:/);
      assert.doesNotMatch(out, /^adamBeta1/m);
    }
    const { code, err } = await capture().run(['config', 'ppo', '--preset', 'dapo']);
    assert.deepEqual([code, /expected grpo or rejection with --preset/.test(err)], [2, true]);
  });

  test('lists every setting for people and as JSON', async () => {
    const { code, out } = await capture().run(['config', 'grpo']);
    assert.equal(code, 0);
    assert.match(
      out,
      /^groupSize = 8 {2}\(integer ≥ 1\)\n {4}G: completions .*\n {4}Default: TRL/m,
    );
    const { out: json } = await capture().run(['config', 'grpo', '--json']);
    const { method, settings } = JSON.parse(json) as {
      method: string;
      settings: { key: string }[];
    };
    assert.equal(method, 'grpo');
    assert.equal(json.trimEnd().split('\n').length, 1);
    for (const { key } of settings) assert.ok(out.includes(`${key} = `), key);
  });
});

describe('doctor', () => {
  test('tells what was found and exits with 0 where posttrain can be used', async () => {
    const { code, out } = await capture().run(['doctor', '--json']);
    const { isUsable, checks } = JSON.parse(out) as Awaited<ReturnType<typeof examine>>;
    assert.deepEqual([code, isUsable], [0, true]);
    const names = [
      ...['Node', 'compiler', 'libtorch', 'addon', 'devices', 'threads', 'memory', 'disk'],
      ...['Hub cache', 'Hub token'],
    ];
    assert.deepEqual(
      checks.map(({ name }) => name),
      names,
    );
    const { out: text } = await capture().run(['doctor']);
    assert.match(text, /^ok {2}addon +loads and computes; libtorch \d/m);
    assert.match(text, /posttrain can be used here\.\n$/);
  });
  test('says what to do where nothing was set up', async () => {
    const { checks } = await examine('/nowhere');
    const libtorch = checks.find(({ name }) => name === 'libtorch');
    assert.equal(libtorch?.isFine, false);
    assert.match(libtorch?.advice ?? '', /npx posttrain setup/);
  });
});
