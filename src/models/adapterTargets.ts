/** Which layers of a model have adapters, by the rules of PEFT. Internal to this folder. */
import { CheckpointError, ConfigError, nearestFirst } from '../errors/index.js';
import { Linear, loraScaling, type Module } from '../nn/index.js';
import type { AdapterConfig } from './adapterConfig.js';

/** A layer with an adapter, and what its adapter is like. */
export interface AdapterTarget {
  readonly layer: Linear;
  readonly rank: number;
  readonly scaling: number;
}

/** Every linear layer but the output layer, and the routers of mixtures of experts. */
export const ALL_LINEAR = 'all-linear';
const OUTPUT_LAYER = 'lm_head';

/** The layers that a model's adapter stands on, and its settings. */
type Named = ReadonlyMap<string, Module>;
type Chosen = Pick<
  AdapterConfig,
  'targetModules' | 'rank' | 'alpha' | 'rsLora' | 'rankPattern' | 'alphaPattern'
>;

/**
 * The linear layers that `targetModules` names, by their full names.
 *
 * A list names layers by their whole names or by what stands after a dot in them; a text is a regular expression for
 * whole names.
 *
 * @param where what asks, for messages
 * @throws ConfigError where nothing is named, a name of a list is no layer's or is that of another kind of layer, or a text
 *   is no regular expression
 */
export function adapterTargets(
  where: string,
  modules: Named,
  config: Chosen,
): Map<string, AdapterTarget> {
  const { targetModules } = config;
  const found = new Map<string, AdapterTarget>();
  const isNamed = matcher(where, targetModules);
  for (const [name, layer] of modules) {
    if (targetModules === ALL_LINEAR && !isAmongAll(name, layer)) continue;
    if (!isNamed(name)) continue;
    if (!(layer instanceof Linear))
      throw new ConfigError(
        `${where}: expected targetModules to name linear layers, but ${name} is none. ${known(modules, lastPart(name))}`,
      );
    const rank = patternValue(config.rankPattern, name) ?? config.rank;
    const alpha = patternValue(config.alphaPattern, name) ?? config.alpha;
    const { rsLora } = config;
    found.set(name, { layer, rank, scaling: loraScaling({ rank, alpha, rsLora }) });
  }
  if (found.size === 0)
    throw new ConfigError(
      `${where}: expected targetModules to name layers of the model, received ${JSON.stringify(targetModules)}, which names none. ${known(modules, String(targetModules))}`,
    );
  return found;
}

function isAmongAll(name: string, layer: Module): boolean {
  return layer instanceof Linear && name !== OUTPUT_LAYER && !name.endsWith('.gate');
}

/**
 * Refuses names of `targetModules` that no layer has. PEFT passes over them as long as one is found.
 *
 * @throws ConfigError
 */
export function requireKnownTargets(
  where: string,
  modules: Named,
  targetModules: string | readonly string[],
): void {
  if (typeof targetModules === 'string') return;
  const unknown = targetModules.find(
    (target) => ![...modules.keys()].some((name) => endsIn(name, target)),
  );
  if (unknown === undefined) return;
  throw new ConfigError(
    `${where}: expected targetModules to name layers of the model, received ${JSON.stringify(unknown)}. ${known(modules, lastPart(unknown))}`,
  );
}

function matcher(where: string, targets: string | readonly string[]): (name: string) => boolean {
  if (targets === ALL_LINEAR) return () => true;
  if (typeof targets !== 'string') return (name) => targets.some((target) => endsIn(name, target));
  try {
    const pattern = new RegExp(`^(?:${targets})$`);
    return (name) => pattern.test(name);
  } catch (cause) {
    throw new ConfigError(
      `${where}: expected targetModules to be a regular expression, received ${JSON.stringify(targets)}.`,
      { cause, hint: `Give a list of names, or ${ALL_LINEAR}.` },
    );
  }
}

function endsIn(name: string, target: string): boolean {
  return name === target || name.endsWith(`.${target}`);
}

function patternValue(
  patterns: Readonly<Record<string, number>>,
  name: string,
): number | undefined {
  return Object.entries(patterns).find(([key]) =>
    new RegExp(`^(?:.*\\.)?(?:${key})$`).test(name),
  )?.[1];
}

function known(modules: Named, unknown: string): string {
  const linear = [...modules].filter(([, layer]) => layer instanceof Linear);
  const names = shortNames(linear.map(([name]) => name));
  return `It has ${nearestFirst(unknown, names).join(', ')}.`;
}

function lastPart(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

/** What stands after the last dot of names, each once. */
export function shortNames(names: Iterable<string>): string[] {
  return [...new Set(Array.from(names, lastPart))].sort();
}

/**
 * Names of the parameters of layers that are trained as a whole: those whose names end in one of `modulesToSave`, as in
 * PEFT.
 *
 * @param tiedEmbedding name of the embedding that is the output layer too; null where it is not
 * @throws ConfigError for an ending that no layer has, and for the embedding of a tied output layer, which PEFT would
 *   untie
 */
export function savedParameters(
  where: string,
  modules: Named,
  {
    modulesToSave,
    tiedEmbedding,
  }: { modulesToSave: readonly string[]; tiedEmbedding: string | null },
): Set<string> {
  const saved = new Set<string>();
  for (const ending of modulesToSave) {
    const layers = [...modules].filter(([name]) => name.endsWith(ending));
    if (layers.length === 0)
      throw new ConfigError(
        `${where}: expected modulesToSave to name layers of the model, received ${JSON.stringify(ending)}. It has ${nearestFirst(lastPart(ending), shortNames(modules.keys())).join(', ')}.`,
      );
    for (const [name, layer] of layers) {
      if (name === tiedEmbedding)
        throw new ConfigError(
          `${where}: expected modulesToSave without ${name} for a model whose output layer is the embedding, received ${JSON.stringify(ending)}.`,
          { hint: 'PEFT trains a copy of it that the output layer does not share.' },
        );
      for (const parameter of layer.namedParameters().keys()) saved.add(`${name}.${parameter}`);
    }
  }
  return saved;
}

/** @throws CheckpointError where an adapter is for something else than what was asked for */
export function requireTask(
  where: string,
  path: string,
  { task }: Pick<AdapterConfig, 'task'>,
  expected: string,
): void {
  if (task === null || task === expected) return;
  throw new CheckpointError(
    `${where}: expected task_type ${expected} in ${path}, received ${task}.`,
    { hint: 'Reward and value models are SEQ_CLS, process reward models TOKEN_CLS.' },
  );
}
