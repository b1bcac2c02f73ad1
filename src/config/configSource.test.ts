import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ConfigError, IoError } from '../errors/index.js';
import {
  applyOverrides,
  configFromObject,
  GrpoConfig,
  parseConfig,
  readConfigFile,
} from './index.js';

const folder = mkdtempSync(join(tmpdir(), 'posttrain-config-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function overridden(values: Record<string, unknown>, sets: readonly string[]): unknown {
  return applyOverrides(configFromObject(values, 'x'), sets).values;
}

describe('applyOverrides', () => {
  test('reads values as YAML does', () => {
    assert.deepEqual(
      overridden({}, ['a=1', 'b=1e-6', 'c=true', 'd=null', 'e=text', 'f=[1, 2]', 'g="1"', 'h=a=b']),
      { a: 1, b: 1e-6, c: true, d: null, e: 'text', f: [1, 2], g: '1', h: 'a=b' },
    );
  });
  test('reaches into nested settings and leaves their neighbours', () => {
    assert.deepEqual(overridden({ clip: { low: 0.1 } }, ['clip.high=0.28', 'r.exact-match=2']), {
      clip: { low: 0.1, high: 0.28 },
      r: { 'exact-match': 2 },
    });
  });
  test('later overrides win', () => {
    assert.deepEqual(overridden({ a: 0 }, ['a=1', 'a=2']), { a: 2 });
  });
  test('does not change what it is given', () => {
    const values = { clip: { low: 0.1 } };
    overridden(values, ['clip.low=0.2']);
    assert.deepEqual(values, { clip: { low: 0.1 } });
  });
  for (const text of ['groupSize', '=3', 'a..b=1', 'a=', ' = ', '__proto__.x=1', 'a b=1']) {
    test(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(
        () => overridden({}, [text]),
        (error: unknown) =>
          error instanceof ConfigError &&
          error.message ===
            `--set: expected key=value, such as clip.high=0.28, received ${JSON.stringify(text)}.`,
      );
    });
  }
  test('refuses a value that is not YAML and a path through a value', () => {
    assert.throws(() => overridden({}, ['a=[1']), /--set a: expected a value as in YAML/);
    assert.throws(
      () => overridden({ clip: 0.2 }, ['clip.high=1']),
      /expected clip to hold settings, but it is 0\.2/,
    );
  });
});

describe('readConfigFile', () => {
  test('reads YAML and JSON, tabs included; an empty file sets nothing', async () => {
    const yaml = file('a.yaml', '# ours\ngroupSize: 4\nclip:\n  high: 0.28\n');
    assert.deepEqual((await readConfigFile(yaml)).values, { groupSize: 4, clip: { high: 0.28 } });
    const json = file('a.json', '{\n\t"groupSize": 4,\n\t"clip": {"high": 0.28}\n}\n');
    assert.deepEqual((await readConfigFile(json)).values, { groupSize: 4, clip: { high: 0.28 } });
    assert.deepEqual((await readConfigFile(file('empty.yaml', '# none\n'))).values, {});
  });

  test('a fault names file, line and column of the setting; --set names itself', async () => {
    const path = file('b.yaml', 'steps: 10\nclip:\n  low: 0.2\n  hihg: 0.3\ngroupSize: 0\n');
    const source = applyOverrides(await readConfigFile(path), ['clip.low=9', 'clip.low=-2']);
    assert.throws(
      () => parseConfig(GrpoConfig, source),
      (error: unknown) =>
        error instanceof ConfigError &&
        error.message ===
          `Invalid GRPO settings:
  ${path}:5:1: groupSize: expected an integer of at least 1, received 0.
  --set clip.low=-2: clip.low: expected a number above 0, received -2.
  ${path}:4:3: there is no setting clip.hihg. Did you mean clip.high?`,
    );
  });

  test('--set wins over the file', async () => {
    const source = await readConfigFile(file('c.yaml', 'groupSize: 4\nseed: 1\n'));
    const config = parseConfig(GrpoConfig, applyOverrides(source, ['groupSize=16']));
    assert.deepEqual([config.groupSize, config.seed], [16, 1]);
  });

  test('refuses what is not YAML, with its place', async () => {
    const path = file('d.yaml', 'groupSize: 4\n  steps: [1\n');
    await assert.rejects(readConfigFile(path), (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.message, new RegExp(`^${path}:\\d+:\\d+: expected YAML, but `));
      return true;
    });
  });
  test('refuses a setting that is written twice', async () => {
    const path = file('e.yaml', 'seed: 1\nseed: 2\n');
    await assert.rejects(readConfigFile(path), /e\.yaml:2:1: expected YAML, but map keys must be/);
  });
  test('refuses a list and a missing file', async () => {
    await assert.rejects(
      readConfigFile(file('f.yaml', '- a\n')),
      /f\.yaml:1:1: expected names with values, received \["a"\]\./,
    );
    await assert.rejects(readConfigFile(join(folder, 'none.yaml')), (error: unknown) => {
      assert.ok(error instanceof IoError);
      assert.match(error.message, /none\.yaml: expected a file of settings, but there is no such/);
      return true;
    });
  });
});
