/** A chart of uPlot in a component: curves of several runs, marks, a zoom that all charts share. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
import type { JSX } from 'preact';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { positive, smooth, type Axis, type Curve } from '../../../src/dashboard/view/curves.js';
import { formatDuration, formatNumber } from '../../../src/dashboard/view/format.js';
import { cssColor, paletteVersion, runColour, runDash } from '../theme.js';

/** A curve of a chosen run. */
export interface RunCurve {
  readonly name: string;
  /** Place among the chosen runs: it decides the colour. */
  readonly index: number;
  readonly curve: Curve;
}

/** A stretch of the axis in which something was noticed. */
export interface ChartMark {
  readonly from: number;
  readonly to: number;
  readonly severity: 'warning' | 'failure';
}

/** What a chart shows. */
export interface ChartProps {
  readonly label: string;
  readonly curves: readonly RunCurve[];
  readonly axis: Axis;
  /** What x counts, where it is none of the axes. */
  readonly xName?: string;
  readonly log: boolean;
  readonly smoothing: number;
  readonly marks: readonly ChartMark[];
  readonly zoom: readonly [number, number] | null;
  readonly height: number;
  readonly onZoom: (zoom: readonly [number, number] | null) => void;
  /** Gets the canvas once it is drawn, for a picture of it. */
  readonly onCanvas?: (canvas: HTMLCanvasElement) => void;
}

const WHOLE_INCREMENTS = Array.from({ length: 16 }, (_, power) =>
  [1, 2, 5].map((factor) => factor * 10 ** power),
).flat();

const SYNC = uPlot.sync('metrics');

/** x of an axis as its ticks say it. */
export function formatX(value: number, axis: Axis): string {
  if (axis === 'seconds') return formatDuration(value);
  if (Math.abs(value) >= 1e6) return `${formatNumber(value / 1e6, 3)}M`;
  return formatNumber(value);
}

/** The chart. Arrow keys walk along it when it has the focus, and say what they find. */
export function Chart(props: ChartProps): JSX.Element {
  const { curves, axis, log, smoothing, marks, zoom, height, onZoom, onCanvas } = props;
  const place = useRef<HTMLDivElement>(null);
  const legend = useRef<HTMLUListElement>(null);
  const said = useRef<HTMLParagraphElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const palette = paletteVersion.value;

  const lines = useMemo(() => linesOf(curves, { log, smoothing }), [curves, log, smoothing]);
  const shape = lines.map(({ kind, run }) => `${kind}${run}`).join();

  useEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const chart = new uPlot(
      options(element.clientWidth, latest, legend, lines),
      dataOf(lines),
      element,
    );
    plot.current = chart;
    SYNC.sub(chart);
    onCanvas?.(chart.ctx.canvas);
    const observer = new ResizeObserver(([entry]) => {
      if (entry !== undefined && entry.contentRect.width > 0)
        chart.setSize({ width: entry.contentRect.width, height: latest.current.height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      SYNC.unsub(chart);
      chart.destroy();
      plot.current = null;
    };
  }, [shape, axis, log, palette, height]);

  useEffect(() => {
    const chart = plot.current;
    if (chart === null) return;
    chart.setData(dataOf(lines), false);
    setRange(chart, zoom);
    writeLegend(legend.current, chart, lines, null);
  }, [lines, zoom, marks, shape, axis, palette, height]);

  const walk = (event: KeyboardEvent): void => {
    const chart = plot.current;
    if (chart === null) return;
    if (event.key === 'Escape') return onZoom(null);
    const direction = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (direction === undefined) return;
    event.preventDefault();
    const x = chart.data[0];
    const scale = chart.scales['x'];
    const first = x.findIndex((value) => value >= (scale?.min ?? -Infinity));
    const last = x.findLastIndex((value) => value <= (scale?.max ?? Infinity));
    const next = Math.min(last, Math.max(first, (chart.cursor.idx ?? last + 1) + direction));
    const at = x[next];
    if (at === undefined) return;
    chart.setCursor({ left: chart.valToPos(at, 'x'), top: chart.over.clientHeight / 2 });
    if (said.current !== null)
      said.current.textContent = `${props.xName ?? axis} ${formatX(at, axis)}: ${lines
        .filter(({ kind }) => kind === 'main')
        .map(({ run, name }, index) => {
          const value = chart.data[lineIndex(lines, index)]?.[next];
          return `${name || run} ${formatNumber(value)}`;
        })
        .join(', ')}`;
  };
  return (
    <div class="chart">
      <div
        ref={place}
        class="plot"
        role="application"
        aria-roledescription="chart"
        aria-label={describe(props)}
        tabIndex={0}
        onKeyDown={walk}
      />
      <ul ref={legend} class="legend" aria-hidden="true">
        {curves.map(({ name, index }) => (
          <li key={index}>
            <svg class="swatch" viewBox="0 0 20 10">
              <line
                x1="0"
                x2="20"
                y1="5"
                y2="5"
                style={{ stroke: `var(${runColour(index)})` }}
                stroke-dasharray={runDash(index).join(' ') || 'none'}
              />
            </svg>
            <span class="legend-name">{name}</span>
            <span class="num legend-value" />
          </li>
        ))}
      </ul>
      <p ref={said} class="hidden" aria-live="polite" />
    </div>
  );
}

/** What a reader hears who does not see the curves. */
function describe({ label, curves, axis, xName = axis }: ChartProps): string {
  const facts = curves.map(({ name, curve }) => {
    const values = curve.y.filter((value) => value !== null);
    const first = formatNumber(values[0]);
    return `${name}: from ${first} to ${formatNumber(values.at(-1))}`;
  });
  return `${label} by ${xName}. ${facts.join('. ')}. Arrow keys read values.`;
}

interface Line {
  readonly kind: 'main' | 'raw' | 'low' | 'high';
  readonly run: number;
  readonly name: string;
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
}

/** The lines that make up the curves: smoothed over raw ones, or a mean within its extremes. */
function linesOf(
  curves: readonly RunCurve[],
  { log, smoothing }: { log: boolean; smoothing: number },
): Line[] {
  const shown = (y: readonly (number | null)[]) => (log ? positive(y) : y);
  return curves.flatMap(({ name, index, curve: { x, y, low, high } }): Line[] => {
    const line = (kind: Line['kind'], values: readonly (number | null)[]): Line => ({
      kind,
      run: index,
      name,
      x,
      y: shown(values),
    });
    if (smoothing > 0) return [line('raw', y), line('main', smooth(y, smoothing))];
    if (low !== undefined && high !== undefined)
      return [line('low', low), line('high', high), line('main', y)];
    return [line('main', y)];
  });
}

/** Place of the n-th main line in uPlot's data. */
function lineIndex(lines: readonly Line[], nth: number): number {
  let seen = -1;
  return 1 + lines.findIndex(({ kind }) => kind === 'main' && ++seen === nth);
}

function dataOf(lines: readonly Line[]): uPlot.AlignedData {
  if (lines.length === 0) return [[]];
  return uPlot.join(
    lines.map(({ x, y }): uPlot.AlignedData => [[...x], [...y]]),
    // Nulls of a run are gaps; what another run has no x for is not.
    lines.map(() => [0, 2]),
  );
}

function setRange(chart: uPlot, zoom: readonly [number, number] | null): void {
  const x = chart.data[0];
  const [first = 0] = x;
  const last = x.at(-1) ?? 1;
  const [min, max] = zoom ?? [first, last > first ? last : first + 1];
  chart.setScale('x', { min, max });
}

function options(
  width: number,
  latest: { readonly current: ChartProps },
  legend: { readonly current: HTMLElement | null },
  lines: readonly Line[],
): uPlot.Options {
  const { axis, log, height } = latest.current;
  const grid = { stroke: cssColor('--grid'), width: 1 };
  const axisLook = {
    stroke: cssColor('--quiet'),
    grid,
    ticks: { ...grid, size: 4 },
    font: '11px system-ui, sans-serif',
  };
  const bands: uPlot.Band[] = lines.flatMap(({ kind, run }, index) =>
    kind === 'high'
      ? [
          {
            series: [index + 1, index] as [number, number],
            fill: faded(cssColor(runColour(run)), 0.16),
          },
        ]
      : [],
  );
  return {
    width: Math.max(120, width),
    height,
    legend: { show: false },
    padding: [8, 22, 0, 0],
    bands,
    scales: {
      x: { time: false },
      y: log
        ? { distr: 3 }
        : {
            range: (_self, low, high) => {
              if (low === null || high === null) return [0, 1];
              const padding = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
              return [low - padding, high + padding];
            },
          },
    },
    axes: [
      {
        ...axisLook,
        size: 26,
        space: 70,
        // Steps and tokens are whole: there is no step 2.5.
        ...(axis !== 'seconds' && { incrs: WHOLE_INCREMENTS }),
        values: (_self, ticks) => ticks.map((x) => formatX(x, axis)),
      },
      {
        ...axisLook,
        size: 56,
        space: 34,
        values: (_self, ticks) =>
          ticks.map((y: number | null) => (y === null ? '' : formatNumber(y, 3))),
      },
    ],
    series: [{}, ...lines.map(seriesOf)],
    cursor: {
      sync: { key: SYNC.key, setSeries: false },
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      bind: {
        dblclick: () => () => {
          latest.current.onZoom(null);
          return null;
        },
      },
    },
    hooks: {
      setSelect: [
        (chart) => {
          const { left, width: wide } = chart.select;
          if (wide < 4) return;
          latest.current.onZoom([chart.posToVal(left, 'x'), chart.posToVal(left + wide, 'x')]);
          chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        },
      ],
      setCursor: [(chart) => writeLegend(legend.current, chart, lines, chart.cursor.idx ?? null)],
      drawAxes: [(chart) => drawMarks(chart, latest.current.marks)],
    },
  };
}

function seriesOf({ kind, run }: Line): uPlot.Series {
  const stroke = cssColor(runColour(run));
  const spanGaps = false;
  switch (kind) {
    case 'main':
      return { stroke, width: 1.75, dash: runDash(run), spanGaps, points: pointsWhereAlone };
    case 'raw':
      return { stroke: faded(stroke, 0.28), width: 1, spanGaps, points: { show: false } };
    case 'low':
    case 'high':
      return { stroke: 'transparent', width: 0, spanGaps, points: { show: false } };
  }
}

/** Few values are shown as points too: a single one makes no line. */
const pointsWhereAlone: uPlot.Series.Points = {
  show: (chart, series) =>
    [...(chart.data[series] ?? [])].filter((value) => value != null).length <= 12,
  size: 5,
};

/** `rgb(1, 2, 3)` with an opacity. */
function faded(colour: string, opacity: number): string {
  return colour.replace(/^rgb\(([^)]*)\)$/, (_all, parts: string) => `rgba(${parts}, ${opacity})`);
}

/** A veil over what was noticed, and a triangle above it: colour alone would not be seen by all. */
function drawMarks(chart: uPlot, marks: readonly ChartMark[]): void {
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { from, to, severity } of marks) {
    const colour = cssColor(severity === 'failure' ? '--bad' : '--warn');
    const left = chart.valToPos(from, 'x', true);
    const right = Math.max(left + 2, chart.valToPos(to, 'x', true));
    ctx.fillStyle = faded(colour, 0.1);
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = colour;
    const size = 5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(left - size, bbox.top);
    ctx.lineTo(left + size, bbox.top);
    ctx.lineTo(left, bbox.top + 1.6 * size);
    ctx.fill();
    ctx.fillRect(left - 0.5, bbox.top, 1, bbox.height);
  }
  ctx.restore();
}

/** Writes the values at the cursor, or the last ones, past the component: it happens at every move of the mouse. */
function writeLegend(
  legend: HTMLElement | null,
  chart: uPlot,
  lines: readonly Line[],
  at: number | null,
): void {
  const places = legend?.querySelectorAll('.legend-value') ?? [];
  places.forEach((element, nth) => {
    const line = chart.data[lineIndex(lines, nth)];
    const value = at === null ? [...(line ?? [])].findLast((entry) => entry != null) : line?.[at];
    element.textContent = value == null ? '—' : formatNumber(value);
  });
}
