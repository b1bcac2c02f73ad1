/**
 * A method's settings as plain data: names, types, defaults, help. Everything that lists, explains or suggests settings
 * reads this view, so that the zod schema stays the only place that knows them.
 */
import * as z from 'zod';

/** The part of JSON Schema that settings use, with the extra facts that their schemas carry. */
export interface SettingSchema {
  /** A list where a choice is between types alone. */
  readonly type?: string | readonly string[];
  readonly title?: string;
  readonly description?: string;
  /** Where the default comes from. */
  readonly origin?: string;
  readonly default?: unknown;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly properties?: Readonly<Record<string, SettingSchema>>;
  readonly additionalProperties?: SettingSchema | boolean;
  /** The names that `additionalProperties` may have, where not every name will do. */
  readonly propertyNames?: { readonly enum?: readonly string[] };
  readonly anyOf?: readonly SettingSchema[];
  readonly oneOf?: readonly SettingSchema[];
  /** Keys that other programs have and this one refuses, with the reason. */
  readonly refused?: Readonly<Record<string, string>>;
  /** Values that are refused for a reason worth telling. */
  readonly refusedValues?: Readonly<Record<string, string>>;
}

/** The settings of a zod object as plain data. */
export function settingsSchemaOf(schema: z.ZodType): SettingSchema {
  return z.toJSONSchema(schema, { io: 'input' }) as SettingSchema;
}

/** The forms a setting may take: the branches of a union, else itself. */
function branchesOf(schema: SettingSchema): readonly SettingSchema[] {
  const { type } = schema;
  if (typeof type === 'object') return type.map((one) => ({ ...schema, type: one }));
  return schema.oneOf ?? schema.anyOf ?? [schema];
}

/** Keys below a setting: of an object its own, of a union those of all branches. */
export function keysOf(schema: SettingSchema): string[] {
  return [...new Set(branchesOf(schema).flatMap((branch) => Object.keys(branch.properties ?? {})))];
}

/** The schema of a key below a setting; undefined where there is none. A union's key is that of its first branch. */
export function childOf(schema: SettingSchema, key: string): SettingSchema | undefined {
  for (const branch of branchesOf(schema)) {
    const child = branch.properties?.[key];
    if (child !== undefined) return isUnionTag(schema, key) ? tagOf(schema, key) : child;
    if (typeof branch.additionalProperties === 'object') return branch.additionalProperties;
  }
  return undefined;
}

function isUnionTag(schema: SettingSchema, key: string): boolean {
  const branches = branchesOf(schema);
  return branches.length > 1 && branches.every((branch) => branch.properties?.[key] !== undefined);
}

/** The key that tells the branches of a union apart, with the values of all of them. */
function tagOf(schema: SettingSchema, key: string): SettingSchema {
  return { enum: branchesOf(schema).map((branch) => branch.properties?.[key]?.const) };
}

/** The schema at a path of keys; undefined where the path leads nowhere. */
export function schemaAt(
  schema: SettingSchema,
  path: readonly PropertyKey[],
): SettingSchema | undefined {
  return path.reduce<SettingSchema | undefined>(
    (at, key) => (at === undefined ? undefined : childOf(at, String(key))),
    schema,
  );
}

/** Every dotted name of a setting that holds a value, in the order of the schema. */
export function settingNames(schema: SettingSchema, prefix = ''): string[] {
  return keysOf(schema).flatMap((key) => {
    const child = childOf(schema, key);
    const name = `${prefix}${key}`;
    if (child === undefined) return [];
    return [name, ...settingNames(child, `${name}.`)];
  });
}

/** What a setting expects, as words for a message: `an integer of at least 2`, `one of k2, k3, k3Unbiased`. */
export function expectedText(schema: SettingSchema): string {
  const branches = branchesOf(schema);
  if (branches.length > 1) {
    const texts = branches.map(expectedText);
    return texts.every((text) => text.startsWith('an object'))
      ? `an object with kind ${branches.map((branch) => String(branch.properties?.['kind']?.const)).join(', ')}`
      : texts.join(' or ');
  }
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum !== undefined) return `one of ${schema.enum.map(String).join(', ')}`;
  switch (schema.type) {
    case 'integer':
      return `an integer${boundsText(schema)}`;
    case 'number':
      return `a number${boundsText(schema)}`;
    case 'object':
      return typeof schema.additionalProperties === 'object'
        ? `an object of names with ${expectedText(schema.additionalProperties)} each`
        : `an object with ${keysOf(schema).join(', ')}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return 'a list';
    case undefined:
      return 'a value';
    default:
      return schema.type === 'null' ? 'null' : `a ${String(schema.type)}`;
  }
}

function boundsText({ type, ...schema }: SettingSchema): string {
  const bounds: string[] = [];
  // zod bounds integers by what a double holds exactly; nobody needs to read that.
  const isBound = (value: number | undefined): value is number =>
    value !== undefined && !(type === 'integer' && Math.abs(value) === Number.MAX_SAFE_INTEGER);
  if (isBound(schema.minimum)) bounds.push(`of at least ${schema.minimum}`);
  if (isBound(schema.exclusiveMinimum)) bounds.push(`above ${schema.exclusiveMinimum}`);
  if (isBound(schema.maximum)) bounds.push(`of at most ${schema.maximum}`);
  if (isBound(schema.exclusiveMaximum)) bounds.push(`below ${schema.exclusiveMaximum}`);
  return bounds.length === 0 ? '' : ` ${bounds.join(' and ')}`;
}

/** A setting's type as a short expression for tables: `integer ≥ 2`, `k2 | k3 | k3Unbiased`, `number > 0 | null`. */
export function typeText(schema: SettingSchema): string {
  const branches = branchesOf(schema);
  if (branches.length > 1) return branches.map(typeText).join(' | ');
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum !== undefined) return schema.enum.map(String).join(' | ');
  if (schema.type === 'object') {
    if (typeof schema.additionalProperties === 'object')
      return `{ name: ${typeText(schema.additionalProperties)} }`;
    const fields = keysOf(schema).map((key) => {
      const child = childOf(schema, key);
      return `${key}: ${child === undefined ? 'unknown' : typeText(child)}`;
    });
    return `{ ${fields.join(', ')} }`;
  }
  if (schema.type === 'array') return 'list';
  const signs: string[] = [];
  const within = (sign: string, value: number | undefined): void => {
    if (value === undefined || Math.abs(value) === Number.MAX_SAFE_INTEGER) return;
    signs.push(`${sign} ${value}`);
  };
  within('≥', schema.minimum);
  within('>', schema.exclusiveMinimum);
  within('≤', schema.maximum);
  within('<', schema.exclusiveMaximum);
  return [String(schema.type ?? 'value'), signs.join(', ')].filter((part) => part !== '').join(' ');
}
