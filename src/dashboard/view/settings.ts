/** Nested settings as lines. */

/** `[['clip.high', '0.28'], …]`: what is no text is written as JSON; a list stays one line. */
export function flattenSettings(value: unknown, path = ''): [string, string][] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const entries = Object.entries(value);
    if (entries.length > 0)
      return entries.flatMap(([name, inner]) =>
        flattenSettings(inner, path === '' ? name : `${path}.${name}`),
      );
  }
  if (typeof value === 'string') return [[path, value]];
  return value === undefined ? [] : [[path, JSON.stringify(value)]];
}
