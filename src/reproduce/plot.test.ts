import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { curvePlot, curvePoints, type Curves } from './plot.js';

const CURVES: Curves = {
  title: 'Two < three & more',
  x: 'step',
  y: 'accuracy',
  series: [
    { name: 'first', points: [[0, 0.1, 0.3], [5, 0.5, 0.7]] }, // prettier-ignore
    { name: 'second', points: [[0, 0.2], [5, 0.9]], intervals: [[0, 0.1, 0.3]] }, // prettier-ignore
  ],
};

describe('curvePlot', () => {
  test('the same curves give the same text, whatever was drawn before', async () => {
    const first = await curvePlot(CURVES);
    await curvePlot({ ...CURVES, title: 'another' });
    assert.equal(await curvePlot(CURVES), first);
  });

  test('title, names of axes and series are in it, escaped', async () => {
    const svg = await curvePlot(CURVES);
    for (const text of ['Two &lt; three &amp; more', '>step<', '>accuracy<', '>first<', '>second<'])
      assert.ok(svg.includes(text), text);
  });

  test('a mean is bold; several seeds have a thin line each, one seed has none; intervals are bars', async () => {
    const svg = await curvePlot(CURVES);
    const ofSeries = (width: string, color: string): number =>
      svg.match(new RegExp(`<path[^>]*stroke="${color}"[^>]*>`, 'g'))?.filter((path) => path.includes(`stroke-width="${width}"`) || (width === '1' && !path.includes('stroke-width'))).length ?? 0; // prettier-ignore
    assert.equal(ofSeries('2.5', '#4477aa'), 1);
    assert.equal(ofSeries('2.5', '#ee6677'), 1);
    assert.equal(ofSeries('1', '#4477aa'), 2);
    assert.equal(ofSeries('1', '#ee6677'), 0);
    assert.equal(ofSeries('1.5', '#ee6677'), 1);
  });
});

describe('curvePoints', () => {
  test('by hand: a value for each seed at every measured step, NaN where a seed was not measured', () => {
    const points = curvePoints([
      [
        { step: 5, value: 0.5 },
        { step: 0, value: 0.1 },
      ],
      [{ step: 5, value: 0.7 }],
    ]);
    assert.deepEqual(points, [
      [0, 0.1, NaN],
      [5, 0.5, 0.7],
    ]);
  });
});
