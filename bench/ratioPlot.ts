/** Every ratio of bench/results in one picture: a point for the median, a line from the lowest pair to the highest. */
import type { Results } from './results.js';

/** Pixels. */
const [WIDTH, LABELS, RIGHT, ROW, TOP] = [960, 560, 40, 18, 40] as const;
/** Gridlines; the scale is logarithmic, so that twice and half as fast stand equally far from 1. */
const TICKS = [0.25, 0.5, 1, 2, 4, 8, 16];

/** The SVG; the same results give the same text. Cases without another side are left out. */
export function ratioPlot(all: readonly Results[]): string {
  const lines = all.flatMap(({ case: name, against, rows }) =>
    rows.flatMap(({ name: cell, ratio }) =>
      ratio ? [{ label: `${name} against ${against}: ${cell}`, ratio }] : [],
    ),
  );
  const values = lines.flatMap(({ ratio }) => [ratio.lowest, ratio.highest]);
  const low = Math.max(...TICKS.filter((tick) => tick <= Math.min(0.5, ...values)), TICKS[0] ?? 0);
  const high = Math.min(
    ...TICKS.filter((tick) => tick >= Math.max(2, ...values)),
    TICKS.at(-1) ?? 1,
  );
  const at = (ratio: number): string => {
    const place = Math.log(ratio / low) / Math.log(high / low);
    return (LABELS + Math.min(1, Math.max(0, place)) * (WIDTH - LABELS - RIGHT)).toFixed(1);
  };
  const bottom = TOP + lines.length * ROW;
  const grid = TICKS.filter((tick) => tick >= low && tick <= high).map(
    (tick) =>
      `<line x1="${at(tick)}" x2="${at(tick)}" y1="${TOP}" y2="${bottom}" stroke="${tick === 1 ? '#000000' : '#cccccc'}"/>` +
      `<text x="${at(tick)}" y="${TOP - 6}" text-anchor="middle">${tick}×</text>`,
  );
  const marks = lines.map(({ label, ratio }, index) => {
    const y = TOP + (index + 0.5) * ROW;
    const color = ratio.median >= 1 ? '#228833' : '#ee6677';
    return (
      `<text x="${LABELS - 10}" y="${y + 4}" text-anchor="end">${escaped(label)}</text>` +
      `<line x1="${at(ratio.lowest)}" x2="${at(ratio.highest)}" y1="${y}" y2="${y}" stroke="${color}" stroke-width="3"/>` +
      `<circle cx="${at(ratio.median)}" cy="${y}" r="4" fill="${color}"/>`
    );
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${bottom + 16}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="#ffffff"/>',
    `<text x="${WIDTH / 2}" y="16" text-anchor="middle" font-size="14">posttrain, times as fast as the other side</text>`,
    ...grid,
    ...marks,
    '</svg>\n',
  ].join('\n');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
