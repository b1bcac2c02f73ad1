/** The dashboard's server on a port. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createAdaptorServer } from '@hono/node-server';
import { IoError } from '../errors/index.js';
import { dashboardApp } from './app.js';
import { isLoopback, newToken } from './guard.js';
import type { LabParts } from './lab.js';
import { checkGivenModels } from './labModels.js';
import { RunRegistry, type Rhythm } from './runRegistry.js';
import { findUiFiles } from './uiFiles.js';
import { watchFolders } from './watchedFolders.js';

/** What `startDashboard` needs. */
export interface DashboardOptions {
  /** Run folders, or folders that hold some. */
  readonly folders: readonly string[];
  /** Folder of the built page. */
  readonly ui: string;
  /** Of posttrain. */
  readonly version: string;
  /** This machine alone unless said. */
  readonly host?: string | undefined;
  /** 0 takes any that is free. */
  readonly port?: number | undefined;
  readonly rhythm?: Rhythm | undefined;
  /** Where models are tried; closed with the dashboard. */
  readonly lab?: LabParts | undefined;
}

/** A dashboard that answers. */
export interface Dashboard {
  /** To be opened in a browser; with the token where one is needed. */
  readonly url: string;
  readonly port: number;
  /** What other machines must bring; null on this machine alone. */
  readonly token: string | null;
  close(): Promise<void>;
}

const DEFAULT_HOST = '127.0.0.1';

/**
 * Starts the server over run folders. It reads and never writes, and no request leaves the machine.
 *
 * @throws UsageError for a folder that is none, or a model that is nowhere; IoError where the page is not built, or the port is taken
 */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { host = DEFAULT_HOST, port = 0, version, lab } = options;
  const ui = await findUiFiles(options.ui);
  const folders = await watchFolders(options.folders);
  await checkGivenModels(lab?.models ?? []);
  const registry = new RunRegistry(folders, options.rhythm);
  const token = isLoopback(host) ? null : newToken();
  const app = dashboardApp({ registry, folders, ui, guard: { host, token }, version, lab });
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;
  const bound = await listen(server, host, port);
  await registry.start();
  const shown = host === '0.0.0.0' || host === '::' ? 'localhost' : host;
  const name = shown.includes(':') ? `[${shown}]` : shown;
  return {
    url: `http://${name}:${bound}/${token === null ? '' : `?token=${token}`}`,
    port: bound,
    token,
    async close() {
      await registry.close();
      await lab?.lab.close();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE';
      const received = isTaken ? 'one that is taken' : error.message;
      reject(
        new IoError(`dashboard: expected a free port at ${host}:${port}, found ${received}.`, {
          hint: isTaken ? 'Choose another with --port, or --port 0 for any.' : undefined,
          cause: error,
        }),
      );
    });
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port));
  });
}
