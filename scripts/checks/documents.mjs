/**
 * What a Markdown document promises and a program can check: its TypeScript blocks and its relative links.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * @typedef {object} CodeBlock
 * @property {string} document Path relative to the root.
 * @property {number} line Of the first line of code, from 1.
 * @property {string} code
 * @property {boolean} run Whether `<!-- run -->` stands above it.
 */

/**
 * The blocks of a document that are fenced as `ts`.
 * @param {string} document
 * @param {string} text
 * @returns {CodeBlock[]}
 */
export function codeBlocks(document, text) {
  /** @type {CodeBlock[]} */
  const blocks = [];
  /** @type {{ fence: string, language: string, indent: number, line: number, lines: string[], run: boolean } | undefined} */
  let open;
  let previous = '';
  text.split('\n').forEach((content, index) => {
    if (open === undefined) {
      const [, space = '', fence, language = ''] = content.match(/^(\s*)(`{3,})\s*(\w*)/) ?? [];
      if (fence !== undefined) {
        const run = previous === '<!-- run -->';
        open = { fence, language, indent: space.length, line: index + 2, lines: [], run };
      } else if (content.trim() !== '') previous = content.trim();
      return;
    }
    if (content.trim().startsWith(open.fence) && content.trim().replaceAll('`', '') === '') {
      const { line, run } = open;
      if (open.language === 'ts') blocks.push({ document, line, run, code: open.lines.join('\n') });
      open = undefined;
      previous = '';
    } else open.lines.push(content.slice(Math.min(open.indent, content.search(/\S|$/))));
  });
  return blocks;
}

/**
 * Relative links of a document that lead nowhere: to no file, or to no heading of the file.
 * @param {string} root
 * @param {string} document
 * @param {string} text
 * @returns {string[]}
 */
export function brokenLinks(root, document, text) {
  /** @type {string[]} */
  const broken = [];
  const prose = text
    .replaceAll(/^(\s*)(`{3,})[^]*?^\s*\2`*\s*$/gm, '')
    .replaceAll(/`[^`\n]*`/g, '');
  for (const [, target = ''] of prose.matchAll(/\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g)) {
    if (/^[a-z][a-z0-9+.-]*:/i.test(target)) continue;
    const [path = '', anchor] = target.split('#');
    const file = path === '' ? document : join(dirname(document), decodeURIComponent(path));
    const absolute = join(root, file);
    if (!existsSync(absolute)) broken.push(`${document}: the link ${target} leads to no file`);
    else if (anchor !== undefined && anchor !== '' && absolute.endsWith('.md')) {
      if (!headingAnchors(readFileSync(absolute, 'utf8')).has(anchor))
        broken.push(`${document}: the link ${target} leads to no heading`);
    }
  }
  return broken;
}

/** @param {string} text @returns {Set<string>} Anchors as GitHub makes them. */
function headingAnchors(text) {
  const anchors = new Set();
  for (const [, heading = ''] of text.matchAll(/^#{1,6}\s+(.*)$/gm)) {
    const slug = heading
      .trim()
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(/\s/g, '-');
    let anchor = slug;
    for (let n = 1; anchors.has(anchor); n += 1) anchor = `${slug}-${n}`;
    anchors.add(anchor);
  }
  return anchors;
}
