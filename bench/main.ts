/**
 * The benchmarks' command line: `npm run bench -- generate --against torch`. Starts what is asked for.
 */
import { PosttrainError, UsageError } from '../src/errors/index.js';
import { CASES } from './cells.js';
import { count, HELP, readOptions } from './options.js';
import { runAll, runCase, runProfile } from './runCase.js';
import { pythonPath } from './processes.js';

const { values, positionals } = readOptions();

async function runCheck(): Promise<void> {
  const { checkSides } = await import('./check.js');
  const results = await checkSides(pythonPath(values.python));
  for (const { name, rows, equal } of results) {
    console.log(`${name}: ${equal} of ${rows} rows equal token by token`);
  }
  if (results.some(({ rows, equal }) => equal < rows)) process.exitCode = 1;
}

async function main(): Promise<void> {
  const [name = '', ...surplus] = positionals;
  if (values.help) console.log(HELP);
  else if (surplus.length > 0) {
    throw new UsageError(`bench: expected one case, received ${positionals.join(' ')}.`);
  } else if (name in CASES) {
    await (values.profile ? runProfile(name, values) : runCase(name, values));
  } else if (name === 'all') await runAll(values);
  else if (name === 'models') {
    const { benchRealShapes } = await import('./realShapes.js');
    await benchRealShapes(values.shape);
  } else if (name === 'memory') {
    const { benchMemory } = await import('./memory.js');
    await benchMemory(values.shape);
  } else if (name === 'quantized') {
    const { benchQuantized } = await import('./quantized.js');
    benchQuantized(values.shape);
  } else if (name === 'parts') {
    const { benchParts } = await import('./parts.js');
    await benchParts();
  } else if (name === 'data') {
    const { benchData } = await import('./dataLoading.js');
    const { rows, pairs = '3', out } = values;
    const rowsPerFile = rows === undefined ? undefined : count('rows', rows);
    console.log(await benchData({ rowsPerFile, processes: count('pairs', pairs), out }));
  } else if (name === 'install') {
    const { benchInstall } = await import('./install.js');
    console.log(await benchInstall(values));
  } else if (name === 'check') await runCheck();
  else if (name === 'docs') {
    const { updateDocument } = await import('./documentation.js');
    const { path, missing } = updateDocument();
    console.log(
      [`Written: ${path}`, ...missing.map((each) => `No results of: ${each}`)].join('\n'),
    );
  } else {
    throw new UsageError(`bench: expected a case, received ${name === '' ? 'none' : name}.`, {
      hint: HELP,
    });
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof PosttrainError)) throw error;
  process.stderr.write(`${error.message}\n${error.hint ?? ''}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
