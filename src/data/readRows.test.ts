import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { ROOT } from '../../test/root.js';
import { byteRecords } from './byteRecords.js';
import { SeededRandom } from './random.js';
import { readRows, storeRows, type ReadingState } from './readRows.js';
import type { Row } from './row.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-rows-'));
let made = 0;

function file(extension: string, content: string | Uint8Array): string {
  const path = join(folder, `${made++}.${extension}`);
  writeFileSync(path, content);
  return path;
}

describe('readRows', () => {
  test('JSONL rows carry their file and line; blank lines, CRLF and a byte-order mark are accepted', async () => {
    const path = file('jsonl', '\ufeff{"a": 1}\r\n\r\n  \n{"a": "é🙂\u2028"}');
    assert.deepEqual(await readRows(path), [
      { values: { a: 1 }, file: path, line: 1 },
      { values: { a: 'é🙂\u2028' }, file: path, line: 4 },
    ]);
  });

  test('JSON lists give each element the line on which it begins', async () => {
    const path = file('json', '\n[{"a": [1, {"b": "]}"}]},\n\n  {"a":\n 2}, {"a": 3}\n]\n');
    assert.deepEqual(
      (await readRows(path)).map((row) => [row.values['a'], row.line]),
      [
        [[1, { b: ']}' }], 2],
        [2, 4],
        [3, 5],
      ],
    );
  });

  test('a .json file with one object per line is read as lines', async () => {
    const path = file('json', '{"a": 1}\n{"a": 2}\n');
    assert.deepEqual(
      (await readRows(path)).map((row) => row.line),
      [1, 2],
    );
  });

  test('several files follow one another', async () => {
    const paths = [file('jsonl', '{"a": 1}'), file('ndjson', '{"a": 2}')];
    assert.deepEqual(
      (await readRows(paths)).map((row) => [row.values['a'], row.file]),
      [
        [1, paths[0]],
        [2, paths[1]],
      ],
    );
  });

  test('CSV: quoted fields hold commas, quotes and line ends; lines are counted through them', async () => {
    const path = file('csv', 'prompt,answer\r\n"a, ""b""\nc",1\n\nd,\n');
    assert.deepEqual(await readRows(path), [
      { values: { prompt: 'a, "b"\nc', answer: '1' }, file: path, line: 2 },
      { values: { prompt: 'd', answer: '' }, file: path, line: 5 },
    ]);
  });

  test('CSV: of one column, an empty field in quotes is a row and a blank line is none', async () => {
    const path = file('csv', 'text\n"a"\n""\n\nb\n');
    assert.deepEqual(
      (await readRows(path)).map((row) => [row.values['text'], row.line]),
      [
        ['a', 2],
        ['', 3],
        ['b', 5],
      ],
    );
  });

  test('CSV: the time of a line does not grow with how far the next quote is', async () => {
    // Looking for it in all of a chunk took more than seven times as long.
    const path = file('csv', `n,text\n${'1,a\n'.repeat(600_000)}`);
    const secondsOf = async (kind: 'lines' | 'csv'): Promise<number> => {
      const start = process.cpuUsage().user;
      let count = 0;
      for await (const { records } of byteRecords(path, kind)) count += records.length;
      assert.equal(count, 600_001);
      return (process.cpuUsage().user - start) / 1e6;
    };
    const [lines, csv] = [await secondsOf('lines'), await secondsOf('csv')];
    assert.ok(csv < 4 * lines, `records of CSV took ${csv} s, lines ${lines} s`);
  });

  describe('rejects', () => {
    const cases: {
      name: string;
      extension: string;
      content: string | Uint8Array;
      message: string; // after the path
    }[] = [
      {
        name: 'a syntax error, with line and column',
        extension: 'jsonl',
        content: '{"a": 1}\n{"a": 1,, "b": 2}\n',
        message: ':2:9: expected a name in double quotes, received ",".',
      },
      {
        name: 'a torn last line',
        extension: 'jsonl',
        content: '{"a": 1}\n{"a": "xy',
        message: ':2:10: expected a closing double quote, received the end of the text.',
      },
      {
        name: 'two objects on one line',
        extension: 'jsonl',
        content: '{"a": 1} {"a": 2}',
        message: ':1:10: expected the end of the text, received "{".',
      },
      {
        name: 'Python spelling of true',
        extension: 'jsonl',
        content: '{"a": True}',
        message: ':1:7: expected a value, received "T".',
      },
      {
        name: 'a row that is not an object',
        extension: 'jsonl',
        content: '{"a": 1}\n[1, 2]\n',
        message: ':2:1: expected an object, received the list [1,2].',
      },
      {
        name: 'a row that is null',
        extension: 'jsonl',
        content: 'null',
        message: ':1:1: expected an object, received null.',
      },
      {
        name: 'a fault inside a JSON list, at its own line',
        extension: 'json',
        content: '[\n {"a": 1},\n {"a": 2}\n {"a": 3}\n]',
        message: ':4:2: expected "," or "]", received "{".',
      },
      {
        name: 'an element of a JSON list that is not an object',
        extension: 'json',
        content: '[{"a": 1},\n  7]',
        message: ':2:3: expected an object, received the number 7.',
      },
      {
        name: 'a JSON file that is neither list nor objects',
        extension: 'json',
        content: '"text"',
        message: ':1:1: expected a list of objects, received the string "text".',
      },
      {
        name: 'an empty file',
        extension: 'jsonl',
        content: '\n \n',
        message: ': expected at least one row, but the file has none.',
      },
      {
        name: 'an empty list',
        extension: 'json',
        content: '[]',
        message: ': expected at least one row, but the file has none.',
      },
      {
        name: 'a CSV file with only a header',
        extension: 'csv',
        content: 'a,b\n',
        message: ': expected at least one row, but the file has none.',
      },
      {
        name: 'bytes that are not UTF-8, with line and column',
        extension: 'jsonl',
        content: Uint8Array.from([...Buffer.from('{"a": 1}\n{"é": "'), 0xff, 0x22]),
        message: ':2:8: expected UTF-8 text, received other bytes.',
      },
      {
        name: 'an unknown extension',
        extension: 'xlsx',
        content: 'PK',
        message:
          ': expected a file that ends in .jsonl, .json, .csv (each perhaps with .gz) or .parquet, received .xlsx.',
      },
      {
        name: 'a CSV record with too few fields',
        extension: 'csv',
        content: 'a,b\n1,2\n3\n',
        message: ':3:1: expected 2 fields like the header, received 1.',
      },
      {
        name: 'a CSV quote inside a field',
        extension: 'csv',
        content: 'a,b\n1,x"y"\n',
        message: ':2:4: expected quotes only around a whole field, received "\\"".',
      },
      {
        name: 'text after a closing CSV quote',
        extension: 'csv',
        content: 'a,b\n"1"x,2\n',
        message:
          ':2:4: expected a comma or the end of the line after a closing double quote, received "x".',
      },
      {
        name: 'a CSV quote that is never closed',
        extension: 'csv',
        content: 'a\n"x\ny',
        message: ':3:2: expected a closing double quote, received the end of the file.',
      },
      {
        name: 'a bare carriage return in CSV',
        extension: 'csv',
        content: 'a\nx\ry',
        message: ':2:2: expected a line feed after a carriage return, received "\\r".',
      },
      {
        name: 'a CSV header that names a column twice',
        extension: 'csv',
        content: 'a,a\n1,2\n',
        message: ':1:1: expected every column once, but "a" occurs twice in the header.',
      },
    ];
    for (const { name, extension, content, message } of cases) {
      test(name, async () => {
        const path = file(extension, content);
        await assert.rejects(readRows(path), { code: 'E_DATA', message: `${path}${message}` });
      });
    }

    test('a missing file and a folder without data', async () => {
      await assert.rejects(readRows('no/such.jsonl'), {
        code: 'E_IO',
        message: 'no/such.jsonl: expected a data file, but there is no such file.',
      });
      const named = join(folder, 'folder.jsonl');
      mkdirSync(named);
      await assert.rejects(readRows(named), {
        code: 'E_DATA',
        message: `${named}: expected data files (.jsonl, .json, .csv (each perhaps with .gz) or .parquet), but the folder has none.`,
      });
    });

    test('lists nested too deeply to find their lines', async () => {
      const path = file('json', `[{"a": ${'['.repeat(600)}${']'.repeat(600)}}]`);
      await assert.rejects(readRows(path), {
        code: 'E_DATA',
        message: /expected at most 500 nested lists and objects, received "\["\.$/,
      });
    });
  });
});

describe('storeRows', () => {
  const lines = Array.from({ length: 300 }, (_, n) => `{"n": ${n}, "é": "${'x'.repeat(n % 7)}"}`);
  const csv = `n,text\r\n${Array.from({ length: 50 }, (_, n) => `${n},"a\n${n}"\r\n`).join('')}`;

  test('rows read again are those that were scanned, in any order, of any kind', async () => {
    const paths = [
      file('jsonl', `\uFEFF${lines.join('\r\n\n')}`),
      file('csv', csv),
      join(ROOT, 'test/golden/data/snappy.parquet'),
    ];
    const all = await readRows(paths);
    const stored = await storeRows(paths);
    assert.equal(stored.rowCount, 390);
    assert.equal(all.length, 390);
    const order = [...new SeededRandom(4).permutation(390), 7, 7];
    assert.deepEqual(
      await stored.read(order),
      order.map((index) => all[index]),
    );
    const scanned: Row[] = [];
    for await (const row of stored.scan()) scanned.push(row);
    assert.deepEqual(scanned, all);
    assert.deepEqual([all[0]?.source, all[300]?.source, all[350]?.source], [undefined, 1, 2]);
  });
  test('what holds more than a chunk is read whole', async () => {
    const long = 'y'.repeat(1_500_000);
    const path = file('jsonl', `{"a": 1}\n{"a": "${long}"}\n{"a": "\u{1F642}${long}"}\n{"a": 4}`);
    const stored = await storeRows(path);
    const [third, second] = await stored.read([2, 1]);
    assert.equal(third?.values['a'], `\u{1F642}${long}`);
    assert.equal(third?.line, 3);
    assert.equal(second?.values['a'], long);
  });
  test('a record of CSV goes on over the end of a chunk, quotes and line ends included', async () => {
    const long = `"\n,${'y\n'.repeat(700_000)}`;
    const quoted = `"${long.replaceAll('"', '""')}"`;
    const path = file('csv', `n,text\n1,${quoted}\n2,"b\nc"\n3,${quoted}\n4,d\n`);
    const rows = await readRows(path);
    assert.deepEqual(
      rows.map(({ values, line }) => [values['n'], String(values['text']).length, line]),
      [
        ['1', long.length, 2],
        ['2', 3, 700_004],
        ['3', long.length, 700_006],
        ['4', 1, 1_400_008],
      ],
    );
    const [third] = await (await storeRows(path)).read([2]);
    assert.equal(third?.values['text'], long);
  });
  test('a JSON list, whose rows cannot be found again, and a file that was changed are refused', async () => {
    const list = file('json', '[{"a": 1}]');
    await assert.rejects(storeRows(list), {
      code: 'E_DATA',
      message: `${list}: expected .jsonl, .csv or .parquet, because streaming is on, received a JSON list.`,
    });
    const path = file('jsonl', '{"a": 1}\n{"a": 2}');
    const stored = await storeRows(path);
    writeFileSync(path, '{"a": 1}\n{"a": 3, "b": 1}');
    await assert.rejects(stored.read([1]), {
      code: 'E_DATA',
      message: `${path}: expected the file that was read before, but it was changed.`,
    });
  });
  test('a Parquet file that was changed is refused, whether its rows are kept or not', async () => {
    const path = file('parquet', readFileSync(join(ROOT, 'test/golden/data/snappy.parquet')));
    const stored = await storeRows(path);
    await stored.read([3]);
    utimesSync(path, new Date(), new Date(Date.now() + 5000));
    const refusal = {
      code: 'E_DATA',
      message: `${path}: expected the file that was read before, but it was changed.`,
    };
    await assert.rejects(stored.read([3]), refusal);
    await assert.rejects(stored.read([30]), refusal);
    await assert.rejects(stored.scan().next(), refusal);
  });
  test('a text that was changed between two scans is refused', async () => {
    const path = file('jsonl', '{"a": 1}\n');
    const stored = await storeRows(path);
    writeFileSync(path, '{"a": 1, "b": 2}\n');
    await assert.rejects(stored.scan().next(), { code: 'E_DATA', message: /it was changed\.$/ });
  });
  test('it is told how far the reading is, in rows and bytes of all files', async () => {
    const paths = [
      file('jsonl', `{"a": "${'y'.repeat(2_500_000)}"}\n{"a": 1}\n`),
      join(ROOT, 'test/golden/data/snappy.parquet'),
    ];
    const totalBytes = paths.reduce((sum, path) => sum + statSync(path).size, 0);
    const told: ReadingState[] = [];
    const stored = await storeRows(paths, {}, (state) => told.push(state));
    assert.deepEqual(told.at(-1), { rows: stored.rowCount, bytes: totalBytes, totalBytes });
    assert.ok(told.length > 4, 'once per megabyte and row group');
    told.forEach(({ bytes, rows }, index) => {
      const before = told[index - 1] ?? { bytes: 0, rows: 0 };
      assert.ok(bytes >= before.bytes && rows >= before.rows, 'it never goes back');
      assert.ok(bytes <= totalBytes, 'never more than there is');
    });
    assert.equal(told[0]?.bytes, 2 ** 20);
  });
});

describe('compressed files', () => {
  const packed = (extension: string, content: string): string =>
    file(`${extension}.gz`, gzipSync(content));

  test('lines, lists and CSV are read as without gzip', async () => {
    const text = `{"a": "${'y'.repeat(1_200_000)}"}\n{"a": "é"}\n`;
    for (const [extension, content] of [
      ['jsonl', text],
      ['ndjson', text],
      ['json', text],
      ['json', '[{"a": 1},\n {"a": "é"}]'],
      ['csv', 'a,b\n1,"x\ny"\n'],
    ] as const) {
      const valuesOf = async (path: string) =>
        (await readRows(path)).map(({ values, line }) => ({ values, line }));
      assert.deepEqual(
        await valuesOf(packed(extension, content)),
        await valuesOf(file(extension, content)),
      );
    }
  });
  test('they are found in folders by their split', async () => {
    const at = join(folder, 'packed');
    mkdirSync(at);
    writeFileSync(join(at, 'train.jsonl.gz'), gzipSync('{"a": 1}\n{"a": 2}'));
    writeFileSync(join(at, 'test.jsonl.gz'), gzipSync('{"a": 3}'));
    assert.equal((await readRows(at)).length, 2);
    assert.deepEqual((await readRows(at, { split: 'test' }))[0]?.values, { a: 3 });
  });
  test('a compressed file whose name does not say so is told its name', async () => {
    const path = file('jsonl', gzipSync('{"a": 1}'));
    await assert.rejects(readRows(path), {
      code: 'E_DATA',
      message: `${path}:1:2: expected UTF-8 text, received other bytes.`,
      hint: `It is compressed by gzip: name it ${basename(path)}.gz.`,
    });
  });
  test('what is damaged, incomplete or no gzip is named, and so is another kind of file', async () => {
    const whole = gzipSync(JSON.stringify({ a: 'some text' }));
    for (const [bytes, reason] of [
      [whole.subarray(0, -9), 'unexpected end of file'],
      [Buffer.from('{"a": 1}\n'), 'incorrect header check'],
    ] as const) {
      const path = file('jsonl.gz', bytes);
      await assert.rejects(readRows(path), {
        code: 'E_DATA',
        message: `${path}: expected a gzip file, but ${reason}.`,
      });
    }
    const other = file('parquet.gz', whole);
    await assert.rejects(readRows(other), { code: 'E_DATA', message: /received \.gz\.$/ });
  });
  test('they are not streamed: a row is not found without all before it', async () => {
    const path = packed('jsonl', '{"a": 1}');
    await assert.rejects(storeRows(path), {
      code: 'E_DATA',
      message: `${path}: expected .jsonl, .csv or .parquet, because streaming is on, received a compressed file.`,
    });
  });
});

describe('slices of a split', () => {
  const names = async (paths: string | string[], split: string): Promise<unknown[]> => {
    const rows = await readRows(paths, { split });
    const stored = await storeRows(paths, { split });
    assert.deepEqual(await stored.read(rows.map((_, index) => index)), rows);
    assert.equal(stored.rowCount, rows.length);
    return rows.map(({ values }) => values['n']);
  };
  const made = (): string => {
    const at = mkdtempSync(join(folder, 'slices-'));
    const lines = (from: number, to: number): string =>
      Array.from({ length: to - from }, (_, n) => `{"n": ${from + n}}\n`).join('');
    writeFileSync(join(at, 'train-0.jsonl'), lines(0, 6));
    writeFileSync(join(at, 'train-1.jsonl'), lines(6, 10));
    return at;
  };

  test('rows and percent of all files of the split together, of each path', async () => {
    const at = made();
    assert.deepEqual(await names(at, 'train[:2]'), [0, 1]);
    assert.deepEqual(await names(at, 'train[5:8]'), [5, 6, 7]);
    assert.deepEqual(await names(at, 'train[-3:]'), [7, 8, 9]);
    assert.deepEqual(await names(at, 'train[10%:30%]'), [1, 2]);
    assert.deepEqual(await names([at, made()], 'train[:1]'), [0, 0]);
    assert.equal((await names(at, 'train[:]')).length, 10);
    assert.equal((await names(at, 'train[:5000]')).length, 10);
  });
  test('what is behind the slice is not read', async () => {
    const at = made();
    writeFileSync(join(at, 'train-1.jsonl'), 'no JSON');
    assert.deepEqual(await names(at, 'train[4:6]'), [4, 5]);
    await assert.rejects(readRows(at, { split: 'train[4:7]' }), { code: 'E_DATA' });
  });
  test('a slice of a file, which has no splits, is refused with what was asked for', async () => {
    const file = join(made(), 'train-0.jsonl');
    await assert.rejects(readRows(file, { split: 'train[:10]' }), {
      code: 'E_CONFIG',
      message: `${file}: expected the folder of a data set, because split is "train[:10]", received a file.`,
      hint: 'Leave split out, or give the folder.',
    });
  });
  test('an empty slice is refused', async () => {
    const at = made();
    for (const [split, reason] of [
      ['train[3:3]', 'it is an empty slice'],
      ['train[10:]', 'there are 10 in all'],
      ['train[:0%]', 'it is an empty slice'],
    ] as const) {
      await assert.rejects(readRows(at, { split }), {
        code: 'E_DATA',
        message: `${at}: expected rows in ${split}, but ${reason}.`,
      });
    }
  });
});
