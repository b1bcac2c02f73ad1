/** Curves as SVG, drawn without a browser. Knows points and names, not what they are about. */
import type { SeriesOption } from 'echarts';

/** One point: x, and a value for each seed. */
export type CurvePoint = readonly [x: number, ...values: number[]];

/** What is drawn. */
export interface Curves {
  readonly title: string;
  /** Names of the axes. */
  readonly x: string;
  readonly y: string;
  /** Whether x is drawn on a logarithmic scale. */
  readonly logX?: boolean | undefined;
  readonly series: readonly {
    readonly name: string;
    /** A bold line through the means; where there are several values, a thin one for each seed. */
    readonly points: readonly CurvePoint[];
    /** Ends of an interval at each point, drawn as a bar. */
    readonly intervals?: readonly (readonly [x: number, low: number, high: number])[] | undefined;
  }[];
}

const COLOURS = [
  '#4477aa',
  '#ee6677',
  '#228833',
  '#ccbb44',
  '#66ccee',
  '#aa3377',
  '#332288',
  '#ee8866',
  '#777777',
  '#000000',
];

/** The SVG of some curves. The same curves give the same text. */
export async function curvePlot({ title, x, y, logX = false, series }: Curves): Promise<string> {
  // Loaded here: it is large, and most commands draw nothing.
  const echarts = await import('echarts');
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 840, height: 520 });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      title: { text: title, left: 'center' },
      // Named one by one, so that the thin lines have no entry.
      legend: { bottom: 0, data: series.map(({ name }) => name) },
      grid: { left: 64, right: 32, top: 48, bottom: 88 },
      xAxis: {
        type: logX ? 'log' : 'value',
        name: x,
        nameLocation: 'middle',
        nameGap: 28,
      },
      yAxis: { type: 'value', name: y, nameLocation: 'middle', nameGap: 44, scale: true },
      series: series.flatMap((one, index) => linesOf(one, COLOURS[index % COLOURS.length] ?? '')),
    });
    // Classes and their styles are for the pointer over a page; their names count what this process has drawn.
    return chart
      .renderToSVGString()
      .replaceAll(/ class="zr[^"]*"/g, '')
      .replaceAll(/<style[\s\S]*?<\/style>\s*/g, '')
      .replaceAll(/\bzr\d+-/g, 'zr-');
  } finally {
    chart.dispose();
  }
}

function linesOf(one: Curves['series'][number], color: string): SeriesOption[] {
  const { name, points, intervals = [] } = one;
  const seeds = Math.max(0, ...points.map(({ length }) => length - 1));
  const line = (
    data: (readonly [number, number])[],
    look: { name: string; width: number; opacity: number; symbolSize: number },
  ): SeriesOption => ({
    type: 'line',
    name: look.name,
    data: data.filter(([, value]) => Number.isFinite(value)).map((point) => [...point]),
    symbolSize: look.symbolSize,
    showSymbol: look.symbolSize > 0,
    itemStyle: { color },
    lineStyle: { color, width: look.width, opacity: look.opacity },
  });
  const thin = Array.from({ length: seeds > 1 ? seeds : 0 }, (_, seed) =>
    line(
      points.map(([at, ...values]) => [at, values[seed] ?? NaN]),
      { name: `${name}, ${seed}`, width: 1, opacity: 0.35, symbolSize: 0 },
    ),
  );
  const bars = intervals.map(([at, low, high], index) =>
    line(
      [
        [at, low],
        [at, high],
      ],
      { name: `${name}, interval ${index}`, width: 1.5, opacity: 0.8, symbolSize: 0 },
    ),
  );
  const means = points.map(([at, ...values]): [number, number] => {
    const known = values.filter((value) => Number.isFinite(value));
    return [at, known.reduce((sum, value) => sum + value, 0) / known.length];
  });
  return [...thin, ...bars, line(means, { name, width: 2.5, opacity: 1, symbolSize: 5 })];
}

/** Points of several curves, one for each seed, by the steps at which any of them was measured. */
export function curvePoints(
  curves: readonly (readonly { readonly step: number; readonly value: number }[])[],
): CurvePoint[] {
  const steps = [...new Set(curves.flatMap((curve) => curve.map(({ step }) => step)))];
  return steps
    .sort((a, b) => a - b)
    .map((step) => [
      step,
      ...curves.map((curve) => curve.find((point) => point.step === step)?.value ?? NaN),
    ]);
}
