/** The files of the page, as the build has left them. Which there are is read once; no request makes a path. */
import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { IoError } from '../errors/index.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.json': 'application/json',
  '.txt': 'text/plain; charset=utf-8',
  '.map': 'application/json',
  '.webmanifest': 'application/manifest+json',
};

/** One file of the page. */
export interface UiFile {
  readonly path: string;
  readonly type: string;
  /** Its name changes with its contents. */
  readonly isLasting: boolean;
}

/**
 * The files of the built page by the path of their address.
 *
 * @throws IoError where it is not built
 */
export async function findUiFiles(folder: string): Promise<ReadonlyMap<string, UiFile>> {
  const files = new Map<string, UiFile>();
  const names = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of names) {
    const type = TYPES[extname(entry.name)];
    if (!entry.isFile() || type === undefined) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const address = path.slice(folder.length).replaceAll('\\', '/');
    files.set(address, { path, type, isLasting: address.startsWith('/assets/') });
  }
  if (files.has('/index.html')) return files;
  throw new IoError(`dashboard: expected the built page in ${folder}, found no index.html.`, {
    hint: 'Run `npm run setup` in the checkout; an installed package has it.',
  });
}

/** The file of an address: views of the page (`/runs/…`) are all index.html. */
export function uiFileFor(files: ReadonlyMap<string, UiFile>, path: string): UiFile | undefined {
  return files.get(path) ?? (extname(path) === '' ? files.get('/index.html') : undefined);
}

/** @throws an error of the system where it is gone */
export function readUiFile(file: UiFile): Promise<Buffer> {
  return readFile(file.path);
}
