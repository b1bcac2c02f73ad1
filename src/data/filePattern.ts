/** Patterns of file names: `*`, `?`, `**`, `[abc]` and `{a,b}`. Knows texts, not files. */
import { sep } from 'node:path';
import { ConfigError } from '../errors/index.js';

/** Whether a path is a pattern. */
export function hasPattern(path: string): boolean {
  return /[*?[{]/.test(path);
}

/** The folder in which a pattern begins. */
export function patternRoot(pattern: string): string {
  const parts = pattern.split('/');
  const first = parts.findIndex(hasPattern);
  const fixed = parts.slice(0, first === -1 ? -1 : first).join('/');
  return fixed === '' ? (pattern.startsWith('/') ? '/' : '.') : fixed;
}

/** How many folders below that one the files may lie in. */
export function patternDepth(pattern: string): number {
  const parts = pattern.split('/');
  return pattern.includes('**') ? Infinity : parts.length - 1 - parts.findIndex(hasPattern);
}

/**
 * Whether a path is one that the pattern means. `*` and `?` stay within a folder, `**` goes through any number of them,
 * `[a-c]` is one of some characters, `[!a]` another one, `{a,b}` one of some texts.
 *
 * @throws ConfigError if it is no pattern
 */
export function matchesPattern(path: string, pattern: string): boolean {
  const clean = (text: string): string => text.replaceAll(sep, '/').replace(/^(?:\.\/)+/, '');
  try {
    return new RegExp(`^${expressionOf(clean(pattern))}$`, 'u').test(clean(path));
  } catch (error) {
    throw new ConfigError(`${pattern}: expected a pattern of file names, received another text.`, {
      hint: 'The signs are *, ?, **, [abc] and {a,b}; brackets are closed.',
      cause: error,
    });
  }
}

const PARTS = /\*\*\/|\*\*|\*|\?|\[(!?)([^\]]+)\]|[{},]|[^*?[\]{},]+|[[\]]/gu;

function expressionOf(pattern: string): string {
  let depth = 0;
  return pattern.replace(PARTS, (part, not?: string, characters?: string) => {
    if (part === '**/') return '(?:[^/]+/)*';
    if (part === '**') return '.*';
    if (part === '*') return '[^/]*';
    if (part === '?') return '[^/]';
    if (part === '{') depth++;
    if (part === '}') depth--;
    if (part === '{') return '(?:';
    if (part === '}') return ')';
    if (part === ',') return depth > 0 ? '|' : ',';
    if (characters !== undefined)
      return `[${not === '!' ? '^/' : ''}${characters.replace(/[\\^\][]/gu, '\\$&')}]`;
    return part.replace(/[\\^$.|+()[\]/]/gu, '\\$&');
  });
}
