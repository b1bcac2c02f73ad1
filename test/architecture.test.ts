import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { ROOT } from './root.js';

/**
 * Which layers each layer may import; every layer may import itself and `errors`. `(types)` stands for an import that
 * leaves no trace at run time.
 */
const LAYERS: Readonly<Record<string, string>> = {
  errors: '',
  config: '',
  torch: '',
  hub: '',
  nn: 'torch',
  optim: 'torch nn(types)',
  tokenizers: 'hub',
  models: 'torch nn hub',
  generation:
    'torch nn models userCode tokenizers(types) data(types) environments(types) rewards(types)',
  algorithms: 'torch',
  userCode: '',
  rewards: 'userCode',
  environments: 'userCode',
  data: 'hub',
  annotation: 'data',
  tasks: 'data rewards environments',
  trainers:
    'torch nn optim models generation algorithms userCode rewards environments data config(types) tokenizers(types)',
  eval: 'torch models generation algorithms rewards data environments(types) tokenizers(types)',
  selection: 'models(types) generation tokenizers(types) rewards trainers',
  trackers: 'hub',
  runs: 'config trackers hub torch nn optim tokenizers models generation algorithms rewards environments data annotation trainers eval selection',
  publishing: 'config hub runs',
  labeling: 'torch hub models generation data runs tokenizers(types)',
  dashboard: 'trainers(types)',
  // Models beside the dashboard, in a process of their own: the dashboard is given it and loads no libtorch.
  lab: 'hub torch tokenizers models generation rewards trainers runs dashboard(types)',
  quickstart: 'config hub torch tokenizers models generation rewards data tasks eval runs',
  reproduce:
    'config hub torch tokenizers models generation algorithms rewards environments data annotation tasks eval runs quickstart',
  cli: 'config hub torch tokenizers models generation rewards environments data tasks eval selection runs publishing labeling dashboard lab quickstart reproduce',
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typesOnly: boolean;
  readonly dynamic: boolean;
}

const IMPORT =
  /^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm;

/** The imports of a source; type-only when the statement says so, or when every imported name does. */
function importsOf(file: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map(([statement, type, target, dynamic]) => {
    const names = statement.match(/\{([^}]*)\}/)?.[1]?.split(',') ?? [];
    const named = names.map((name) => name.trim()).filter((name) => name !== '');
    const allTypes = named.length > 0 && named.every((name) => name.startsWith('type '));
    return {
      ...{ file, target: target ?? dynamic ?? '' },
      ...{ typesOnly: type !== undefined || allTypes, dynamic: dynamic !== undefined },
    };
  });
}

/** The layer of a path below src/: its folder, or the name of a file that stands beside the folders. */
function layerOf(path: string): string {
  return path.split('/')[0]?.replace(/\.(js|ts)$/, '') ?? '';
}

/** What is wrong with an import; undefined when the layer order allows it. */
function violation({ file, target, typesOnly }: Import): string | undefined {
  if (!target.startsWith('.')) return undefined;
  const from = layerOf(file);
  const to = layerOf(relative('/src', resolve('/src', dirname(file), target)));
  if (from === 'index' || from === 'deferred') return undefined; // the package's front door
  if (to === '..') return `src/${file} imports ${target}, which lies outside src/`;
  const allowed = LAYERS[from]?.split(' ');
  if (allowed === undefined)
    return `src/${file}: the layer ${from} is not in the table of this test`;
  if (to === from || to === 'errors' || allowed.includes(to)) return undefined;
  if (!allowed.includes(`${to}(types)`)) return `src/${file} imports ${to}`;
  return typesOnly ? undefined : `src/${file} imports ${to} for more than its types`;
}

const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.ts') && !path.endsWith('.test.ts'))
  .map((path) => ({ path, text: readFileSync(join(ROOT, 'src', path), 'utf8') }));

describe('the layers of src/', () => {
  test('every import follows the layer order', () => {
    const violations = sources.flatMap(({ path, text }) =>
      importsOf(path, text)
        .map(violation)
        .filter((fault) => fault !== undefined),
    );
    assert.deepEqual(violations, []);
  });

  test('only torch opens the addon', () => {
    const openers = sources.filter(
      ({ path, text }) => layerOf(path) !== 'torch' && text.includes('posttrain.node'),
    );
    assert.deepEqual(
      openers.map(({ path }) => path),
      [],
    );
  });

  test('trainers and algorithms read no files, flags or environment variables', () => {
    const pure = ['trainers', 'algorithms'];
    const readers = sources.filter(
      ({ path, text }) =>
        pure.includes(layerOf(path)) && /'(node:)?fs(\/promises)?'|process\.(env|argv)/.test(text),
    );
    assert.deepEqual(
      readers.map(({ path }) => path),
      [],
    );
  });
});

/** What is loaded with a file of src/, itself included. */
function loadedWith(file: string, loaded = new Set<string>()): Set<string> {
  if (loaded.has(file)) return loaded;
  loaded.add(file);
  const text = sources.find(({ path }) => path === file)?.text ?? '';
  for (const { target, typesOnly, dynamic } of importsOf(file, text))
    if (target.startsWith('.') && !typesOnly && !dynamic)
      loadedWith(join(dirname(file), target).replace(/\.js$/, '.ts'), loaded);
  return loaded;
}

describe('what an import waits for', () => {
  const layersOf = (file: string) => new Set([...loadedWith(file)].map(layerOf));

  test('posttrain loads no trainer and no run before one is created, and what they need by then', () => {
    const atOnce = layersOf('index.ts');
    for (const layer of ['torch', 'models', 'generation', 'config', 'eval'])
      assert.ok(atOnce.has(layer), layer);
    for (const layer of ['trainers', 'runs', 'optim', 'trackers', 'publishing'])
      assert.equal(atOnce.has(layer), false, layer);
    assert.ok(layersOf('runs/index.ts').has('trainers'));
  });
  test('the help of the command line loads no tensors, models or runs', () => {
    const atOnce = layersOf('cli/main.ts');
    for (const layer of ['torch', 'models', 'runs']) assert.equal(atOnce.has(layer), false, layer);
  });
});

describe('the reading of imports', () => {
  const judged = (file: string, text: string) => importsOf(file, text).map(violation);

  test('an import against the order is a violation, over several lines too', () => {
    assert.deepEqual(judged('torch/a.ts', "import {\n  x,\n  y,\n} from '../models/index.js';\n"), [
      'src/torch/a.ts imports models',
    ]);
  });
  test('a re-export and a dynamic import count like an import', () => {
    assert.deepEqual(judged('algorithms/a.ts', "export * from '../nn/linear.js';\n"), [
      'src/algorithms/a.ts imports nn',
    ]);
    assert.deepEqual(judged('rewards/a.ts', "const t = await import('../torch/index.js');\n"), [
      'src/rewards/a.ts imports torch',
    ]);
  });
  test('types may come from where only types may come from', () => {
    const from = "from '../config/grpo.js';\n";
    assert.deepEqual(judged('trainers/a.ts', `import type { C } ${from}`), [undefined]);
    assert.deepEqual(judged('trainers/a.ts', `import { type C, type D } ${from}`), [undefined]);
    assert.deepEqual(judged('trainers/a.ts', `import { type C, parse } ${from}`), [
      'src/trainers/a.ts imports config for more than its types',
    ]);
  });
  test('an unknown layer and a path out of src/ are violations', () => {
    assert.deepEqual(judged('utils/a.ts', "import { x } from '../torch/index.js';\n"), [
      'src/utils/a.ts: the layer utils is not in the table of this test',
    ]);
    assert.deepEqual(judged('torch/a.ts', "import { x } from '../../test/expect.js';\n"), [
      'src/torch/a.ts imports ../../test/expect.js, which lies outside src/',
    ]);
  });
});
