/** All metrics of the chosen runs, one chart each, by what they are about. */
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type {
  Mark,
  MetricCatalog,
  MetricInfo,
  RunSummary,
  Series,
} from '../../../src/dashboard/protocol.js';
import {
  continued,
  curveOf,
  positionOfStep,
  stepsWithin,
  type Axis,
} from '../../../src/dashboard/view/curves.js';
import { visibleText } from '../../../src/dashboard/view/format.js';
import { address, ask, growthOf, type ServerError } from '../api.js';
import type { ChartMark, RunCurve } from '../charts/chart.js';
import { asServerError, useSettled, useThrottled } from '../hooks.js';
import { Icon } from '../icons.js';
import { Empty, Fault, Waiting } from '../parts.js';
import { go, place, withQuery } from '../route.js';
import { shownRuns } from '../selection.js';
import { MetricCard } from './metricCard.js';
import { RunPicker } from './runPicker.js';

const AXES: readonly { readonly id: Axis; readonly title: string }[] = [
  { id: 'step', title: 'Step' },
  { id: 'seconds', title: 'Time' },
  { id: 'tokens', title: 'Tokens' },
];
const POINTS = 1000;
/** Least time between two questions for what is new. */
const GROWTH_MS = 1500;

/** What the server said of one run. */
interface RunData {
  readonly run: RunSummary;
  readonly catalog: MetricCatalog;
  readonly whole: Series;
  /** The stretch that is zoomed into, finer than `whole`. */
  readonly part?: Series | undefined;
}

/** The view. */
export function MetricsView(): JSX.Element {
  const { query } = place.value;
  const axis = AXES.find(({ id }) => id === query['x'])?.id ?? 'step';
  const log = query['log'] === '1';
  const smoothing = Math.min(0.99, Math.max(0, Number(query['smooth'] ?? 0) || 0));
  const search = query['search'] ?? '';
  const [zoom, setZoom] = useState<readonly [number, number] | null>(null);
  useEffect(() => setZoom(null), [axis]);
  const shown = shownRuns.value;
  const { data, errors, loading } = useRunData(shown, axis, zoom);
  const groups = useMemo(() => mergedGroups(data, search), [data, search]);
  const onZoom = useCallback((range: readonly [number, number] | null) => setZoom(range), []);
  const set = (changes: Record<string, string | undefined>): void =>
    go(withQuery(changes), { replace: true });
  return (
    <div class="view wide">
      <div class="toolbar">
        <h1>Metrics</h1>
        <RunPicker />
        <label class="search">
          <Icon name="search" />
          <input
            type="search"
            placeholder="Name of a metric"
            aria-label="Search metrics"
            value={search}
            onInput={(event) => set({ search: event.currentTarget.value })}
          />
        </label>
        <span class="grow" />
        {zoom !== null && (
          <button type="button" class="button" onClick={() => setZoom(null)}>
            <Icon name="expand" /> Whole run
          </button>
        )}
        <div class="segments" role="group" aria-label="Horizontal axis">
          {AXES.map(({ id, title }) => (
            <button
              key={id}
              type="button"
              aria-pressed={axis === id}
              onClick={() => set({ x: id === 'step' ? undefined : id })}
            >
              {title}
            </button>
          ))}
        </div>
        <label>
          Smoothing
          <input
            type="range"
            min="0"
            max="0.99"
            step="0.01"
            value={smoothing}
            onInput={(event) =>
              set({
                smooth: event.currentTarget.value === '0' ? undefined : event.currentTarget.value,
              })
            }
          />
          <span class="num smoothing">{smoothing.toFixed(2)}</span>
        </label>
        <label>
          <input
            type="checkbox"
            checked={log}
            onChange={(event) => set({ log: event.currentTarget.checked ? '1' : undefined })}
          />
          Logarithmic
        </label>
      </div>
      {errors.map((error) => (
        <Fault key={error.message} error={error} />
      ))}
      {data.length === 0 && loading && <Waiting what="Reading metrics" />}
      {shown.length === 0 && <Empty title="No run is chosen" />}
      {data.length > 0 && groups.length === 0 && (
        <Empty title={search === '' ? 'No metrics yet' : 'No metric of this name'} />
      )}
      {groups.map(({ id, title, metrics }) => (
        <details key={id} class="metric-group" open>
          <summary>
            <h2>{title}</h2>
            <span class="count">{metrics.length}</span>
          </summary>
          <div class="charts">
            {metrics.map((info) => (
              <Metric
                key={info.key}
                info={info}
                data={data}
                view={{ axis, log, smoothing, zoom, onZoom }}
              />
            ))}
          </div>
        </details>
      ))}
      {groups.length > 0 && (
        <p class="quiet">
          Drag over a chart to look closer, on all of them at once; a double click or Escape shows
          the whole run. Veils with a triangle mark known failure patterns.
        </p>
      )}
    </div>
  );
}

/** How charts are looked at. */
export interface ChartView {
  readonly axis: Axis;
  readonly log: boolean;
  readonly smoothing: number;
  readonly zoom: readonly [number, number] | null;
  readonly onZoom: (zoom: readonly [number, number] | null) => void;
}

function Metric({
  info,
  data,
  view,
}: {
  info: MetricInfo;
  data: readonly RunData[];
  view: ChartView;
}): JSX.Element {
  const { axis } = view;
  const curves = useMemo(
    () =>
      data.flatMap(({ run, whole, part }, index): RunCurve[] => {
        const curve = curveOf(part ?? whole, info.key, axis);
        return curve === undefined ? [] : [{ name: run.name, index, curve }];
      }),
    [data, info.key, axis],
  );
  const marks = useMemo(
    () =>
      data.flatMap(({ run, whole, catalog }) =>
        catalog.marks
          .filter(({ keys }) => keys.includes(info.key))
          .map((mark) => ({ mark, run, drawn: drawnMark(mark, whole, axis) })),
      ),
    [data, info.key, axis],
  );
  return <MetricCard info={info} curves={curves} marks={marks} view={view} />;
}

function drawnMark(mark: Mark, whole: Series, axis: Axis): ChartMark | undefined {
  const from = positionOfStep(whole, axis, mark.fromStep);
  const to = positionOfStep(whole, axis, mark.toStep);
  return from === undefined || to === undefined ? undefined : { from, to, severity: mark.severity };
}

/** Groups in the order of the first run, with the metrics of all; only those whose name is searched for. */
function mergedGroups(data: readonly RunData[], search: string): MetricCatalog['groups'] {
  const groups = new Map<string, { title: string; metrics: Map<string, MetricInfo> }>();
  for (const { catalog } of data) {
    for (const { id, title, metrics } of catalog.groups) {
      const group = groups.get(id) ?? { title, metrics: new Map<string, MetricInfo>() };
      groups.set(id, group);
      for (const info of metrics)
        if (!group.metrics.has(info.key)) group.metrics.set(info.key, withVisibleTexts(info));
    }
  }
  const words = search.toLowerCase();
  const wanted = ({ key, label }: MetricInfo): boolean =>
    `${key} ${label}`.toLowerCase().includes(words);
  return [...groups]
    .map(([id, { title, metrics }]) => ({
      id: id as MetricCatalog['groups'][number]['id'],
      title,
      metrics: [...metrics.values()].filter(wanted),
    }))
    .filter(({ metrics }) => metrics.length > 0);
}

/** What is kept of a run: of the values only those that are new are asked for. */
interface KnownRun extends Omit<RunData, 'run' | 'part'> {
  /** What the values were asked for at. */
  readonly growth: string;
}

/** A run names its metrics as it likes. */
function withVisibleTexts(info: MetricInfo): MetricInfo {
  const [label, explanation] = [info.label, info.explanation].map(visibleText);
  return { ...info, label: label ?? '', explanation: explanation ?? '' };
}

/** Catalog and values of every run, asked for again as it grows and as the zoom changes. */
function useRunData(
  shown: readonly RunSummary[],
  axis: Axis,
  zoom: readonly [number, number] | null,
): { data: readonly RunData[]; errors: readonly ServerError[]; loading: boolean } {
  const known = useRef<ReadonlyMap<string, KnownRun>>(new Map());
  const [wholes, setWholes] = useState(known.current);
  const [parts, setParts] = useState<ReadonlyMap<string, Series>>(new Map());
  const [errors, setErrors] = useState<readonly ServerError[]>([]);
  const [loading, setLoading] = useState(true);
  const ids = shown.map(({ id }) => id).join(',');
  const growth = useThrottled(shown.map(({ id }) => growthOf(id, 'metrics')).join(), GROWTH_MS);
  const settledZoom = useSettled(zoom, 150);
  const reading = useRef(new Map<string, Promise<void>>());
  const isGone = useRef(false);
  useEffect(() => () => void (isGone.current = true), []);
  useEffect(() => {
    let isLate = false;
    const read = async (id: string): Promise<void> => {
      const before = known.current.get(id);
      const grown = growthOf(id, 'metrics');
      if (before?.growth === grown) return;
      const path = `runs/${encodeURIComponent(id)}`;
      const since = before?.whole.cursor;
      const [catalog, next] = await Promise.all([
        ask<MetricCatalog>(address(`${path}/metrics`)),
        ask<Series>(address(`${path}/series`, { points: POINTS, since })),
      ]);
      const whole = continued(before?.whole, next);
      known.current = new Map(known.current).set(id, { catalog, whole, growth: grown });
      if (!isGone.current) setWholes(known.current);
    };
    // One question at a time about a run: the answer to the next one begins where that of the last one ends.
    const readAfterOthers = (id: string): Promise<void> => {
      const before = reading.current.get(id) ?? Promise.resolve();
      const next = before.catch(() => undefined).then(() => read(id));
      reading.current.set(id, next);
      return next;
    };
    setLoading(true);
    const jobs = ids === '' ? [] : ids.split(',').map(readAfterOthers);
    void Promise.allSettled(jobs).then((results) => {
      if (isLate) return;
      setErrors(
        results.flatMap((result) =>
          result.status === 'rejected' ? [asServerError(result.reason)] : [],
        ),
      );
      setLoading(false);
    });
    return () => void (isLate = true);
  }, [ids, growth]);
  useEffect(() => {
    const abort = new AbortController();
    setParts(new Map());
    if (settledZoom === null) return undefined;
    for (const [id, { whole }] of wholes) {
      const range = whole.exact ? undefined : stepsWithin(whole, axis, settledZoom);
      if (range === undefined || !ids.split(',').includes(id)) continue;
      ask<Series>(
        address(`runs/${encodeURIComponent(id)}/series`, { ...range, points: POINTS }),
        abort.signal,
      ).then(
        (part) => setParts((before) => new Map(before).set(id, part)),
        () => undefined, // the coarse curve stays
      );
    }
    return () => abort.abort();
  }, [settledZoom, axis, ids]);
  const data = useMemo(
    () =>
      shown.flatMap((run): RunData[] => {
        const known = wholes.get(run.id);
        return known === undefined ? [] : [{ run, ...known, part: parts.get(run.id) }];
      }),
    [ids, wholes, parts],
  );
  return { data, errors, loading };
}
