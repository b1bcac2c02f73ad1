/**
 * Downloads from a stand-in for the Hub into a cache, and reads a cache that Python has written; for hubCache.py.
 *
 *     npx tsx tools/interop/hubCache.ts serve              prints the stand-in's address and serves until it is ended
 *     npx tsx tools/interop/hubCache.ts download NAME      downloads a model; prints its folder
 *     npx tsx tools/interop/hubCache.ts data NAME          downloads the training split of a data set; prints its files
 *
 * The cache, the address and whether it is offline come from the environment, as for every user.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { modelFolder } from '../../src/hub/index.js';
import { findDataFiles } from '../../src/data/dataFiles.js';
import { HubServer } from '../../test/hubServer.js';
import { ROOT } from '../../test/root.js';

const [command = '', name = ''] = process.argv.slice(2);
if (command === 'serve') await serve();
else if (command === 'download') process.stdout.write(`${await modelFolder(name)}\n`);
else if (command === 'data')
  process.stdout.write(`${(await findDataFiles(name, {})).join('\n')}\n`);
else process.exitCode = 2;

async function serve(): Promise<void> {
  const hub = await HubServer.start();
  const golden = join(ROOT, 'test/golden/models/qwen2');
  const files = readdirSync(golden).filter((file) => file !== 'expected.json');
  hub.put(
    'lab/model',
    {
      ...Object.fromEntries(files.map((file) => [file, readFileSync(join(golden, file))])),
      'tokenizer.json': '{}',
      'README.md': '# A model',
    },
    { large: ['model.safetensors'] },
  );
  const rows = { 'README.md': '# Rows', 'data/train.jsonl': '{"text": "a"}\n' };
  hub.put('lab/rows', rows, { kind: 'datasets' });
  process.stdout.write(`${hub.url}\n`);
}
