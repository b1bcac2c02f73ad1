/**
 * Writes src/torch/operators.generated.ts: a typed function for each ATen operator that posttrain uses, made from the
 * schemas of the linked libtorch. `npx tsx tools/generateOperators.ts` rewrites it; a test regenerates it in memory and
 * fails when it differs, so a signature cannot drift from libtorch.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { NativeError } from '../src/errors/index.js';
import { packageRoot } from '../src/torch/installation.js';
import { native } from '../src/torch/native.js';
import { OPERATORS } from './operatorList.js';

const TYPES: Record<string, string> = {
  Tensor: 'Slot',
  'Tensor[]': 'readonly Slot[]',
  'Tensor?[]': 'readonly (Slot | null)[]',
  Scalar: 'Scalar',
  'Scalar[]': 'readonly Scalar[]',
  'Scalar?[]': 'readonly (Scalar | null)[]',
  int: 'number',
  SymInt: 'number',
  'int[]': 'Ints',
  'SymInt[]': 'Ints',
  float: 'number',
  'float[]': 'readonly number[]',
  bool: 'boolean',
  'bool[]': 'readonly boolean[]',
  str: 'string',
  ScalarType: 'number',
  Layout: 'number',
  MemoryFormat: 'number',
  Device: 'string',
  Generator: 'GeneratorSlot',
};

interface Parameter {
  name: string;
  type: string;
  optional: boolean;
}

/** The TypeScript name of an operator: aten::add_.Tensor is addTensor_, mkldnn::_linear_pointwise mkldnnLinearPointwise. */
export function functionName(operator: string): string {
  const [namespace = '', rest = ''] = operator.split('::');
  const [base = '', overload = ''] = rest.split('.');
  const inPlace = base.endsWith('_');
  const words = [
    ...(namespace === 'aten' ? [] : [namespace]),
    ...base.split('_'),
    ...overload.split('_'),
  ];
  const camel = words
    .filter((word) => word !== '')
    .map((word, index) => (index === 0 ? word : word[0]?.toUpperCase() + word.slice(1)))
    .join('');
  return `${camel}${inPlace ? '_' : ''}`;
}

function parseParameters(text: string): Parameter[] {
  const parameters: Parameter[] = [];
  for (const part of splitTopLevel(text)) {
    if (part === '*') continue;
    const match = /^(.+?) (\w+)(=.+)?$/.exec(part);
    if (!match) throw new NativeError(`generateOperators: cannot read the parameter "${part}".`);
    const [, rawType = '', name = '', defaultValue] = match;
    const bare = rawType.replace(/\([a-z0-9]+!?( -> \*)?\)/g, '').replace(/\[\d+\]/g, '[]');
    const nullable = bare.endsWith('?');
    const type = TYPES[nullable ? bare.slice(0, -1) : bare];
    if (!type) throw new NativeError(`generateOperators: no TypeScript type for "${bare}".`);
    parameters.push({
      name: safeName(name),
      type: nullable ? `${type} | null` : type,
      optional: nullable || defaultValue !== undefined,
    });
  }
  return parameters;
}

function safeName(name: string): string {
  const camel = name.replace(/_+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  return camel === 'var' || camel === 'default' ? `${camel}Value` : camel;
}

function splitTopLevel(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let current = '';
  for (const character of text) {
    if ('([{'.includes(character)) depth++;
    if (')]}'.includes(character)) depth--;
    if (character === ',' && depth === 0) {
      parts.push(current.trim());
      current = '';
    } else current += character;
  }
  if (current.trim() !== '') parts.push(current.trim());
  return parts;
}

function returnType(text: string): string {
  const inner = text.startsWith('(') ? text.slice(1, -1) : text;
  const parts = splitTopLevel(inner);
  if (parts.some((part) => /\([a-z]!\)/.test(part))) return 'void';
  const types = parts.map((part) => {
    const bare = part.replace(/\([a-z](\|[a-z])?\)/g, '').split(' ')[0] ?? '';
    const type = TYPES[bare];
    if (!type)
      throw new NativeError(`generateOperators: no TypeScript type for the result "${part}".`);
    return type.replace('readonly ', '');
  });
  if (types.length === 0) return 'void';
  return types.length === 1 ? (types[0] ?? 'void') : `[${types.join(', ')}]`;
}

/** The whole text of src/torch/operators.generated.ts. */
export function generateOperators(): string {
  const functions: string[] = [];
  const bindings: string[] = [];
  for (const operator of OPERATORS) {
    const schema = native().schemaOf(operator);
    if (schema === undefined)
      throw new NativeError(`generateOperators: libtorch has no operator ${operator}.`);
    const arrow = schema.lastIndexOf(' -> ');
    const parameterText = schema.slice(schema.indexOf('(') + 1, arrow - 1);
    const parameters = parseParameters(parameterText);
    // A parameter without default may follow one that has one, where a keyword is required: then none before it is optional.
    const lastRequired = parameters.findLastIndex((parameter) => !parameter.optional);
    const signature = parameters
      .map(({ name, type, optional }, index) =>
        optional && index > lastRequired
          ? `${name}?: ${type}`
          : `${name}: ${type}${optional ? ' | undefined' : ''}`,
      )
      .join(', ');
    const name = functionName(operator);
    functions.push(
      `// ${schema}\nexport let ${name}: (${signature}) => ${returnType(schema.slice(arrow + 4))} = (...args) => {\n  native();\n  return ${name}(...args);\n};`,
    );
    bindings.push(`  ${name} = bind(addon, '${operator}', ${JSON.stringify(parameterText)});`);
  }
  return `// Generated by tools/generateOperators.ts from the schemas of libtorch. Do not edit.
/* oxlint-disable */
import { bind, type Ints, type Scalar } from './bind.js';
import { native, onLoad, type GeneratorSlot, type Slot } from './native.js';

// Each function first loads the addon, which puts the real one in its place.

${functions.join('\n\n')}

onLoad((addon) => {
${bindings.join('\n')}
});
`;
}

/** Where the generated file lies. */
export const GENERATED_PATH = join(packageRoot(), 'src', 'torch', 'operators.generated.ts');

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  writeFileSync(GENERATED_PATH, generateOperators());
}
