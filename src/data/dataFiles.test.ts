import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { findDataFiles } from './dataFiles.js';
import { hasPattern, matchesPattern, patternDepth, patternRoot } from './filePattern.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-files-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;

/** A folder with files, which are empty unless their text is given. */
function folderOf(files: readonly string[], texts: Readonly<Record<string, string>> = {}): string {
  const folder = join(root, String(count++));
  for (const name of [...files, ...Object.keys(texts)]) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), texts[name] ?? '');
  }
  return folder;
}

/** What is found, relative to the folder. */
async function found(
  folder: string,
  selection: { split?: string; subset?: string } = {},
): Promise<string[]> {
  const files = await findDataFiles(folder, selection);
  return files.map((file) => file.slice(folder.length + 1));
}

describe('findDataFiles', () => {
  const hub = ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet'];
  test('the split is what the files say, wherever they say it', async () => {
    const folder = folderOf([
      ...hub,
      'data/test-00000-of-00001.parquet',
      'notes.txt',
      '.git/a.json',
    ]);
    assert.deepEqual(await found(folder), hub);
    assert.deepEqual(await found(folder, { split: 'test' }), ['data/test-00000-of-00001.parquet']);
    const named = folderOf([
      'my_dev.csv',
      'training/b.jsonl',
      'training/a.jsonl',
      'eval/test.json',
    ]);
    assert.deepEqual(await found(named), ['training/a.jsonl', 'training/b.jsonl']);
    assert.deepEqual(await found(named, { split: 'validation' }), ['my_dev.csv']);
    assert.deepEqual(await found(named, { split: 'test' }), ['eval/test.json']);
  });
  test('a link to a folder above is not followed: its rows would come again and again', async () => {
    const folder = folderOf(['a.jsonl', 'sub/b.jsonl']);
    symlinkSync('.', join(folder, 'again'));
    symlinkSync('..', join(folder, 'sub/up'));
    symlinkSync('sub', join(folder, 'other'));
    assert.deepEqual(await found(folder), ['a.jsonl', 'other/b.jsonl', 'sub/b.jsonl']);
  });
  test('the last part of a path that names a split counts', async () => {
    const folder = folderOf(['train/dev.jsonl', 'test/a_train.jsonl']);
    assert.deepEqual(await found(folder), ['test/a_train.jsonl']);
    assert.deepEqual(await found(folder, { split: 'validation' }), ['train/dev.jsonl']);
  });
  test('files that name no split are for training; words within words are none', async () => {
    const folder = folderOf(['contest.jsonl', 'b.csv']);
    assert.deepEqual(await found(folder), ['b.csv', 'contest.jsonl']);
  });
  test('a split that is not there is refused with those that are', async () => {
    const folder = folderOf(hub);
    await assert.rejects(found(folder, { split: 'test' }), {
      code: 'E_DATA',
      message: `${folder}: expected a split "test", but it has "train".`,
    });
  });
  test('subsets that are folders are chosen by name', async () => {
    const folder = folderOf(['main/train.jsonl', 'main/test.jsonl', 'socratic/train.jsonl']);
    assert.deepEqual(await found(folder, { subset: 'main' }), ['main/train.jsonl']);
    assert.deepEqual(await found(folder, { subset: 'main', split: 'test' }), ['main/test.jsonl']);
    await assert.rejects(found(folder), {
      code: 'E_DATA',
      message: `${folder}: expected the name of a subset, but it has "main", "socratic".`,
    });
    await assert.rejects(found(folder, { subset: 'other' }), {
      code: 'E_DATA',
      message: `${folder}: expected a subset "other", but it has "main", "socratic".`,
    });
  });
  test('README.md says which files make a configuration', async () => {
    const readme = [
      '---\nlicense: mit\nconfigs:',
      '- config_name: small\n  data_files: "small/*.jsonl"',
      '- config_name: large\n  default: true\n  data_files:',
      '  - split: train\n    path:\n    - large/a.jsonl\n    - large/**/b.jsonl',
      '  - split: heldout\n    path: "large/c*"\n---\n# Data\n',
    ].join('\n');
    const files = ['small/x.jsonl', 'large/a.jsonl', 'large/deep/er/b.jsonl', 'large/c1.jsonl'];
    const folder = folderOf(files, { 'README.md': readme });
    assert.deepEqual(await found(folder, { subset: 'small' }), ['small/x.jsonl']);
    assert.deepEqual(await found(folder), ['large/a.jsonl', 'large/deep/er/b.jsonl']);
    assert.deepEqual(await found(folder, { split: 'heldout' }), ['large/c1.jsonl']);
    await assert.rejects(found(folder, { subset: 'huge' }), {
      message: `${folder}: expected a subset "huge", but it has "small", "large".`,
    });
  });
  test('a README.md that is wrong is refused with its line, one without configurations is not', async () => {
    const broken = folderOf(['train.jsonl'], { 'README.md': '---\na: 1\nconfigs: [\n---\n' });
    await assert.rejects(found(broken), {
      message: /README\.md:\d: expected YAML between the lines ---, but /,
    });
    const incomplete = folderOf(['train.jsonl'], {
      'README.md': '---\nconfigs:\n- config_name: a\n---\n',
    });
    await assert.rejects(found(incomplete), {
      message: `${join(incomplete, 'README.md')}: expected every entry of configs to have a config_name and data_files, received {"config_name":"a"}.`,
    });
    const lost = folderOf(['a.jsonl'], {
      'README.md': '---\nconfigs:\n- config_name: a\n  data_files: "b*"\n---\n',
    });
    await assert.rejects(found(lost), {
      message: `${lost}: expected files "b*" of subset "a", as README.md says, but there are none.`,
    });
    const plain = folderOf(['train.jsonl'], { 'README.md': '---\nlicense: mit\n---\n' });
    assert.deepEqual(await found(plain), ['train.jsonl']);
  });
  test('a pattern means the files that match, in order; none is an error', async () => {
    const folder = folderOf(['b.jsonl', 'a.jsonl', 'deep/c.jsonl', 'd.csv', 'e.txt']);
    assert.deepEqual(await found(`${folder}/*.jsonl`).then((names) => names.length), 2);
    assert.deepEqual(await findDataFiles(`${folder}/**/*.{jsonl,csv}`, {}), [
      join(folder, 'a.jsonl'),
      join(folder, 'b.jsonl'),
      join(folder, 'd.csv'),
      join(folder, 'deep/c.jsonl'),
    ]);
    await assert.rejects(findDataFiles(`${folder}/x*.jsonl`, {}), {
      code: 'E_IO',
      message: `${folder}/x*.jsonl: expected data files that match, but there are none.`,
    });
    await assert.rejects(findDataFiles(`${folder}/no/*.jsonl`, {}), { code: 'E_IO' });
  });
  test('a split is asked of a folder only', async () => {
    const file = join(folderOf(['a.jsonl']), 'a.jsonl');
    assert.deepEqual(await findDataFiles(file, {}), [file]);
    await assert.rejects(findDataFiles(file, { split: 'test' }), {
      code: 'E_CONFIG',
      message: `${file}: expected the folder of a data set, because split is "test", received a file.`,
    });
    assert.deepEqual(await findDataFiles('no/such.jsonl', {}), ['no/such.jsonl']);
  });
});

describe('patternDepth', () => {
  const cases: readonly [pattern: string, depth: number][] = [
    ['*.jsonl', 0],
    ['data/*.jsonl', 0],
    ['/a/b*/c/*.csv', 2],
    ['{a,b/c}/x.jsonl', 2],
    ['a/**/x.jsonl', Infinity],
  ];
  for (const [pattern, depth] of cases) {
    test(`${pattern} goes ${depth} folders down`, () => {
      assert.equal(patternDepth(pattern), depth);
    });
  }
  test('a pattern does not look into folders that it cannot mean', async () => {
    const folder = folderOf(['a.jsonl', 'b/c.jsonl', 'b/d/e.jsonl', 'f/d/g.jsonl']);
    const matching = async (pattern: string): Promise<string[]> =>
      (await findDataFiles(join(folder, pattern), {})).map((file) => file.slice(folder.length + 1));
    assert.deepEqual(await matching('*.jsonl'), ['a.jsonl']);
    assert.deepEqual(await matching('*/*.jsonl'), ['b/c.jsonl']);
    assert.deepEqual(await matching('*/d/*.jsonl'), ['b/d/e.jsonl', 'f/d/g.jsonl']);
    assert.deepEqual(await matching('{a,b/d/e}.jsonl'), ['a.jsonl', 'b/d/e.jsonl']);
  });
});

describe('matchesPattern', () => {
  for (const [pattern, path, expected] of [
    ['a/*.jsonl', 'a/b.jsonl', true],
    ['a/*.jsonl', 'a/b/c.jsonl', false],
    ['a/*.jsonl', 'a/bxjsonl', false],
    ['a/**', 'a/b/c.jsonl', true],
    ['**/c.jsonl', 'c.jsonl', true],
    ['a/**/c.jsonl', 'a/x/y/c.jsonl', true],
    ['a/**/c.jsonl', 'a/xc.jsonl', false],
    ['?.csv', 'é.csv', true],
    ['?.csv', '/.csv', false],
    ['x[0-2].csv', 'x1.csv', true],
    ['x[0-2].csv', 'x3.csv', false],
    ['x[!0-2].csv', 'x3.csv', true],
    ['x[!0-2].csv', 'x1.csv', false],
    ['{a,b}.{csv,json}', 'b.csv', true],
    ['{a,b}.{csv,json}', 'c.csv', false],
    ['a,b+(1).csv', 'a,b+(1).csv', true],
    ['./a*.csv', 'ab.csv', true],
  ] as const) {
    test(`${pattern} ${expected ? 'means' : 'does not mean'} ${path}`, () => {
      assert.equal(matchesPattern(path, pattern), expected);
    });
  }
  test('what is no pattern is refused', () => {
    for (const pattern of ['x{a,b.csv', 'x[z-a].csv']) {
      assert.throws(() => matchesPattern('x.csv', pattern), {
        code: 'E_CONFIG',
        message: `${pattern}: expected a pattern of file names, received another text.`,
      });
    }
  });
  test('a pattern begins in the folder before its first sign', () => {
    assert.deepEqual(['a/b/*.csv', '*.csv', '/*/x.csv', '/a/{b,c}/d.csv'].map(patternRoot), [
      'a/b',
      '.',
      '/',
      '/a',
    ]);
    assert.deepEqual(['a/b.csv', 'a*', 'a?', 'a[b]', '{a}'].map(hasPattern), [
      false,
      ...[true, true, true, true],
    ]);
  });
});
