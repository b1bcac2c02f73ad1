/** Checks settings and says everything that is wrong with them at once. */
import type * as z from 'zod';
import { ConfigError } from '../errors/index.js';
import { configFromObject, shown, type ConfigSource } from './configSource.js';
import { nearestName } from './nearestName.js';
import {
  expectedText,
  schemaAt,
  settingNames,
  settingsSchemaOf,
  type SettingSchema,
} from './settingsSchema.js';

/**
 * The settings of a method: what the user wrote, checked, with defaults for the rest.
 *
 * @param source the settings, or a plain object whose name in messages is `name`
 * @throws ConfigError that lists every unknown key (with the nearest valid one), every value of a wrong type or range
 *   (with what was expected and received) and every broken rule between settings, each with its place
 */
export function parseConfig<Schema extends z.ZodType>(
  schema: Schema,
  source: ConfigSource | Readonly<Record<string, unknown>>,
  name = 'config',
): z.output<Schema> {
  const from = isSource(source) ? source : configFromObject(source, name);
  const result = schema.safeParse(from.values);
  if (result.success) return result.data;
  const settings = settingsSchemaOf(schema);
  const faults = result.error.issues.flatMap((issue) => faultsOf(issue, settings, from));
  const method = settings.title ?? '';
  throw new ConfigError(
    `Invalid ${method} settings:\n${faults.map((fault) => `  ${fault}`).join('\n')}`,
    { hint: `Run \`posttrain config ${method.toLowerCase()}\` to list every setting.` },
  );
}

function isSource(
  source: ConfigSource | Readonly<Record<string, unknown>>,
): source is ConfigSource {
  return typeof source['place' as keyof typeof source] === 'function';
}

function faultsOf(issue: z.core.$ZodIssue, settings: SettingSchema, from: ConfigSource): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const path = [...issue.path, key];
      return `${from.place(path)}: ${unknownKey(path, settings)}`;
    });
  }
  const name = issue.path.map(String).join('.');
  const value = valueAt(from.values, issue.path);
  const at = schemaAt(settings, issue.path);
  const expected = issue.code === 'custom' || at === undefined ? issue.message : expectedText(at);
  const reason = typeof value === 'string' ? at?.refusedValues?.[value] : undefined;
  const because = reason === undefined ? '' : ` ${String(value)} is refused: ${reason}.`;
  const setting = name === '' ? '' : `${name}: `;
  return [
    `${from.place(issue.path)}: ${setting}expected ${expected}, received ${shown(value)}.${because}`,
  ];
}

function unknownKey(path: readonly PropertyKey[], settings: SettingSchema): string {
  const name = path.map(String).join('.');
  const parent = schemaAt(settings, path.slice(0, -1));
  const key = String(path.at(-1));
  const refusal = parent?.refused?.[key] ?? settings.properties?.['sampling']?.refused?.[key];
  if (refusal !== undefined) return `${name} is refused: ${refusal}.`;
  const known = parent?.propertyNames?.enum;
  if (known !== undefined) {
    const meant = nearestName(key, known);
    const parentName = name.slice(0, -key.length);
    return `there is no setting ${name}. ${meant === undefined ? `There are ${known.join(', ')}.` : `Did you mean ${parentName}${meant}?`}`;
  }
  const nearest = nearestName(name, settingNames(settings));
  // A setting of another branch of a choice exists, only not here.
  if (nearest === name) return `there is no setting ${name} with the kind that is chosen.`;
  return `there is no setting ${name}.${nearest === undefined ? '' : ` Did you mean ${nearest}?`}`;
}

function valueAt(values: unknown, path: readonly PropertyKey[]): unknown {
  let at = values;
  for (const key of path) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = Object.entries(at).find(([name]) => name === String(key))?.[1];
  }
  return at;
}
