import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { capture } from '../../test/cli/capture.js';
import { ROOT } from '../../test/root.js';
import { saveSmallModel } from '../../test/runs/smallModel.js';

const root = mkdtempSync(join(tmpdir(), 'posttrain-bad-data-'));
after(() => rmSync(root, { recursive: true }));
const model = join(root, 'model');
const { HF_HUB_OFFLINE: offline, HF_HOME: home } = process.env;
before(async () => {
  await saveSmallModel(model);
  Object.assign(process.env, { HF_HUB_OFFLINE: '1', HF_HOME: join(root, 'home') });
});
after(() => {
  delete process.env['HF_HUB_OFFLINE'];
  delete process.env['HF_HOME'];
  Object.assign(process.env, {
    ...(offline !== undefined && { HF_HUB_OFFLINE: offline }),
    ...(home !== undefined && { HF_HOME: home }),
  });
});

const parquet = readFileSync(join(ROOT, 'test/golden/data/plain.parquet'));
const lyingParquet = (): Uint8Array => {
  const footer = parquet.subarray(parquet.length - 8 - parquet.readUInt32LE(parquet.length - 8));
  return Buffer.concat([Buffer.from('PAR1'), footer]);
};
const good = '{"prompt": "1+1=", "completion": "2"}\n';

/** Something wrong with data: files, what is given as --data, and the message without the folder's name. */
interface BadData {
  readonly claim: string;
  readonly files: Readonly<Record<string, string | Uint8Array>>;
  readonly data: string;
  readonly more?: readonly string[];
  readonly message: RegExp;
}

const CASES: readonly BadData[] = [
  {
    claim: 'a file that is not there',
    files: {},
    data: 'no.jsonl',
    message: /^no\.jsonl: expected a data file, but there is no such file\.\nGive the path/,
  },
  {
    claim: 'a file of another kind',
    files: { 'a.xlsx': 'PK' },
    data: 'a.xlsx',
    message: /^a\.xlsx: expected a file that ends in .*, received \.xlsx\.\n/,
  },
  {
    claim: 'an empty file',
    files: { 'a.jsonl': '' },
    data: 'a.jsonl',
    message: /^a\.jsonl: expected at least one row, but the file has none\.\n/,
  },
  {
    claim: 'a line that is cut',
    files: { 'a.jsonl': `${good}{"prompt": "1+` },
    data: 'a.jsonl',
    message: /^a\.jsonl:2:15: expected a closing double quote, received the end of the text\.\n/,
  },
  {
    claim: 'a comma too many',
    files: { 'a.jsonl': '{"prompt": "1",}\n' },
    data: 'a.jsonl',
    message: /^a\.jsonl:1:16: expected a name in double quotes, received "}"\.\n/,
  },
  {
    claim: 'single quotes, as Python prints them',
    files: { 'a.jsonl': "{'prompt': '1'}\n" },
    data: 'a.jsonl',
    message: /^a\.jsonl:1:2: expected a name in double quotes, received "'"\.\n/,
  },
  {
    claim: 'NaN, which JSON does not have',
    files: { 'a.jsonl': '{"prompt": NaN}\n' },
    data: 'a.jsonl',
    message: /^a\.jsonl:1:12: expected a value, received "N"\.\n/,
  },
  {
    claim: 'a list that is cut',
    files: { 'a.json': '[\n{"prompt": "1"},\n{"prompt": "2"}' },
    data: 'a.json',
    message: /^a\.json:3:16: expected "," or "\]", received the end of the text\.\n/,
  },
  {
    claim: 'a list of texts',
    files: { 'a.json': '["1+1=", "2+2="]' },
    data: 'a.json',
    message: /^a\.json:1:2: expected an object, received the string "1\+1="\.\n/,
  },
  {
    claim: 'bytes that are not UTF-8',
    files: { 'a.jsonl': Buffer.from([...Buffer.from('{"prompt": "1'), 0xe9, 0x22, 0x7d]) },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:1:14: expected UTF-8 text, received other bytes\.\nSave the file as UTF-8\.\n/,
  },
  {
    claim: 'UTF-16, as some editors save it',
    files: { 'a.jsonl': Buffer.from(`\uFEFF${good}`, 'utf16le') },
    data: 'a.jsonl',
    message: /^a\.jsonl:1:1: expected UTF-8 text, received other bytes\.\n/,
  },
  {
    claim: 'a NUL in JSON',
    files: { 'a.jsonl': '{"prompt": "1\u0000"}\n' },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:1:14: expected an escape .* instead of a control character, received "\\u0000"\.\n/,
  },
  {
    claim: 'half of an emoji',
    files: {
      'a.jsonl': `${good}{"prompt": "\\\\ud83d \\ud83d\\ude00", "completion": "1\\ud83d"}\n`,
    },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:2:52: expected both halves of a character, received one, \\ud83d\.\nThe text was cut /,
  },
  {
    claim: 'lists within lists without end',
    files: { 'a.jsonl': `{"prompt": "1", "x": ${'['.repeat(1e5)}${']'.repeat(1e5)}}\n` },
    data: 'a.jsonl',
    message: /^a\.jsonl:1:522: expected at most 500 nested lists and objects, received "\["\.\n/,
  },
  {
    claim: 'a NUL in CSV',
    files: { 'a.csv': 'prompt,completion\n1+1=,\u00002\n' },
    data: 'a.csv',
    message: /^a\.csv:2:6: expected text, received a NUL character\.\n/,
  },
  {
    claim: 'a byte-order mark in the middle',
    files: { 'a.jsonl': `\uFEFF${good}\uFEFF${good}` },
    data: 'a.jsonl',
    message: /^a\.jsonl:2:1: expected a value, received "\uFEFF"\.\n/,
  },
  {
    claim: 'ragged rows of CSV',
    files: { 'a.csv': 'prompt,completion\n1+1=,2\n2+2=,4,5\n' },
    data: 'a.csv',
    message: /^a\.csv:3:1: expected 2 fields like the header, received 3\.\n/,
  },
  {
    claim: 'a quote of CSV that is not closed',
    files: { 'a.csv': 'prompt,completion\n"1+1=,2\n2+2=,4\n' },
    data: 'a.csv',
    message: /^a\.csv:4:1: expected a closing double quote, received the end of the file\.\n/,
  },
  {
    claim: 'a column twice in CSV',
    files: { 'a.csv': 'prompt,prompt\n1,2\n' },
    data: 'a.csv',
    message: /^a\.csv:1:1: expected every column once, but "prompt" occurs twice in the header\.\n/,
  },
  {
    claim: 'semicolons in the place of commas',
    files: { 'a.csv': 'prompt;completion\n1+1=;2\n' },
    data: 'a.csv',
    message: /^a\.csv:2: expected the columns of a known format, received "prompt;completion"\.\n/,
  },
  {
    claim: 'a Parquet file that is cut',
    files: { 'a.parquet': parquet.subarray(0, 5000) },
    data: 'a.parquet',
    message: /^a\.parquet: expected a Parquet file, but it cannot be read: .*footer != PAR1.*\n/,
  },
  {
    claim: 'a Parquet file whose footer lies',
    files: { 'a.parquet': lyingParquet() },
    data: 'a.parquet',
    message:
      /^a\.parquet: expected a column up to byte \d+ as the file's footer says, received a file of \d+ bytes\.\n/,
  },
  {
    claim: 'a Git LFS pointer in the place of a Parquet file',
    files: { 'a.parquet': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' },
    data: 'a.parquet',
    message: /^a\.parquet: expected a Parquet file, but it cannot be read: /,
  },
  {
    claim: 'a column of another type',
    files: { 'a.jsonl': `${good}{"prompt": "2+2=", "completion": 4}\n` },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:2: expected column "completion" to be a string .*, received the number 4\.\n/,
  },
  {
    claim: 'a column that is missing',
    files: { 'a.jsonl': `${good}{"prompt": "2+2="}\n` },
    data: 'a.jsonl',
    message: /^a\.jsonl:2: expected column "completion", received only "prompt"\.\n/,
  },
  {
    claim: 'conversations among plain rows',
    files: {
      'a.jsonl': `${good}{"prompt": [{"role": "user", "content": "1"}], "completion": [{"role": "assistant", "content": "2"}]}\n`,
    },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:2: expected column "prompt" to be a string as in the first row, received the list /,
  },
  {
    claim: 'messages without a role',
    files: { 'a.jsonl': '{"messages": [{"author": "human", "text": "1"}]}\n' },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:1: expected column "messages" to be a list of messages with a "role" and a "content", received /,
  },
  {
    claim: 'columns of no format',
    files: { 'a.jsonl': '{"question": "1", "answer": "2"}\n' },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:1: expected the columns of a known format, received "question", "answer"\.\n/,
  },
  {
    claim: 'rows of another method',
    files: { 'a.jsonl': '{"prompt": "1", "chosen": "2", "rejected": "3"}\n' },
    data: 'a.jsonl',
    message:
      /^a\.jsonl:1: expected language-modeling or prompt-completion rows, received preference rows/,
  },
  {
    claim: 'a folder without data',
    files: { 'folder/notes.txt': 'x' },
    data: 'folder',
    message: /^folder: expected data files .*, but the folder has none\.\n/,
  },
  {
    claim: 'a split that a folder does not have',
    files: { 'folder/train.jsonl': good },
    data: 'folder',
    more: ['--split', 'dev'],
    message: /^folder: expected a split "dev", but it has "train"\.\nChoose one: --split train\.\n/,
  },
  {
    claim: 'a split of a file',
    files: { 'a.jsonl': good },
    data: 'a.jsonl',
    more: ['--split', 'train'],
    message:
      /^a\.jsonl: expected the folder of a data set, because split is "train", received a file\.\n/,
  },
  {
    claim: 'a folder of several subsets',
    files: { 'folder/main/train.jsonl': good, 'folder/other/train.jsonl': good },
    data: 'folder',
    message:
      /^folder: expected the name of a subset, but it has "main", "other"\.\nChoose one: --data-config main\.\n/,
  },
  {
    claim: 'a README whose YAML is broken',
    files: { 'folder/train.jsonl': good, 'folder/README.md': '---\nconfigs: [\n---\n' },
    data: 'folder',
    message: /^folder\/README\.md:\d: expected YAML between the lines ---, but /,
  },
  {
    claim: 'a pattern that matches nothing',
    files: { 'a.jsonl': good },
    data: 'b*.jsonl',
    message: /^b\*\.jsonl: expected data files that match, but there are none\.\n/,
  },
  {
    claim: 'a name of the Hub, without a connection',
    files: {},
    data: 'org/name',
    message: /^org\/name: expected .*HF_HUB_OFFLINE/,
  },
  {
    claim: 'text that the tokenizer cannot write',
    files: { 'a.jsonl': '{"prompt": "x", "completion": "2"}\n' },
    data: 'a.jsonl',
    message: /^a\.jsonl:1: .*no token for "x"/,
  },
];

/** Everything below a folder. */
const contents = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();

describe('data that cannot be used', () => {
  for (const [index, { claim, files, data, more = [], message }] of CASES.entries()) {
    test(`${claim}: one message, exit code 1, nothing written`, async () => {
      const folder = join(root, `case${index}`);
      mkdirSync(folder);
      for (const [name, content] of Object.entries(files)) {
        mkdirSync(dirname(join(folder, name)), { recursive: true });
        writeFileSync(join(folder, name), content);
      }
      const isHub = data === 'org/name';
      const before = contents(root);
      const { code, out, err } = await capture().run([
        ...['train', 'sft', '--model', model, '--data', isHub ? data : join(folder, data)],
        ...['--out', join(folder, 'run'), ...more],
      ]);
      assert.equal(code, 1, err);
      assert.equal(out, '');
      const told = err.replace(/^maxLength is .*\n/, '').replaceAll(`${folder}/`, '');
      assert.match(told, message);
      assert.ok(told.split('\n').length <= 4, `more than a message and a hint: ${told}`);
      assert.doesNotMatch(told, /Unexpected error| {4}at /);
      assert.deepEqual(contents(root), before);
    });
  }
});
