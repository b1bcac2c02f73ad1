/** Base models that take the place of those that adapters name: given once, and then true of every part of a run. */
import { resolve } from 'node:path';

const bases = new Map<string, string>();

/** From now on, while the process lives, the adapter in `folder` stands on the model in `base`, whatever it names. */
export function giveBase(folder: string, base: string): void {
  bases.set(resolve(folder), base);
}

/** The folder of the base model that was given for an adapter; undefined where none was. */
export function givenBase(folder: string): string | undefined {
  return bases.get(resolve(folder));
}
