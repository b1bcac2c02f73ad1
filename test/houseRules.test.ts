import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from './root.js';

const MAX_LINES = 600;
const MAX_TRAINER_LINES = 300;

interface Source {
  readonly path: string;
  readonly lines: readonly string[];
}

function sourcesBelow(folder: string, wanted: RegExp): Source[] {
  let names: string[] = [];
  try {
    names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return names
    .map((name) => `${folder}/${name.replaceAll('\\', '/')}`)
    .filter((path) => wanted.test(path) && !path.endsWith('.generated.ts'))
    .map((path) => ({ path, lines: readFileSync(join(ROOT, path), 'utf8').split('\n') }));
}

/** `path:line: text` of every line that matches. */
function linesLike(sources: readonly Source[], pattern: RegExp): string[] {
  return sources.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) =>
      pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [],
    ),
  );
}

const typescript = ['src', 'ui', 'test', 'bench', 'examples', 'tools'].flatMap((folder) =>
  sourcesBelow(folder, /\.tsx?$/),
);
const product = typescript.filter(
  ({ path }) => /^(src|ui)\//.test(path) && !path.endsWith('.test.ts'),
);
const tests = typescript.filter(({ path }) => path.endsWith('.test.ts'));
const everything = [
  ...typescript,
  ...sourcesBelow('scripts', /\.mjs$/),
  ...sourcesBelow('native', /\.(cpp|h)$/),
  ...sourcesBelow('tools', /\.py$/),
];

// The words are put together here so that this file does not match itself.
const ANY = /(:|<|\bas|\|)\s*any\b(?!\w)/;
const PLAIN_ERROR = new RegExp('\\b(throw|reject\\() ?new (Range|Type)?' + 'Error\\(');
const IGNORED_TYPES = new RegExp(
  '@ts-' + '(ignore|nocheck|expect-error)|oxlint-' + 'disable(?!-next-line)',
);
const OPEN_WORK = new RegExp('\\b(TO' + 'DO|FIX' + 'ME|XX' + 'X|HA' + 'CK)\\b(?!.*#\\d+)');
const CHANGED_TEST = new RegExp(
  '\\b(test|it|describe|suite)\\.' +
    '(only|skip|todo)\\(|\\b(only|todo): ' +
    'true|\\bskip: ' +
    'true',
);

describe('house rules', () => {
  test(`no source file is longer than ${MAX_LINES} lines, no trainer longer than ${MAX_TRAINER_LINES}`, () => {
    const limit = (path: string) =>
      /^src\/trainers\/.*Trainer\.ts$/.test(path) ? MAX_TRAINER_LINES : MAX_LINES;
    const long = product
      .filter(({ path, lines }) => lines.length - 1 > limit(path))
      .map(({ path, lines }) => `${path}: ${lines.length - 1} lines`);
    assert.deepEqual(long, []);
  });
  test('src/ and ui/ throw only the classes of src/errors', () => {
    assert.deepEqual(linesLike(product, PLAIN_ERROR), []);
  });
  test('src/ and ui/ have no `any`', () => {
    const code = product.map(({ path, lines }) => ({
      path,
      lines: lines.map((line) => line.replace(/^\s*(\*|\/\*|\/\/).*|\/\/ .*|'[^']*'/g, '')),
    }));
    assert.deepEqual(linesLike(code, ANY), []);
  });
  test('no type error and no lint rule is silenced for a whole file', () => {
    // A generator has the words in the text that it writes.
    const written = typescript.filter(({ path }) => !path.startsWith('tools/generate'));
    assert.deepEqual(linesLike(written, IGNORED_TYPES), []);
  });
  test('open work names its issue', () => {
    assert.deepEqual(linesLike(everything, OPEN_WORK), []);
  });
  test('no test is skipped, left for later or run alone', () => {
    assert.deepEqual(linesLike(tests, CHANGED_TEST), []);
  });
});

describe('the patterns of the house rules', () => {
  test('find what they look for', () => {
    assert.match('const x = y as any;', ANY);
    assert.match('function f(x: any) {', ANY);
    assert.match('Promise<any>', ANY);
    assert.match('  throw new Er' + "ror('x')", PLAIN_ERROR);
    assert.match('throw new Type' + "Error('x')", PLAIN_ERROR);
    assert.match('// TO' + 'DO later', OPEN_WORK);
    assert.match('test.on' + "ly('x', f)", CHANGED_TEST);
    assert.match('// @ts-' + 'ignore', IGNORED_TYPES);
  });
  test('leave the rest alone', () => {
    assert.doesNotMatch('const anyOf: anything = x;', ANY);
    assert.doesNotMatch("throw new ShapeError('x')", PLAIN_ERROR);
    assert.doesNotMatch('// TO' + 'DO(#12): later', OPEN_WORK);
    assert.doesNotMatch("test('only', f)", CHANGED_TEST);
  });
});
