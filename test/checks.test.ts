import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { put } from './setup/fakes.js';
import { loadScript, temporaryFolder } from './setup/scripts.js';

interface ExportsScript {
  readonly undocumentedExports: (text: string) => { line: number; name: string }[];
}
interface DocumentsScript {
  readonly codeBlocks: (document: string, text: string) => CodeBlock[];
  readonly brokenLinks: (root: string, document: string, text: string) => string[];
}
interface CodeBlock {
  readonly document: string;
  readonly line: number;
  readonly code: string;
  readonly run: boolean;
}
type TestKind = 'unit' | 'learns' | 'browser';
interface TestFilesScript {
  readonly findTests: (
    root: string,
    options: { kind: TestKind; filters: readonly string[] },
  ) => string[];
  readonly runTestFiles: (
    root: string,
    sources: readonly string[],
    options: {
      concurrency: number;
      timeoutSeconds: number;
      env: NodeJS.ProcessEnv;
      print: (text: string) => void;
    },
  ) => Promise<{ passed: number; failed: number; skipped: number }>;
}

const { undocumentedExports } = await loadScript<ExportsScript>('checks/exports.mjs');
const { codeBlocks, brokenLinks } = await loadScript<DocumentsScript>('checks/documents.mjs');
const { findTests, runTestFiles } = await loadScript<TestFilesScript>('checks/testFiles.mjs');

const folder = temporaryFolder();

describe('undocumentedExports', () => {
  const names = (text: string) => undocumentedExports(text).map(({ name }) => name);

  test('names every kind of export that has no doc comment', () => {
    const kinds = [
      'function a() {}',
      'async function b() {}',
      'class c {}',
      'abstract class d {}',
      'const e = 1;',
      'interface f {}',
      'type g = 1;',
      'function* h() {}',
    ];
    assert.deepEqual(
      names(kinds.map((kind) => `export ${kind}\n`).join('\n')),
      'abcdefgh'.split(''),
    );
  });
  test('gives the line', () => {
    assert.deepEqual(undocumentedExports('\n\nexport const a = 1;\n'), [{ line: 3, name: 'a' }]);
  });
  test('accepts a doc comment of one line and of many', () => {
    assert.deepEqual(
      names('/** A. */\nexport const a = 1;\n/**\n * B.\n */\nexport const b = 1;\n'),
      [],
    );
  });
  test('accepts no other comment, and none that is apart', () => {
    assert.deepEqual(names('// A.\nexport const a = 1;\n'), ['a']);
    assert.deepEqual(names('/* A. */\nexport const a = 1;\n'), ['a']);
    assert.deepEqual(names('/** A. */\n\nexport const a = 1;\n'), ['a']);
  });
  test('lets overloads and a type of the same name share a comment', () => {
    const text =
      '/** A. */\nexport function a(x: 1): 1;\nexport function a(x: 2): 2;\nexport type a = 1;\n';
    assert.deepEqual(names(text), []);
  });
  test('leaves re-exports alone', () => {
    assert.deepEqual(
      names("export { a } from './a.js';\nexport * from './b.js';\nexport type { C };\n"),
      [],
    );
  });
});

describe('codeBlocks', () => {
  const text = [
    '# Title',
    '```sh',
    'npm test',
    '```',
    '<!-- run -->',
    '',
    '```ts',
    "import 'posttrain';",
    '```',
    '  ```ts',
    '  const a = 1;',
    '    const b = 2;',
    '  ```',
    '````markdown',
    '```ts',
    'not code of this document',
    '```',
    '````',
  ].join('\n');

  test('finds the blocks of TypeScript with their lines and whether they run', () => {
    assert.deepEqual(codeBlocks('README.md', text), [
      { document: 'README.md', line: 8, code: "import 'posttrain';", run: true },
      { document: 'README.md', line: 11, code: 'const a = 1;\n  const b = 2;', run: false },
    ]);
  });
});

describe('brokenLinks', () => {
  const root = join(folder, 'links');
  put(join(root, 'docs/a.md'), '# One two\n\n## `code`, and More!\n');
  const broken = (text: string) => brokenLinks(root, 'README.md', text);

  test('accepts files, folders, headings and addresses', () => {
    const targets = [
      'docs/a.md',
      'docs',
      'docs/a.md#one-two',
      'docs/a.md#code-and-more',
      'https://x.y/z',
    ];
    assert.deepEqual(broken(targets.map((target) => `[x](${target})`).join(' ')), []);
  });
  test('names a file and a heading that is not there', () => {
    assert.deepEqual(broken('[x](docs/b.md) ![y](docs/a.md#three)'), [
      'README.md: the link docs/b.md leads to no file',
      'README.md: the link docs/a.md#three leads to no heading',
    ]);
  });
  test('ignores what stands in code', () => {
    assert.deepEqual(broken('`[x](nowhere)`\n\n```ts\na[0](nowhere);\n```\n'), []);
  });
});

describe('the runner of tests', () => {
  const root = join(folder, 'tests');
  put(join(root, 'package.json'), '{ "type": "module" }');
  const head = "import assert from 'node:assert'; import { describe, test } from 'node:test';\n";
  const file = (name: string, text: string) => put(join(root, 'dist', name), head + text);

  /** Runs one file with this text. */
  async function run(name: string, text: string, timeoutSeconds = 60) {
    file(name, text);
    const printed: string[] = [];
    const print = (line: string) => printed.push(line);
    const options = { concurrency: 1, timeoutSeconds, env: process.env, print };
    const counts = await runTestFiles(root, [name.replace(/js$/, 'ts')], options);
    return { counts, printed: printed.join('\n') };
  }

  test('finds compiled tests by parts of their source path, those that need more apart', () => {
    mkdirSync(root, { recursive: true });
    const other = join(folder, 'found');
    const names = ['src/a.test', 'src/b.learns.test', 'src/d.browser.test', 'test/c.test', 'src/a'];
    for (const name of names) put(join(other, 'dist', `${name}.js`), '');
    const find = (kind: TestKind, ...filters: string[]) => findTests(other, { kind, filters });
    assert.deepEqual(find('unit'), ['src/a.test.ts', 'test/c.test.ts']);
    assert.deepEqual(find('learns'), ['src/b.learns.test.ts']);
    assert.deepEqual(find('browser'), ['src/d.browser.test.ts']);
    assert.deepEqual(find('unit', './test/c.test.ts'), ['test/c.test.ts']);
    assert.deepEqual(find('unit', 'nothing'), []);
  });
  test('counts tests and subtests, not groups, and names the failures with their groups', async () => {
    const { counts, printed } = await run(
      'counts.test.js',
      `describe('group', () => { test('good', () => {}); test('bad', () => assert.equal(1, 2)); });
       test('parent', async (t) => { await t.test('child', () => { throw new TypeError('no'); }); });`,
    );
    assert.deepEqual(counts, { passed: 1, failed: 2, skipped: 0 });
    assert.match(printed, /^FAIL counts\.test\.ts {2}1 passed, 2 failed/);
    assert.match(printed, /✖ group > bad\n.*AssertionError/);
    assert.match(printed, /✖ parent > child\n.*TypeError: no/);
  });
  test('counts what is skipped as neither', async () => {
    const { counts } = await run(
      'skipped.test.js',
      "test('a', { skip: 'for a reason' }, () => {}); test('b', () => {});",
    );
    assert.deepEqual(counts, { passed: 1, failed: 0, skipped: 1 });
  });
  const deaths: [string, string, RegExp][] = [
    [
      'crashes',
      "process.kill(process.pid, 'SIGSEGV'); await new Promise((r) => setTimeout(r, 5000));",
      /ended by a signal/,
    ],
    ['exits', 'process.exit(0);', /ended before its tests|ended with exit code/],
    ['exits with an error', 'process.exit(3);', /ended with exit code 3/],
    ['hangs', 'await new Promise((r) => setTimeout(r, 60000));', /did not end within 2 s/],
  ];
  for (const [what, code, message] of deaths) {
    test(`counts a process that ${what} within a test as a failure`, async () => {
      const { counts, printed } = await run(
        'death.test.js',
        `test('first', () => {}); test('x', async () => { ${code} });`,
        // On a busy machine a process may need longer than that to come as far as its end.
        what === 'hangs' ? 2 : 60,
      );
      assert.ok(counts.passed <= 1);
      assert.ok(counts.failed > 0);
      assert.match(printed, message);
    });
  }
  test('counts an error after the last test, with its words', async () => {
    const { counts, printed } = await run(
      'late.test.js',
      "test('a', () => {}); setTimeout(() => { throw new RangeError('late'); }, 20);",
    );
    assert.deepEqual(counts, { passed: 1, failed: 1, skipped: 0 });
    assert.match(printed, /late/);
  });
  test('counts a file without a test, and one that does not load', async () => {
    assert.equal((await run('empty.test.js', '')).counts.failed, 1);
    const { counts, printed } = await run('broken.test.js', "import 'no-such-package';");
    assert.deepEqual(counts, { passed: 0, failed: 1, skipped: 0 });
    assert.match(printed, /no-such-package/);
  });
});
