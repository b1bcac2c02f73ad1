/** The golden model folders of all families, made by tools/golden/families.py. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../root.js';

const GOLDEN = join(ROOT, 'test/golden/families');

/** What transformers computes with a golden model. */
export interface ExpectedOfFamily {
  readonly vocabularyStride: number;
  readonly cases: Record<
    'none' | 'left' | 'right',
    { inputIds: number[][]; attentionMask: number[][]; logits: number[][][] }
  >;
  readonly prompts: number[][];
  /** 26 tokens each: past every sliding window, and past the original context. */
  readonly greedy: number[][];
  /** The folder whose weights the model has, where it has none of its own. */
  readonly weights?: string;
}

export const FAMILY_FOLDERS: readonly string[] = readdirSync(GOLDEN).sort();

export function expectedOfFamily(name: string): ExpectedOfFamily {
  return JSON.parse(readFileSync(join(GOLDEN, name, 'expected.json'), 'utf8')) as ExpectedOfFamily;
}

/** Copies of the folders, each with its weights, below a temporary one that `remove` deletes. */
export function familyFolders(): { copyOf: (name: string) => string; remove: () => void } {
  const root = mkdtempSync(join(tmpdir(), 'posttrain-families-'));
  let copies = 0;
  return {
    copyOf: (name) => {
      const folder = join(root, `${name}-${copies++}`);
      cpSync(join(GOLDEN, name), folder, { recursive: true });
      const { weights } = expectedOfFamily(name);
      const file = 'model.safetensors';
      if (weights !== undefined) cpSync(join(GOLDEN, weights, file), join(folder, file));
      return folder;
    },
    remove: () => rmSync(root, { recursive: true }),
  };
}
