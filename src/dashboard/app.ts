/** The addresses of the dashboard's server; protocol.ts says what each answers. */
import { Hono, type Context } from 'hono';
import { PosttrainError, ValueRangeError } from '../errors/index.js';
import { eventStream } from './eventStream.js';
import { exportName, metricsCsv, samplesJsonl } from './exports.js';
import type { FollowedRun } from './followedRun.js';
import { failure, guard, safeHeaders, type GuardOptions } from './guard.js';
import type { LabParts } from './lab.js';
import { addLabRoutes } from './labRoutes.js';
import {
  PROTOCOL_VERSION,
  type ConfigComparison,
  type Info,
  type RunDetail,
  type RunLog,
  type Series,
} from './protocol.js';
import {
  comparedRuns,
  exportedKeys,
  logLines,
  sampleQuery,
  seriesQuery,
  sideOf,
  wholeNumber,
} from './queries.js';
import { flatSettings } from './runRecord.js';
import type { RunRegistry } from './runRegistry.js';
import {
  promptHistory,
  sampleDetail,
  sampleGroup,
  samplePage,
  tokenExplanation,
} from './sampleViews.js';
import { readUiFile, uiFileFor, type UiFile } from './uiFiles.js';
import { nameOfPlace, readRunFileEnd, type WatchedFolder } from './watchedFolders.js';

/** The end of log.txt that is read. */
const LOG_BYTES = 1 << 20;

/** What the addresses are answered from. */
export interface AppParts {
  readonly registry: RunRegistry;
  readonly folders: readonly WatchedFolder[];
  readonly ui: ReadonlyMap<string, UiFile>;
  readonly guard: GuardOptions;
  /** Of posttrain. */
  readonly version: string;
  /** undefined where no model may be tried. */
  readonly lab?: LabParts | undefined;
}

/** What one run answers; undefined where it has no such thing. */
type Answer = (run: FollowedRun, context: Context) => unknown;

/** The server as a function from requests to answers. */
export function dashboardApp(parts: AppParts): Hono {
  const { registry, folders, ui, guard: rules, version, lab } = parts;
  const app = new Hono();
  app.use(safeHeaders());
  app.use(guard(rules));
  app.onError((error, context) => {
    if (error instanceof ValueRangeError)
      return context.json(failure(error.code, error.message), 400);
    if (error instanceof PosttrainError)
      return context.json(failure(error.code, error.message, error.hint), 500);
    return context.json(failure('E_INTERNAL', `internal: ${error.message}`), 500);
  });

  const info: Info = {
    protocol: PROTOCOL_VERSION,
    version,
    folders: folders.map(({ given }) => given),
  };
  app.get('/api/info', (context) => context.json(info));
  app.get('/api/runs', (context) => context.json(registry.list()));
  app.get('/api/compare', async (context) => {
    const ids = comparedRuns(context.req.query());
    const runs = await Promise.all(ids.map((id) => registry.run(id, 'metrics')));
    return context.json(compareSettings(runs.filter((run) => run !== undefined)));
  });
  app.get('/api/events', (context) => {
    context.header('Content-Type', 'text/event-stream');
    context.header('Cache-Control', 'no-store');
    context.header('X-Accel-Buffering', 'no');
    return context.body(eventStream(registry));
  });

  const ofRun = (path: string, answer: Answer): void => {
    app.get(`/api/runs/:run${path}`, async (context) => {
      const needs = /^\/(samples|groups|prompts|export\/samples)/.test(path)
        ? 'samples'
        : 'metrics';
      const run = await registry.run(context.req.param('run') ?? '', needs);
      const found: unknown = run && (await answer(run, context));
      if (found instanceof Response) return found;
      return found === undefined
        ? context.json(
            failure('E_NOT_FOUND', 'There is no such run, or it has no such thing.'),
            404,
          )
        : context.json(found);
    });
  };
  const whole = (context: Context, name: string): number =>
    wholeNumber(context.req.param(name) ?? '');

  ofRun('', async (run): Promise<RunDetail | undefined> => {
    const detail = await run.detail();
    const { parent } = registry.summary(run);
    return detail && { ...detail, parent, children: registry.childrenOf(run) };
  });
  ofRun('/metrics', (run) => run.catalog());
  ofRun('/series', (run, { req }): Series => {
    const series = run.table.series(seriesQuery(req.query()));
    return { run: run.id, revision: run.metricsRevision, ...series };
  });
  ofRun('/log', (run, { req }) => endOfLog(run, logLines(req.query())));
  ofRun('/samples', (run, { req }) => samplePage(run, sampleQuery(req.query())));
  ofRun('/samples/facets', async (run) => ({
    run: run.id,
    revision: run.samples.revision,
    ...(await run.samples.facets()),
  }));
  ofRun('/samples/:index', (run, context) => sampleDetail(run, whole(context, 'index')));
  ofRun('/samples/:index/tokens/:token', (run, context) =>
    tokenExplanation(run, {
      index: whole(context, 'index'),
      token: whole(context, 'token'),
      side: sideOf(context.req.query()),
    }),
  );
  ofRun('/groups/:step/:promptIndex', (run, context) =>
    sampleGroup(run, whole(context, 'step'), whole(context, 'promptIndex')),
  );
  ofRun('/prompts/:promptId', (run, { req }) => promptHistory(run, req.param('promptId') ?? ''));
  ofRun('/export/metrics.csv', (run, context) => {
    offerFile(context, 'text/csv; charset=utf-8', exportName(run, 'metrics.csv'));
    return context.body(metricsCsv(run, exportedKeys(context.req.query())));
  });
  ofRun('/export/samples.jsonl', async (run, context) => {
    const places = await run.samples.select(sampleQuery(context.req.query()));
    offerFile(context, 'application/jsonl; charset=utf-8', exportName(run, 'samples.jsonl'));
    return context.body(samplesJsonl(run, places));
  });

  addLabRoutes(app, { registry, folders, lab });

  app.all('/api/*', (context) =>
    context.json(failure('E_NOT_FOUND', 'There is nothing at this address.'), 404),
  );
  app.get('*', async (context) => {
    const file = uiFileFor(ui, context.req.path);
    if (file === undefined)
      return context.json(failure('E_NOT_FOUND', 'There is nothing at this address.'), 404);
    context.header('Content-Type', file.type);
    const lasting = 'public, max-age=31536000, immutable';
    context.header('Cache-Control', file.isLasting ? lasting : 'no-cache');
    return context.body(new Uint8Array(await readUiFile(file)));
  });
  return app;
}

function offerFile(context: Context, type: string, name: string): void {
  context.header('Content-Type', type);
  context.header('Content-Disposition', `attachment; filename="${name}"`);
}

async function endOfLog(run: FollowedRun, lines: number): Promise<RunLog> {
  const { text, truncated } = await readRunFileEnd(run.place, 'log.txt', LOG_BYTES);
  const all = text.split('\n').filter((line) => line !== '');
  return { lines: all.slice(-lines), truncated: truncated || all.length > lines };
}

function compareSettings(runs: readonly FollowedRun[]): ConfigComparison {
  const all = runs.map(({ config }) => {
    const settings = flatSettings(config?.config, 'config');
    return flatSettings(config?.inputs, 'inputs', settings);
  });
  const paths = [...new Set(all.flatMap((settings) => [...settings.keys()]))].sort();
  return {
    runs: runs.map((run) => ({ id: run.id, name: nameOfPlace(run.place) })),
    settings: paths.map((path) => {
      const values = all.map((settings) => settings.get(path) ?? null);
      return { path, values, differs: new Set(values).size > 1 };
    }),
  };
}
