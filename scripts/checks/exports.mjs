/**
 * Which exports lack a doc comment. Reads lines, not a syntax tree: prettier guarantees that an export begins its line.
 */

const EXPORT =
  /^export (?:declare |default |abstract |async )*(?:(?:function\*?|class|interface|type|enum|namespace) (\w+)|(?:const|let) (\w+|[{[]))/;

/**
 * @param {string} text A TypeScript source.
 * @returns {{ line: number, name: string }[]} Exports without a doc comment directly above. An overload and a type of the
 *   same name as a documented export share its comment.
 */
export function undocumentedExports(text) {
  const lines = text.split('\n');
  /** @type {Set<string>} */
  const documented = new Set();
  /** @type {{ line: number, name: string }[]} */
  const missing = [];
  lines.forEach((content, index) => {
    const found = content.match(EXPORT);
    const name = found?.[1] ?? found?.[2];
    if (name === undefined) return;
    if (endsDocComment(lines, index - 1)) documented.add(name);
    else missing.push({ line: index + 1, name });
  });
  return missing.filter(({ name }) => !documented.has(name));
}

/** @param {readonly string[]} lines @param {number} index @returns {boolean} */
function endsDocComment(lines, index) {
  if (!(lines[index] ?? '').trimEnd().endsWith('*/')) return false;
  for (let i = index; i >= 0; i -= 1) {
    const line = /** @type {string} */ (lines[i]).trimStart();
    if (line.startsWith('/*')) return line.startsWith('/**');
  }
  return false;
}
