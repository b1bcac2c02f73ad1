/**
 * The parts of scripts/ that tests use. Those are plain JavaScript, since they run before anything is compiled; what is
 * declared here is checked by the tests that call it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ROOT } from '../root.js';

type Log = (line: string) => void;

/** scripts/setup/zip.mjs */
export interface ZipScript {
  readonly unpackZip: (
    archive: string,
    target: string,
    wanted: (name: string) => string | undefined,
  ) => Promise<{ files: number; bytes: number }>;
  readonly crc32: (bytes: Buffer, start?: number) => number;
}

/** A libtorch as the setup describes it. */
export interface FoundLibtorch {
  readonly path: string;
  readonly version: string;
  readonly source: string;
  readonly cuda: boolean;
  readonly cxx11Abi: boolean;
  readonly identity: string;
  readonly tried: string[];
}

/** What a fetch of the wheel is given. */
export interface FetchContext {
  readonly folder: string;
  readonly env: Record<string, string>;
  readonly log: (line: string) => void;
  readonly tried: string[];
  readonly wheel?: Wheel;
  readonly platform?: string;
}

/** A wheel to fetch. */
export interface Wheel {
  readonly version: string;
  readonly platform: string;
  readonly url: string;
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly requirement: string;
}

/** scripts/setup/libtorch.mjs */
export interface LibtorchScript {
  readonly cacheFolder: (env: Record<string, string>) => string;
  readonly findLibtorch: (context: {
    env: Record<string, string>;
    log: Log;
    fetchWheel?: (context: FetchContext) => Promise<string>;
  }) => Promise<FoundLibtorch>;
}

/** scripts/setup/wheel.mjs */
export interface WheelScript {
  readonly PINNED: Wheel;
  readonly wheelFolder: (cache: string) => string;
  readonly fetchLibtorch: (context: FetchContext) => Promise<'download' | 'pip'>;
}

/** scripts/setup/download.mjs */
export interface DownloadScript {
  readonly download: (
    url: string,
    file: string,
    options: { log: Log; firstByteSeconds?: number; stallSeconds?: number },
  ) => Promise<{ failure: string | undefined; sha256?: string }>;
}

/** What the addon is built from, and where. */
export interface AddonPlan {
  readonly key: string;
  readonly folder: string;
}

/** scripts/setup/addon.mjs */
export interface AddonScript {
  readonly planAddon: (context: {
    root: string;
    home?: string;
    env: Record<string, string>;
    libtorch: FoundLibtorch;
  }) => AddonPlan;
  readonly buildAddon: (
    plan: AddonPlan,
    context: { env: Record<string, string>; log: Log; keepObjects: boolean },
  ) => Promise<{ builtAt: string; compiler: { path: string; version: string } }>;
}

/** scripts/setup/lock.mjs */
export interface LockScript {
  readonly withLock: <T>(path: string, log: Log, body: () => Promise<T>) => Promise<T>;
}

/** scripts/setup/typescript.mjs */
export interface TypescriptScript {
  readonly removeStaleOutputs: (root: string) => string[];
  readonly typescriptIsCurrent: (root: string) => boolean;
  readonly buildTypescript: (context: {
    root: string;
    env: Record<string, string>;
    log: Log;
  }) => Promise<boolean>;
}

/** scripts/setup/dashboardUi.mjs */
export interface DashboardUiScript {
  readonly dashboardUiIsCurrent: (root: string) => boolean;
  readonly buildDashboardUi: TypescriptScript['buildTypescript'];
}

/** scripts/setup/npmPackages.mjs */
export interface NpmScript {
  readonly onlyForeignPlatformsMissing: (output: string) => boolean;
}

/** scripts/setup.mjs */
export interface SetupScript {
  readonly checkNodeVersion: (version: string) => void;
}

/** An error of the setup. */
export interface SetupFailure extends Error {
  readonly hint?: string;
  readonly detail?: string;
}

/** Loads a script by its path below scripts/, as what the caller says it is. */
export async function loadScript<Script>(path: string): Promise<Script> {
  return (await import(pathToFileURL(join(ROOT, 'scripts', path)).href)) as Script;
}

/** A folder that is removed when the tests of the file have run. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'posttrain-setup-test-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A log that says nothing. */
export const silent = (): void => undefined;
