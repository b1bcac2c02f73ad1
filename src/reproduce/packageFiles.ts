/** Where the committed settings of the experiments are, from sources and from the compiled program alike. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { applyOverrides, readConfigFile, type ConfigSource } from '../config/index.js';
import { IoError } from '../errors/index.js';

/**
 * The folder of package.json.
 *
 * @throws IoError where this file stands in no package of this name
 */
export function packageRoot(): string {
  const from = dirname(fileURLToPath(import.meta.url));
  for (let folder = from; folder !== dirname(folder); folder = dirname(folder)) {
    const path = join(folder, 'package.json');
    if (existsSync(path) && /"name":\s*"posttrain"/.test(readFileSync(path, 'utf8'))) return folder;
  }
  throw new IoError(`reproduce: expected a package.json of posttrain above ${from}, but none is.`, {
    hint: 'Install the package whole: the experiments read its folder examples.',
  });
}

/** Path of a committed file of settings: `staleness/grpo.yaml`. */
export function examplePath(name: string): string {
  return join(packageRoot(), 'examples', name);
}

/**
 * Settings of a committed file with some of them replaced, as after `--set`.
 *
 * @throws IoError or ConfigError as `readConfigFile` and `applyOverrides` do
 */
export async function exampleConfig(
  name: string,
  overrides: readonly string[] = [],
): Promise<ConfigSource> {
  return applyOverrides(await readConfigFile(examplePath(name)), overrides);
}
