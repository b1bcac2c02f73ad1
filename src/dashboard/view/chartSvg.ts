/** A chart as a file of its own: SVG with its numbers, colours and legend. Plain TypeScript: it runs in the browser. */
import { extent, ticks, type Curve } from './curves.js';
import { formatNumber } from './format.js';
import { escapeMarkup } from './markup.js';

/** A line with how it looks. */
export interface DrawnCurve extends Curve {
  readonly name: string;
  /** A colour of CSS. */
  readonly colour: string;
  /** Lengths of dashes and gaps; none draws it through. */
  readonly dash: readonly number[];
}

/** What is drawn. */
export interface ChartDrawing {
  readonly title: string;
  readonly xLabel: string;
  readonly curves: readonly DrawnCurve[];
  readonly log: boolean;
  /** The stretch of the x axis; all of it where missing. */
  readonly range?: readonly [number, number] | undefined;
  readonly colours: { readonly text: string; readonly grid: string; readonly background: string };
  readonly width: number;
  readonly height: number;
}

const MARGIN = { left: 62, right: 16, top: 34, bottom: 42 };
const LEGEND_LINE = 17;

/** The chart as the text of an SVG file. Names are escaped. */
export function chartSvg(drawing: ChartDrawing): string {
  const { width, height, colours, curves, title, xLabel } = drawing;
  const tall = height + curves.length * LEGEND_LINE;
  const plot = {
    left: MARGIN.left,
    right: width - MARGIN.right,
    top: MARGIN.top,
    bottom: height - MARGIN.bottom,
  };
  const scale = scales(drawing, plot);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${tall}" viewBox="0 0 ${width} ${tall}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escapeMarkup(title)}">`,
    `<rect width="${width}" height="${tall}" fill="${escapeMarkup(colours.background)}"/>`,
    text(plot.left, 20, title, { fill: colours.text, size: 14, weight: 600 }),
  ];
  if (scale === undefined) {
    parts.push(text(plot.left, plot.top + 20, 'No values.', { fill: colours.text }), '</svg>');
    return parts.join('\n');
  }
  for (const value of scale.yTicks) {
    const y = round(scale.y(value));
    parts.push(
      `<line x1="${plot.left}" x2="${plot.right}" y1="${y}" y2="${y}" stroke="${escapeMarkup(colours.grid)}"/>`,
      text(plot.left - 6, y + 4, formatNumber(value), { fill: colours.text, anchor: 'end' }),
    );
  }
  for (const value of scale.xTicks)
    parts.push(
      text(round(scale.x(value)), plot.bottom + 16, formatNumber(value), {
        fill: colours.text,
        anchor: 'middle',
      }),
    );
  parts.push(
    text((plot.left + plot.right) / 2, plot.bottom + 33, xLabel, {
      fill: colours.text,
      anchor: 'middle',
    }),
  );
  curves.forEach((curve, index) => {
    const line = `fill="none" stroke="${escapeMarkup(curve.colour)}" stroke-width="1.6" stroke-dasharray="${curve.dash.join(' ') || 'none'}"`;
    parts.push(`<path d="${pathOf(curve, scale, drawing)}" ${line}/>`);
    const y = height + index * LEGEND_LINE;
    parts.push(
      `<line x1="${plot.left}" x2="${plot.left + 22}" y1="${y - 4}" y2="${y - 4}" ${line}/>`,
      text(plot.left + 30, y, curve.name, { fill: colours.text }),
    );
  });
  parts.push('</svg>');
  return parts.join('\n');
}

interface Scales {
  readonly x: (value: number) => number;
  readonly y: (value: number) => number;
  readonly xTicks: readonly number[];
  readonly yTicks: readonly number[];
}

function scales(
  { curves, range, log }: ChartDrawing,
  plot: { left: number; right: number; top: number; bottom: number },
): Scales | undefined {
  const across = range ?? extent(curves.map(({ x }) => x));
  if (across === undefined) return undefined;
  const shown = curves.map(({ x, y }) =>
    y.filter((value, index) => {
      const at = x[index] ?? NaN;
      return at >= across[0] && at <= across[1] && (!log || (value !== null && value > 0));
    }),
  );
  const up = extent(shown);
  if (up === undefined) return undefined;
  const level = log ? Math.log10 : (value: number) => value;
  const [low, high] = [level(up[0]), level(up[1])];
  // A line that never changes lies in the middle.
  const padding = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.05 || 1;
  const bounds = [low - padding, high + padding] as const;
  const yTicks = log
    ? ticks(bounds, 4)
        .filter(Number.isInteger)
        .map((power) => 10 ** power)
    : ticks(bounds, 5);
  const along = across[1] > across[0] ? across[1] - across[0] : 1;
  return {
    x: (value) => plot.left + ((value - across[0]) / along) * (plot.right - plot.left),
    y: (value) =>
      plot.bottom -
      ((level(value) - bounds[0]) / (bounds[1] - bounds[0])) * (plot.bottom - plot.top),
    xTicks: ticks(across, 6),
    yTicks: yTicks.length > 0 ? yTicks : [up[0], up[1]],
  };
}

/** `M … L …`, with a new beginning after each gap. */
function pathOf({ x, y }: Curve, scale: Scales, { range, log }: ChartDrawing): string {
  const commands: string[] = [];
  let isDrawing = false;
  x.forEach((at, index) => {
    const value = y[index];
    const outside = range !== undefined && (at < range[0] || at > range[1]);
    if (value === null || value === undefined || outside || (log && value <= 0)) {
      isDrawing = false;
      return;
    }
    commands.push(`${isDrawing ? 'L' : 'M'}${round(scale.x(at))} ${round(scale.y(value))}`);
    isDrawing = true;
  });
  return commands.join('');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function text(
  x: number,
  y: number,
  content: string,
  look: { fill: string; anchor?: string; size?: number; weight?: number },
): string {
  const { fill, anchor = 'start', size = 12, weight = 400 } = look;
  return `<text x="${x}" y="${y}" fill="${escapeMarkup(fill)}" text-anchor="${anchor}" font-size="${size}" font-weight="${weight}">${escapeMarkup(content)}</text>`;
}
