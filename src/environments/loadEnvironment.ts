/** Finds an environment by its name or in a file. Knows modules and their exports, not what environments do. */
import { ConfigError } from '../errors/index.js';
import { importUserModule } from '../userCode/index.js';
import { calculatorEnvironment } from './calculator.js';
import type { Environment } from './environment.js';

/** How each built-in environment is written, for help texts. */
export const BUILTIN_ENVIRONMENTS: Readonly<Record<string, string>> = {
  calculator: 'calculator: answers the first expression that ends in = with its value and ;',
};

const BUILTIN: ReadonlyMap<string, Environment> = new Map([['calculator', calculatorEnvironment]]);

const FILE = /\.[cm]?[jt]s$/;
const FILE_HINT =
  "Export one: export default { name: 'mine', stop: ['='], reset() { … }, step(state, turn) { … } }.";

/** Settings of `loadEnvironment`. */
export interface LoadEnvironmentOptions {
  /** Folder that relative paths start from. The current one unless set. */
  readonly cwd?: string | undefined;
}

/**
 * The environment that a specification stands for: `calculator`, or the path of a TypeScript or JavaScript file
 * (`./environment.ts`) that exports one by default or under the name `environment`. TypeScript files run as they are and
 * may import `posttrain/environments`.
 *
 * @throws ConfigError if the specification is neither, the file does not exist, fails while it is loaded, or exports no
 *   environment
 */
export async function loadEnvironment(
  spec: string,
  options: LoadEnvironmentOptions = {},
): Promise<Environment> {
  const builtin = BUILTIN.get(spec);
  if (builtin) return builtin;
  if (!FILE.test(spec)) {
    throw new ConfigError(
      `loadEnvironment: expected a file that ends in .ts or .js or a built-in environment (${[...BUILTIN.keys()].join(', ')}), received ${JSON.stringify(spec)}.`,
      { hint: 'A file is written with its extension, for example ./environment.ts.' },
    );
  }
  const { path, exports } = await importUserModule(spec, {
    where: 'loadEnvironment',
    what: 'environment',
    cwd: options.cwd,
    Failure: ConfigError,
  });
  const name = ['default', 'environment'].find((key) => key in exports);
  const found = exports[name ?? ''];
  if (isEnvironment(found)) return found;
  const fault =
    name === undefined
      ? 'it has neither a default export nor one named environment'
      : faultOf(found);
  throw new ConfigError(
    `loadEnvironment: expected ${path} to export an environment, but ${fault}.`,
    { hint: FILE_HINT },
  );
}

function isEnvironment(value: unknown): value is Environment {
  return faultOf(value) === undefined;
}

/** What keeps a value from being an environment. */
function faultOf(value: unknown): string | undefined {
  if (value === null || value === undefined) return `its export is ${value}`;
  if (typeof value !== 'object') return `its export is a ${typeof value}`;
  const { name, stop, reset, step } = value as Readonly<Record<string, unknown>>;
  if (typeof name !== 'string' || name === '') return 'it has no name';
  const isText = (text: unknown): boolean => typeof text === 'string' && text !== '';
  if (!Array.isArray(stop) || !stop.every(isText)) return 'its stop is not a list of texts';
  if (typeof reset !== 'function') return 'it has no function reset';
  if (typeof step !== 'function') return 'it has no function step';
  return undefined;
}
