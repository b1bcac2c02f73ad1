/**
 * A stand-in for the Hugging Face Hub, because no test may ask the network: two HTTP servers of this process that answer
 * as huggingface.co and its storage do, in what posttrain and `@huggingface/hub` ask of them. Large files are redirected
 * to the storage, which has another origin and must not see the token.
 *
 * Written after the documentation of the Hub's API and after what huggingface_hub 2.4 and @huggingface/hub 2.17 read.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The one token that is accepted. */
export const GOOD_TOKEN = 'hf_good';

/** A repository at one commit. */
export interface StandInRepo {
  readonly commit: string;
  readonly files: ReadonlyMap<string, Buffer>;
  /** Names of files that are stored as large ones. */
  readonly large: ReadonlySet<string>;
  readonly access: 'open' | 'gated' | 'private';
}

/** What a file's content is called. */
export function hashOf(content: Uint8Array, isLarge: boolean): string {
  return isLarge
    ? createHash('sha256').update(content).digest('hex')
    : createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
}

/** Answers a request in another way than the server would. @returns whether it did */
export type Interception = (request: IncomingMessage, response: ServerResponse) => boolean;

/** One commit that was pushed. */
export interface PushedCommit {
  readonly repo: string;
  readonly summary: string;
  /** Path to content; of a large file its SHA-256. */
  readonly files: Readonly<Record<string, string>>;
}

/** The Hub and its storage. */
export class HubServer {
  /** Every request, as `GET /path`, with ` from N` where a range was asked for. */
  readonly requests: string[] = [];
  readonly commits: PushedCommit[] = [];
  /** Large files that were uploaded, by SHA-256. */
  readonly uploads = new Map<string, Buffer>();
  readonly created: unknown[] = [];
  /** Whether the storage was sent a token. */
  storageSawToken = false;
  /** Entries of a list in one answer. */
  pageSize = 1000;
  intercept: Interception = () => false;
  private readonly repos = new Map<string, StandInRepo>();
  private readonly servers: Server[] = [];
  private storageUrl = '';
  url = '';

  static async start(): Promise<HubServer> {
    const hub = new HubServer();
    hub.url = await hub.listen((request, response) => hub.answer(request, response));
    hub.storageUrl = await hub.listen((request, response) => hub.store(request, response));
    return hub;
  }

  /** Puts a repository there. Its commit follows from its files. */
  put(
    name: string,
    files: Readonly<Record<string, string | Uint8Array>>,
    options: {
      kind?: 'models' | 'datasets';
      large?: readonly string[];
      access?: StandInRepo['access'];
    } = {},
  ): StandInRepo {
    const { kind = 'models', large = [], access = 'open' } = options;
    const contents = new Map(
      Object.entries(files).map(([path, content]) => [path, Buffer.from(content)]),
    );
    const commit = createHash('sha1')
      .update(JSON.stringify([name, files]))
      .digest('hex');
    const repo = { commit, files: contents, large: new Set(large), access };
    this.repos.set(`${kind}/${name}`, repo);
    return repo;
  }

  async stop(): Promise<void> {
    for (const server of this.servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  private async listen(
    answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
  ): Promise<string> {
    const server = createServer((request, response) => {
      const { range } = request.headers;
      const from = range === undefined ? '' : ` from ${/\d+/.exec(range)?.[0] ?? ''}`;
      this.requests.push(`${request.method ?? ''} ${(request.url ?? '').split('?')[0]}${from}`);
      if (this.intercept(request, response)) return;
      answer(request, response).catch((error: unknown) => {
        fail(response, 500, 'InternalError', String(error));
      });
    });
    this.servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = decodeURIComponent((request.url ?? '').split('?')[0] ?? '');
    const token = request.headers.authorization?.replace('Bearer ', '');
    if (token !== undefined && token !== GOOD_TOKEN) {
      fail(response, 401, null, 'Invalid credentials in Authorization header');
      return;
    }
    const isKnown = token === GOOD_TOKEN;
    if (request.method === 'POST') {
      if (isKnown) await this.write(path, request, response);
      else fail(response, 401, null, 'Invalid username or password.');
      return;
    }
    const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(path);
    if (api !== null) {
      const [, kind = '', name = '', what, revision = ''] = api;
      const repo = this.find(response, { kind, name, revision, isKnown });
      if (repo === undefined) return;
      if (what === 'revision') json(response, infoOf(name, repo));
      else this.list(request, response, repo);
      return;
    }
    const [, kind, name = '', revision = '', file = ''] =
      /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path) ?? [];
    const place = { kind: kind === undefined ? 'models' : 'datasets', name, revision, isKnown };
    const repo = this.find(response, place);
    if (repo === undefined) return;
    if (repo.access === 'gated' && !isKnown) {
      fail(response, 401, 'GatedRepo', `Access to model ${name} is restricted`);
      return;
    }
    this.sendFile(request, response, { repo, file });
  }

  private find(
    response: ServerResponse,
    place: { kind: string; name: string; revision: string; isKnown: boolean },
  ): StandInRepo | undefined {
    const repo = this.repos.get(`${place.kind}/${place.name}`);
    if (repo === undefined || (repo.access === 'private' && !place.isKnown)) {
      // Who is not known may not know either whether there is a repository.
      if (place.isKnown) fail(response, 404, 'RepoNotFound', 'Repository not found');
      else fail(response, 401, 'RepoNotFound', 'Invalid username or password.');
      return undefined;
    }
    if (['main', 'HEAD', repo.commit].includes(place.revision)) return repo;
    fail(response, 404, 'RevisionNotFound', `Invalid rev id: ${place.revision}`);
    return undefined;
  }

  private list(request: IncomingMessage, response: ServerResponse, repo: StandInRepo): void {
    const url = new URL(request.url ?? '', this.url);
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const folders = [...repo.files.keys()]
      .filter((path) => path.includes('/'))
      .map((path) => path.slice(0, path.lastIndexOf('/')));
    const entries = [
      ...[...new Set(folders)].map((path) => ({ type: 'directory', path, size: 0, oid: '0' })),
      ...[...repo.files].map(([path, content]) => entryOf(path, content, repo.large.has(path))),
    ];
    const end = start + this.pageSize;
    if (end < entries.length) {
      url.searchParams.set('cursor', String(end));
      response.setHeader('link', `<${url.href}>; rel="next"`);
    }
    json(response, entries.slice(start, end));
  }

  private sendFile(
    request: IncomingMessage,
    response: ServerResponse,
    { repo, file }: { repo: StandInRepo; file: string },
  ): void {
    const content = repo.files.get(file);
    if (content === undefined) {
      fail(response, 404, 'EntryNotFound', 'Entry not found');
      return;
    }
    const isLarge = repo.large.has(file);
    const hash = hashOf(content, isLarge);
    response.setHeader('x-repo-commit', repo.commit);
    if (!isLarge) {
      response.setHeader('etag', `"${hash}"`);
      sendRange(request, response, content);
      return;
    }
    response.setHeader('x-linked-etag', `"${hash}"`);
    response.setHeader('x-linked-size', String(content.length));
    response.setHeader('location', `${this.storageUrl}/${hash}`);
    response.statusCode = 302;
    response.end();
  }

  /** The storage: large files by their hash. */
  private async store(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.storageSawToken ||= request.headers.authorization !== undefined;
    const hash = (request.url ?? '').slice(1);
    if (request.method === 'PUT') {
      this.uploads.set(hash, await bodyOf(request));
      response.end();
      return;
    }
    const known = [...this.repos.values()].flatMap(({ files }) => [...files.values()]);
    const content = known.find((candidate) => hashOf(candidate, true) === hash);
    if (content === undefined) fail(response, 404, null, 'No such object');
    else sendRange(request, response, content);
  }

  private async write(
    path: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const body = (await bodyOf(request)).toString('utf8');
    if (path === '/api/repos/create') {
      const asked = JSON.parse(body) as { organization: string; name: string };
      const name = `${asked.organization}/${asked.name}`;
      if (this.repos.has(`models/${name}`)) {
        fail(response, 409, null, 'You already created this model repo');
        return;
      }
      if (asked.organization === 'others') {
        fail(response, 403, null, 'You do not have the rights to create a model there');
        return;
      }
      this.created.push(asked);
      this.put(name, {});
      json(response, { url: `${this.url}/${name}`, id: name });
    } else if (path.includes('/preupload/')) {
      const { files } = JSON.parse(body) as { files: { path: string; size: number }[] };
      json(response, {
        files: files.map(({ path: file }) => ({
          path: file,
          uploadMode: file.endsWith('.safetensors') ? 'lfs' : 'regular',
        })),
      });
    } else if (path.endsWith('.git/info/lfs/objects/batch')) {
      const { objects } = JSON.parse(body) as { objects: { oid: string; size: number }[] };
      json(response, {
        transfer: 'basic',
        objects: objects.map(({ oid, size }) => ({
          ...{ oid, size },
          actions: { upload: { href: `${this.storageUrl}/${oid}`, header: {} } },
        })),
      });
    } else if (path.includes('/commit/')) {
      this.commits.push(commitOf(path, body));
      json(response, {
        commitOid: 'c'.repeat(40),
        commitUrl: `${this.url}/commit`,
        hookOutput: '',
      });
    } else fail(response, 404, null, `No such endpoint: ${path}`);
  }
}

function infoOf(name: string, repo: StandInRepo): object {
  return {
    ...{ _id: '1', id: name, sha: repo.commit, private: repo.access === 'private' },
    ...{ gated: repo.access === 'gated' ? 'manual' : false, downloads: 0, likes: 0 },
    lastModified: '2025-01-01T00:00:00.000Z',
  };
}

function entryOf(path: string, content: Buffer, isLarge: boolean): object {
  const common = { type: 'file', path, size: content.length };
  if (!isLarge) return { ...common, oid: hashOf(content, false) };
  const pointer = `version https://git-lfs.github.com/spec/v1\n${path}`;
  const lfs = { oid: hashOf(content, true), size: content.length, pointerSize: pointer.length };
  return { ...common, oid: hashOf(Buffer.from(pointer), false), lfs };
}

function commitOf(path: string, body: string): PushedCommit {
  const lines = body
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { key: string; value: Record<string, string> });
  const header = lines.find(({ key }) => key === 'header')?.value;
  const files = lines
    .filter(({ key }) => key === 'file' || key === 'lfsFile')
    .map(({ key, value }) => [
      value['path'] ?? '',
      key === 'lfsFile'
        ? (value['oid'] ?? '')
        : Buffer.from(value['content'] ?? '', 'base64').toString('utf8'),
    ]);
  const repo = /^\/api\/models\/(.+)\/commit\/main$/.exec(path)?.[1] ?? '';
  return {
    repo,
    summary: header?.['summary'] ?? '',
    files: Object.fromEntries(files) as Record<string, string>,
  };
}

function json(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

/** Ends an answer as the Hub does when something is refused. */
export function fail(
  response: ServerResponse,
  status: number,
  code: string | null,
  message: string,
): void {
  response.statusCode = status;
  if (code !== null) response.setHeader('x-error-code', code);
  response.setHeader('x-error-message', message);
  response.end();
}

function sendRange(request: IncomingMessage, response: ServerResponse, content: Buffer): void {
  const [, start] = /^bytes=(\d+)-/.exec(request.headers.range ?? '') ?? [];
  if (start === undefined) {
    response.setHeader('content-length', content.length);
    response.end(content);
    return;
  }
  const from = Number(start);
  if (from >= content.length) {
    fail(response, 416, null, 'Range not satisfiable');
    return;
  }
  response.statusCode = 206;
  response.setHeader('content-length', content.length - from);
  response.setHeader('content-range', `bytes ${from}-${content.length - 1}/${content.length}`);
  response.end(content.subarray(from));
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(Buffer.from(piece as Uint8Array));
  return Buffer.concat(pieces);
}
