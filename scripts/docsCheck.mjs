#!/usr/bin/env node
/**
 * Checks what the documentation promises, in a checkout that is set up: every export has a doc comment, every ```ts block
 * of README.md and docs/ compiles against the package (below `<!-- run -->` it also runs), every relative link leads
 * somewhere.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { brokenLinks, codeBlocks } from './checks/documents.mjs';
import { undocumentedExports } from './checks/exports.mjs';
import { ROOT, setup } from './setup.mjs';
import { filesBelow } from './setup/files.mjs';
import { runProgram } from './setup/process.mjs';
import { describeFailure } from './setup/report.mjs';

/** @typedef {import('./checks/documents.mjs').CodeBlock} CodeBlock */

const RUN_TIMEOUT_SECONDS = 5 * 60;

/**
 * @param {string} root
 * @returns {Promise<string[]>} What is wrong, a line or more each; empty when all is well.
 */
export async function checkDocs(root) {
  const faults = checkExports(root);
  const below = filesBelow(join(root, 'docs'), (name) => name.endsWith('.md'));
  const documents = ['README.md', 'CONTRIBUTING.md', ...below.map((path) => `docs/${path}`)].filter(
    (path) => existsSync(join(root, path)),
  );
  /** @type {CodeBlock[]} */
  const blocks = [];
  for (const document of documents) {
    const text = readFileSync(join(root, document), 'utf8');
    faults.push(...brokenLinks(root, document, text));
    blocks.push(...codeBlocks(document, text));
  }
  faults.push(...(await checkBlocks(root, blocks)));
  return faults;
}

/** @param {string} root @returns {string[]} */
function checkExports(root) {
  const isSource = (/** @type {string} */ name) =>
    name.endsWith('.ts') && !/\.(test|generated|d)\.ts$/.test(name);
  return filesBelow(join(root, 'src'), isSource).flatMap((path) =>
    undocumentedExports(readFileSync(join(root, 'src', path), 'utf8')).map(
      ({ line, name }) => `src/${path}:${line}: the export ${name} has no doc comment`,
    ),
  );
}

/**
 * @param {string} root
 * @param {readonly CodeBlock[]} blocks
 * @returns {Promise<string[]>}
 */
async function checkBlocks(root, blocks) {
  if (blocks.length === 0) return [];
  // Inside the checkout, so that `posttrain/...` means this package.
  const folder = join(root, 'build/docs-check');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const nameOf = (/** @type {CodeBlock} */ block) =>
    `${block.document.replaceAll(/[^\w-]/g, '_')}_${block.line}`;
  for (const block of blocks)
    // Blank lines above, so that the compiler counts lines as the document does.
    writeFileSync(join(folder, `${nameOf(block)}.ts`), '\n'.repeat(block.line - 1) + block.code);
  const settings = {
    extends: '../../tsconfig.json',
    compilerOptions: {
      ...{ rootDir: '.', outDir: 'out', incremental: false, declaration: false, sourceMap: false },
      ...{ tsBuildInfoFile: null, noUnusedLocals: false, noUnusedParameters: false },
    },
    include: ['*.ts'],
  };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(settings));
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const args = [compiler, '-p', folder, '--pretty', 'false'];
  const result = await runProgram(process.execPath, args, { cwd: folder });
  if (result.code !== 0) {
    return blocks
      .reduce(
        (text, block) => text.replaceAll(`${nameOf(block)}.ts`, block.document),
        result.output.trim(),
      )
      .split('\n');
  }
  /** @type {string[]} */
  const faults = [];
  for (const block of blocks) {
    if (!block.run) continue;
    const fault = await runBlock(join(folder, 'out', `${nameOf(block)}.js`));
    if (fault !== undefined) faults.push(`${block.document}:${block.line}: ${fault}`);
  }
  return faults;
}

/** @param {string} file @returns {Promise<string | undefined>} */
async function runBlock(file) {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-docs-'));
  try {
    const options = { cwd: folder, timeoutSeconds: RUN_TIMEOUT_SECONDS };
    const result = await runProgram(process.execPath, [file], options);
    if (result.code === 0) return undefined;
    const how = result.timedOut ? `did not end within ${RUN_TIMEOUT_SECONDS} s` : 'failed';
    return `the code block ${how}:\n${result.output.trimEnd()}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    await setup();
    const faults = await checkDocs(ROOT);
    process.stdout.write(`${faults.join('\n') || 'The documentation holds.'}\n`);
    process.exitCode = faults.length > 0 ? 1 : 0;
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`);
    process.exitCode = 1;
  }
}
