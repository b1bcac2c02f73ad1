/**
 * Who may ask, and what every answer says to the browser. The dashboard shows prompts, completions and settings to
 * whoever reaches it, so it answers only to this machine unless it is told otherwise, and then only to who has the token.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { MiddlewareHandler } from 'hono';
import { getCookie, setCookie } from 'hono/cookie';
import type { Failure } from './protocol.js';

/** Where the server listens. */
export interface GuardOptions {
  /** Name or address that was asked for. */
  readonly host: string;
  /** What a request must bring; null on this machine alone. */
  readonly token: string | null;
}

const COOKIE = 'posttrain-dashboard';

/**
 * No script, style or picture from elsewhere, none inside of the page, and no page that frames this one: a completion
 * that came to be read as markup could do nothing.
 */
const CONTENT_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "font-src 'self'",
  "connect-src 'self'",
  "worker-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** A token that cannot be guessed. */
export function newToken(): string {
  return randomBytes(24).toString('base64url');
}

/** Whether an address is of this machine alone. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Headers that every answer has. */
export function safeHeaders(): MiddlewareHandler {
  return async (context, next) => {
    await next();
    const { headers } = context.res;
    headers.set('Content-Security-Policy', CONTENT_POLICY);
    headers.set('X-Content-Type-Options', 'nosniff');
    headers.set('Referrer-Policy', 'no-referrer');
    headers.set('Cross-Origin-Resource-Policy', 'same-origin');
    headers.set('Cross-Origin-Opener-Policy', 'same-origin');
    if (!headers.has('Cache-Control')) headers.set('Cache-Control', 'no-store');
  };
}

/** What changes nothing on the disk but computes: the only addresses that are posted to. */
const POSTED = /^\/api\/lab\/[a-z]+$/;

/**
 * Lets reading requests through that name this server as their host and bring the token where one is needed, and questions
 * to the model lab that come from this server's own page, or from no page.
 *
 * A page of a stranger can make a name of its own point to 127.0.0.1 and read the answers (DNS rebinding): then the name
 * stands in `Host`. Addresses and the names that were asked for are the only ones that are answered.
 */
export function guard({ host, token }: GuardOptions): MiddlewareHandler {
  return async (context, next) => {
    const { req } = context;
    const refuse = (status: 401 | 403 | 405 | 415, message: string, hint?: string) =>
      context.json(failure(status === 401 ? 'E_TOKEN' : 'E_REFUSED', message, hint), status);
    const isPosted = req.method === 'POST' && POSTED.test(req.path);
    if (req.method !== 'GET' && req.method !== 'HEAD' && !isPosted)
      return refuse(405, `Expected GET, received ${req.method.slice(0, 20)}.`);
    if (!isOwnHost(req.header('host') ?? '', host)) {
      return refuse(
        403,
        'The request names another host than this server.',
        'Open the dashboard by the address that it printed.',
      );
    }
    if (req.header('sec-fetch-site') === 'cross-site' && req.path.startsWith('/api/'))
      return refuse(403, 'The request comes from another site.');
    if (isPosted) {
      // A form, or a script without asking first, can send texts and forms to other sites, but no JSON.
      if (!/^application\/json\s*(;|$)/i.test(req.header('content-type') ?? ''))
        return refuse(415, 'Expected a question of type application/json.');
      const site = req.header('sec-fetch-site') ?? 'none';
      if (
        !isOwnOrigin(req.header('origin'), req.header('host')) ||
        !/^(same-origin|none)$/.test(site)
      )
        return refuse(403, 'The request comes from another page.');
    }
    if (token === null) return next();
    const given = req.query('token');
    if (given !== undefined && isSame(given, token)) {
      setCookie(context, COOKIE, token, { httpOnly: true, sameSite: 'Strict', path: '/' });
      if (req.path.startsWith('/api/')) return next();
      // The token shall not stay in the address, where it is seen and copied.
      return context.redirect(req.path, 302);
    }
    const bearer = /^Bearer (.+)$/.exec(req.header('authorization') ?? '')?.[1];
    const brought = getCookie(context, COOKIE) ?? bearer;
    if (brought !== undefined && isSame(brought, token)) return next();
    return refuse(
      401,
      'This dashboard needs its token.',
      'Open it by the address with ?token=… that it printed.',
    );
  };
}

/** A failure as answers have it. */
export function failure(code: string, message: string, hint?: string): Failure {
  return { error: { code, message, ...(hint !== undefined && { hint }) } };
}

function isOwnHost(header: string, bound: string): boolean {
  const name = header.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const lower = name.toLowerCase();
  return lower === 'localhost' || isIP(lower) !== 0 || lower === bound.toLowerCase();
}

/** Programs send no origin; browsers always send that of the page with what is posted. */
function isOwnOrigin(origin: string | undefined, host: string | undefined): boolean {
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase();
}

/** Compared in the same time whatever is equal. */
function isSame(given: string, token: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
