/** Imports files that a user wrote. Knows modules and their exports, not what they are for. */
import { existsSync, statSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ErrorOptions, PosttrainError } from '../errors/index.js';

/** Parts of the package that such a file may import by name, with the folder of each. */
const IMPORTABLE = {
  'posttrain/rewards': 'rewards',
  'posttrain/environments': 'environments',
  'posttrain/tasks': 'tasks',
};

/** Whom a file is imported for, and how a failure is told. */
export interface ImportUserModuleOptions {
  /** The function that messages start with. */
  readonly where: string;
  /** What the file holds, in one word: `reward`. */
  readonly what: string;
  /** Folder that relative paths start from; the current one when undefined. */
  readonly cwd: string | undefined;
  /** Class of the errors thrown. */
  readonly Failure: new (message: string, options?: ErrorOptions) => PosttrainError;
}

/** A file's exports by name; `module.exports = …` of a function or class is the default export. */
export interface UserModule {
  /** Absolute. */
  readonly path: string;
  readonly exports: Readonly<Record<string, unknown>>;
}

/**
 * Imports a TypeScript or JavaScript file as it is now: nothing is compiled beside it, and no earlier import is reused.
 *
 * @throws `Failure` if there is no such file, or it throws while it is loaded
 */
export async function importUserModule(
  file: string,
  { where, what, cwd, Failure }: ImportUserModuleOptions,
): Promise<UserModule> {
  const path = resolve(cwd ?? process.cwd(), file);
  if (!existsSync(path) || !statSync(path).isFile()) {
    const article = /^[aeiou]/.test(what) ? 'an' : 'a';
    throw new Failure(`${where}: expected ${article} ${what} file at ${path}, but there is none.`, {
      hint: 'Paths are relative to the current folder.',
    });
  }
  // Imported here, so that who has no such file does not wait for it.
  const { createJiti } = await import('jiti');
  const jiti = createJiti(import.meta.url, {
    alias: Object.fromEntries(
      Object.entries(IMPORTABLE).map(([name, folder]) => [name, entryOf(folder)]),
    ),
    // Nothing is written beside the user's file, and an edited file is never taken from an old cache.
    fsCache: false,
    moduleCache: false,
    interopDefault: false,
  });
  try {
    const module: unknown = await jiti.import(path);
    if (typeof module === 'function') return { path, exports: { default: module } }; // CommonJS
    const isObject = typeof module === 'object' && module !== null;
    return { path, exports: isObject ? Object.fromEntries(Object.entries(module)) : {} };
  } catch (error) {
    const thrown = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new Failure(`${where}: expected ${path} to load, but it threw ${thrown}.`, {
      hint: 'Fix the file, or run it alone to see where it fails.',
      cause: error,
    });
  }
}

/** A folder's index. From the sources this file is .ts, built it is .js: the index has the same extension. */
function entryOf(folder: string): string {
  const entry = `../${folder}/index${extname(import.meta.url)}`;
  return fileURLToPath(new URL(entry, import.meta.url));
}
