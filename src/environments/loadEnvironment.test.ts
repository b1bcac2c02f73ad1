import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { BUILTIN_ENVIRONMENTS, calculatorEnvironment, loadEnvironment } from './index.js';

/** A fresh folder with one environment file. */
function folderWith(name: string, content: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-environment-'));
  writeFileSync(join(folder, name), content);
  return folder;
}

/** The observation of a file's environment for a turn. */
async function observe(name: string, content: string): Promise<string> {
  const environment = await loadEnvironment(`./${name}`, { cwd: folderWith(name, content) });
  const state = await environment.reset({ prompt: 'p', row: { answer: '2' } });
  const step = await environment.step(state, { text: 'hi', index: 0, finishReason: 'stop' });
  return step.observation;
}

const PARTS = `
  name: 'echo', stop: ['.'],
  reset: ({ prompt }) => prompt,
  step: (state, { text }) => ({ state, observation: state + text, done: false }),`;

describe('loadEnvironment', () => {
  test('a built-in one by its name, each of them named in the help', async () => {
    assert.equal(await loadEnvironment('calculator'), calculatorEnvironment);
    for (const name of Object.keys(BUILTIN_ENVIRONMENTS)) {
      assert.equal((await loadEnvironment(name)).name, name);
    }
  });

  test('the default export of a TypeScript file that imports posttrain/environments', async () => {
    const text = `
      import { calculatorEnvironment, type Environment } from 'posttrain/environments';
      const mine: Environment<string> = {
        name: 'mine',
        stop: calculatorEnvironment.stop,
        reset: ({ prompt }) => prompt,
        step: (state, { text }) => ({ state, observation: state + text, done: false }),
      };
      export default mine;`;
    assert.equal(await observe('mine.ts', text), 'phi');
  });

  test('an export named environment', async () => {
    assert.equal(await observe('mine.mjs', `export const environment = {${PARTS}};`), 'phi');
  });

  test('an instance of a class, whose methods know their object', async () => {
    const text = `
      class Echo {
        name = 'echo'; stop: string[] = []; said = 'well, ';
        reset() { return null; }
        async step(state: null, { text }: { text: string }) {
          return { state, observation: this.said + text, done: false };
        }
      }
      export default new Echo();`;
    assert.equal(await observe('mine.ts', text), 'well, hi');
  });

  test('a CommonJS file', async () => {
    assert.equal(await observe('mine.cjs', `module.exports = {${PARTS}};`), 'phi');
  });

  test('an edited file is read again, and nothing is written beside it', async () => {
    const folder = folderWith('mine.ts', `export default {${PARTS}};`);
    assert.equal((await loadEnvironment('mine.ts', { cwd: folder })).name, 'echo');
    writeFileSync(join(folder, 'mine.ts'), `export default {${PARTS} name: 'other' };`);
    assert.equal((await loadEnvironment('mine.ts', { cwd: folder })).name, 'other');
    assert.deepEqual(readdirSync(folder), ['mine.ts']);
  });

  describe('rejects', () => {
    test('a name that is neither built in nor a file', async () => {
      await assert.rejects(loadEnvironment('abacus'), {
        code: 'E_CONFIG',
        message:
          'loadEnvironment: expected a file that ends in .ts or .js or a built-in environment (calculator), received "abacus".',
        hint: 'A file is written with its extension, for example ./environment.ts.',
      });
    });

    test('a file that does not exist', async () => {
      const folder = folderWith('mine.ts', '');
      await assert.rejects(loadEnvironment('./other.ts', { cwd: folder }), {
        code: 'E_CONFIG',
        message: `loadEnvironment: expected an environment file at ${folder}/other.ts, but there is none.`,
      });
    });

    test('a file that throws while it is loaded', async () => {
      const folder = folderWith('mine.ts', 'throw new RangeError("not today");');
      await assert.rejects(loadEnvironment('./mine.ts', { cwd: folder }), {
        code: 'E_CONFIG',
        message: `loadEnvironment: expected ${folder}/mine.ts to load, but it threw RangeError: not today.`,
      });
    });

    const faults: [content: string, fault: string][] = [
      ['export const x = 1;', 'it has neither a default export nor one named environment'],
      ['export default null;', 'its export is null'],
      ['export default () => 1;', 'its export is a function'],
      [`export default {${PARTS} name: '' };`, 'it has no name'],
      [`export default {${PARTS} name: 7 };`, 'it has no name'],
      [`export default {${PARTS} stop: '.' };`, 'its stop is not a list of texts'],
      [`export default {${PARTS} stop: [''] };`, 'its stop is not a list of texts'],
      [`export default {${PARTS} stop: [1] };`, 'its stop is not a list of texts'],
      [`export default {${PARTS} reset: 1 };`, 'it has no function reset'],
      [`export default {${PARTS} step: undefined };`, 'it has no function step'],
    ];
    for (const [content, fault] of faults) {
      test(`${fault}: ${content.replaceAll(/\s+/g, ' ').slice(-40)}`, async () => {
        const folder = folderWith('mine.mjs', content);
        await assert.rejects(loadEnvironment('./mine.mjs', { cwd: folder }), {
          code: 'E_CONFIG',
          message: `loadEnvironment: expected ${folder}/mine.mjs to export an environment, but ${fault}.`,
          hint: /^Export one: export default \{ name/,
        });
      });
    }
  });
});
