import type * as z from 'zod';
import {
  childOf,
  keysOf,
  settingsSchemaOf,
  typeText,
  type SettingSchema,
} from './settingsSchema.js';

/** One setting of a method, for people. */
export interface SettingRow {
  /** Dotted name, as in code, in config files and after `--set`. */
  readonly key: string;
  /** What it may hold, for example `integer ≥ 2`. */
  readonly type: string;
  /** Its value unless it is set; undefined where there is none and it must be given with its neighbours. */
  readonly default: unknown;
  /** What it does. */
  readonly description: string;
  /** Where the default comes from. */
  readonly origin: string;
}

/** Every setting of a method with type, default, meaning and the source of the default, in the order of its schema. */
export function describeConfig(schema: z.ZodType): SettingRow[] {
  return rowsOf(settingsSchemaOf(schema), '');
}

function rowsOf(schema: SettingSchema, prefix: string): SettingRow[] {
  return keysOf(schema).flatMap((key): SettingRow[] => {
    const child = childOf(schema, key);
    if (child === undefined) return [];
    const name = `${prefix}${key}`;
    // A plain object is a heading over its settings. A union is chosen as a whole, so it is a setting itself; what only
    // some of its branches have follows it.
    if (child.properties !== undefined) return rowsOf(child, `${name}.`);
    const row: SettingRow = {
      key: name,
      type: typeText(child),
      default: child.default,
      description: child.description ?? '',
      origin: child.origin ?? '',
    };
    const isChoice = child.oneOf !== undefined || child.anyOf !== undefined;
    const inner = isChoice ? rowsOf(child, `${name}.`) : [];
    return [row, ...inner.filter(({ description }) => description !== '')];
  });
}
