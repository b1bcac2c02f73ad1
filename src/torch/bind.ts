/** Binding one operator by name, with its signature checked against the libtorch that is linked. */
import { NativeError } from '../errors/index.js';
import type { Native } from './native.js';

/** A number or boolean where PyTorch takes a Scalar. An integer stays an integer. */
export type Scalar = number | boolean;
/** One integer or several: sizes, dimensions. */
export type Ints = number | readonly number[];

/**
 * The function for `name`. `parameters` is the schema's parameter list that the generated types were made from. The
 * linked libtorch may have more parameters at the end (a newer version), never others.
 *
 * An operator that is missing or has changed throws when it is called, not at load: another version of libtorch then
 * costs only what needs that operator.
 */
export function bind<Signature extends (...args: never[]) => unknown>(
  native: Native,
  name: string,
  parameters: string,
): Signature {
  const schema = native.schemaOf(name);
  const actual = schema?.slice(schema.indexOf('(') + 1, schema.lastIndexOf(' -> ') - 1);
  if (actual === undefined || !(actual === parameters || actual.startsWith(`${parameters}, `))) {
    const fail = (): never => {
      throw new NativeError(
        `${name}: expected an operator with the parameters (${parameters}), but libtorch ${native.runtimeInfo().version} ` +
          (actual === undefined ? 'has no such operator.' : `has (${actual}).`),
        {
          hint: 'Use libtorch 2.13.0, which `npx posttrain setup` fetches when LIBTORCH is not set.',
        },
      );
    };
    return fail as unknown as Signature;
  }
  return native.operator(name) as Signature;
}
