import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { IoError } from '../../errors/index.js';
import { asCount, collect, withExample } from '../options.js';
import type { CommandContext } from '../program.js';
import { packageFolder, packageVersion } from '../version.js';

/** Where a dashboard listens unless it is told otherwise. */
const DEFAULT_PORT = 6100;

interface DashboardCommandOptions {
  readonly port?: number;
  readonly host?: string;
  readonly open?: boolean;
  readonly besideRun?: boolean;
  readonly model?: readonly string[];
  readonly allowRunCode?: boolean;
  readonly device: string;
  readonly dtype: 'float32' | 'bfloat16' | 'float64';
}

/** Reads a port. */
function asPort(text: string): number {
  const port = asCount(text);
  if (port > 65535) throw new InvalidArgumentError('Expected a port from 0 to 65535.');
  return port;
}

/** Reads a device; whether it is there shows when a model is tried. */
function asDevice(text: string): string {
  if (/^(auto|cpu|cuda(:\d+)?)$/.test(text)) return text;
  throw new InvalidArgumentError('Expected auto, cpu or cuda.');
}

/** Adds `dashboard`. */
export function registerDashboard(program: Command, { io }: CommandContext): void {
  const command = program
    .command('dashboard')
    .description('show runs in the browser, finished or going on: curves, completions, tokens')
    .argument('[folders...]', 'run directories, or folders that hold some (default: runs)')
    .option(
      '--port <port>',
      `port to listen on, 0 for any (default: ${DEFAULT_PORT}, or another where it is taken)`,
      asPort,
    )
    .option(
      '--host <address>',
      'address to listen on (default: 127.0.0.1, this machine alone); others need the token that is printed',
    )
    .option('--open', 'open it in the browser')
    .option(
      '--model <model>',
      'a model that may be tried in the lab although it lies elsewhere, and whatever lies in this folder, such as the base of a run; repeatable',
      collect,
    )
    .option('--allow-run-code', 'let the lab run the files that runs name as their rewards')
    .option('--device <device>', 'where the lab computes: auto, cpu or cuda', asDevice, 'cpu')
    .addOption(
      new Option('--dtype <dtype>', 'in which numbers the lab computes')
        .choices(['float32', 'bfloat16', 'float64'])
        .default('float32'),
    )
    // What `train … --dashboard` starts: ends when standard input does.
    .addOption(new Option('--beside-run').hideHelp());
  withExample(
    command,
    'posttrain dashboard runs',
    'posttrain dashboard runs/first runs/second --port 0 --open',
    'posttrain dashboard runs --model ./SmolLM2-135M-Instruct',
  );
  command.action(async (folders: readonly string[], options: DashboardCommandOptions) => {
    const given = folders.length === 0 ? ['runs'] : folders;
    const { startDashboard } = await import('../../dashboard/index.js');
    const { LabProcess } = await import('../../lab/index.js');
    const { device, dtype, model: models = [], allowRunCode = false } = options;
    const lab = { lab: new LabProcess({ device, dtype }), models, allowsRunCode: allowRunCode };
    const isBeside = options.besideRun === true;
    if (isBeside) await Promise.race([waitFor(given), standardInputEnds()]);
    const start = (port: number) =>
      startDashboard({
        folders: given,
        ui: join(packageFolder(), 'dist', 'ui'),
        version: packageVersion(),
        host: options.host,
        port,
        lab,
      });
    const dashboard = await start(options.port ?? DEFAULT_PORT).catch((error: unknown) => {
      const isTaken = error instanceof IoError && codeOf(error.cause) === 'EADDRINUSE';
      if (options.port === undefined && isTaken) return start(0);
      throw error;
    });
    io.stderr.write(`Dashboard: ${dashboard.url}${isBeside ? '' : '  (Ctrl-C ends it)'}\n`);
    if (dashboard.token !== null)
      io.stderr.write(
        'Whoever has this address can read the runs: it is not encrypted on its way.\n',
      );
    if (options.open === true) openBrowser(dashboard.url, (text) => void io.stderr.write(text));
    await (isBeside ? standardInputEnds() : signalComes());
    await dashboard.close();
  });
}

/** Until Ctrl-C, or SIGTERM. */
function signalComes(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve());
  });
}

/** Until the program that has started this one has ended, whatever ended it. Its Ctrl-C is not ours. */
function standardInputEnds(): Promise<void> {
  process.on('SIGINT', () => undefined);
  return new Promise((resolve) => {
    process.stdin.once('end', resolve).once('close', resolve).once('error', resolve).resume();
  });
}

/** Until a run has made its folder. */
async function waitFor(folders: readonly string[]): Promise<void> {
  while (!folders.every((folder) => existsSync(folder)))
    await new Promise((resolve) => setTimeout(resolve, 200));
}

/** The browser that is set as usual. Where there is none the address is on the screen. */
function openBrowser(url: string, say: (text: string) => void): void {
  const [program, ...args] =
    process.platform === 'darwin'
      ? ['open', url]
      : process.platform === 'win32'
        ? ['cmd', '/c', 'start', '', url]
        : ['xdg-open', url];
  if (program === undefined) return;
  const browser = spawn(program, args, { stdio: 'ignore', detached: true });
  browser.on('error', () => say('No browser could be opened here: open the address by hand.\n'));
  browser.unref();
}

function codeOf(cause: unknown): string | undefined {
  return cause instanceof Error && 'code' in cause ? String(cause.code) : undefined;
}
