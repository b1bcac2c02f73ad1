import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  applyOverrides,
  GrpoConfig,
  METHOD_CONFIGS,
  grpoPreset,
  overPreset,
  parseConfig,
  PpoConfig,
  readConfigFile,
  SftConfig,
} from '../config/index.js';
import { LADDER } from './dapoLadder.js';
import { METHODS } from './methods.js';
import { exampleConfig, examplePath, packageRoot } from './packageFiles.js';
import { STALE_METHODS } from './staleness.js';

const files = readdirSync(join(packageRoot(), 'examples'), { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.yaml'))
  .sort();

describe('the committed settings', () => {
  test('there is a file for every method that is compared, and no other', () => {
    assert.deepEqual(
      files.filter((path) => path.startsWith('methods/')),
      METHODS.map((name) => `methods/${name}.yaml`).sort(),
    );
  });

  for (const file of files) {
    test(`${file} is short, says its command, task and expected outcome, and parses`, async () => {
      const lines = readFileSync(examplePath(file), 'utf8').split('\n');
      assert.ok(lines.length < 100);
      const header = lines.filter((line) => line.startsWith('#')).join('\n');
      assert.match(header, /^# +npx posttrain (reproduce|train) [a-z-]+/m);
      assert.match(header, /^# Task: /m);
      assert.match(header, /^# Expected: /m);
      const source = await readConfigFile(examplePath(file));
      const [, method = ''] = /^methods\/(.+)\.yaml$/.exec(file) ?? [];
      // Files named after a method hold its settings.
      const own = Object.entries(METHOD_CONFIGS).find(([name]) =>
        [
          ...[`${name}.yaml`, `${name}/${name}.yaml`],
          ...[`preferences/${name}.yaml`, `prm-vs-orm/${name}.yaml`],
        ].includes(file),
      );
      if (file.endsWith('sft.yaml')) parseConfig(SftConfig, source);
      else if (own) parseConfig(own[1], source);
      else if (file === 'preferences/overoptimisation.yaml') parseConfig(PpoConfig, source);
      else if (method === 'ppo') parseConfig(PpoConfig, source);
      else parseConfig(GrpoConfig, method === '' ? source : overPreset(grpoPreset(method), source));
    });
  }

  test('every rung of the ladder and every method of staleness parses on its file', async () => {
    const added: string[] = [];
    for (const [, adds] of LADDER) {
      added.push(...adds);
      parseConfig(GrpoConfig, await exampleConfig('dapo-ladder/grpo.yaml', added));
    }
    const stale = await exampleConfig('staleness/grpo.yaml');
    for (const settings of Object.values(STALE_METHODS)) {
      parseConfig(GrpoConfig, applyOverrides(stale, settings));
    }
  });
});
