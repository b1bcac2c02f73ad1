/** Curves as SVG, drawn without a browser. Knows points and names, not what they are about. */

/** What is drawn. */
export interface Curves {
  readonly title: string;
  /** Names of the axes. */
  readonly x: string;
  readonly y: string;
  readonly series: readonly {
    readonly name: string;
    readonly points: readonly (readonly [x: number, y: number])[];
  }[];
}

/** The SVG of some curves. The same curves give the same text. */
export async function curvePlot({ title, x, y, series }: Curves): Promise<string> {
  // Loaded here: it is large, and most commands draw nothing.
  const echarts = await import('echarts');
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 800, height: 480 });
  try {
    chart.setOption({
      animation: false,
      title: { text: title },
      legend: { bottom: 0 },
      xAxis: { type: 'value', name: x, nameLocation: 'middle', nameGap: 24 },
      yAxis: { type: 'value', name: y, scale: true },
      series: series.map(({ name, points }) => ({
        type: 'line',
        name,
        data: points.map((point) => [...point]),
        symbolSize: 4,
      })),
    });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}
