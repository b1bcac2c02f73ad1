/** Where the Hub and its cache are, and who asks: the environment variables that Python's huggingface_hub reads too. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** How the Hub is reached. */
export interface HubSettings {
  /** `https://huggingface.co`, or HF_ENDPOINT. Without a slash at its end. */
  readonly endpoint: string;
  /** Folder of downloaded repositories, shared with Python. */
  readonly cacheFolder: string;
  readonly token: string | undefined;
  /** Where the token is from, in words. */
  readonly tokenSource: string | undefined;
  /** Whether only the cache may be read. */
  readonly isOffline: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings of the Hub: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, XDG_CACHE_HOME, HF_TOKEN, HF_TOKEN_PATH,
 * HF_HUB_OFFLINE, and the token file of `hf auth login`.
 *
 * Source: huggingface_hub 2.4, constants.py and utils/_auth.py. We differ in that tokens of Google Colab and of OIDC
 * providers are not asked for.
 */
export function hubSettings(environment: Environment = process.env): HubSettings {
  const value = (...names: readonly string[]): string | undefined =>
    names
      .map((name) => environment[name]?.trim())
      .find((text) => text !== undefined && text !== '');
  const path = (...names: readonly string[]): string | undefined =>
    value(...names)?.replace(/^~(?=$|[/\\])/, homedir());
  const isTrue = (...names: readonly string[]): boolean =>
    /^(1|on|yes|true)$/i.test(value(...names) ?? '');
  const caches = path('XDG_CACHE_HOME') ?? join(homedir(), '.cache');
  const home = path('HF_HOME') ?? join(caches, 'huggingface');
  const tokenPath = path('HF_TOKEN_PATH') ?? join(home, 'token');
  const fromEnvironment = value('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN');
  const token = isTrue('HF_HUB_DISABLE_IMPLICIT_TOKEN')
    ? undefined
    : (fromEnvironment ?? readToken(tokenPath));
  return {
    endpoint: (value('HF_ENDPOINT') ?? 'https://huggingface.co').replace(/\/+$/, ''),
    cacheFolder: path('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'),
    token,
    tokenSource:
      token === undefined ? undefined : fromEnvironment === undefined ? tokenPath : 'HF_TOKEN',
    isOffline: isTrue('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE'),
  };
}

function readToken(path: string): string | undefined {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return text === '' ? undefined : text;
  } catch {
    return undefined; // Nobody has logged in.
  }
}
