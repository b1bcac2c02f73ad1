import { PassThrough } from 'node:stream';
import type { InputStream } from '../../src/labeling/index.js';

/** The keyboard of a terminal that is none: what is typed arrives as it would in raw mode. */
export class Keyboard extends PassThrough implements InputStream {
  readonly isTTY = true;
  /** Every mode that was set. */
  readonly modes: boolean[] = [];

  setRawMode(isRaw: boolean): this {
    this.modes.push(isRaw);
    return this;
  }

  /** Types keys, as a terminal sends them: `\r` for Enter, `\x7f` for backspace, `\x03` for Ctrl-C. */
  type(keys: string): void {
    this.write(keys);
  }
}

/** Resolves when `condition` holds, which is looked at every few milliseconds. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
