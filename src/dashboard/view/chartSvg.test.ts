import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { chartSvg, type ChartDrawing } from './chartSvg.js';
import { escapeMarkup } from './markup.js';

function drawing(facts: Partial<ChartDrawing> = {}): ChartDrawing {
  return {
    title: 'reward',
    xLabel: 'step',
    log: false,
    colours: { text: '#000', grid: '#ccc', background: '#fff' },
    width: 478,
    height: 276,
    curves: [{ name: 'a', colour: '#00f', dash: [4, 2], x: [0, 10, 20, 30], y: [0, 1, null, 1] }],
    ...facts,
  };
}

const paths = (svg: string) => [...svg.matchAll(/<path d="([^"]*)"/g)].map(([, path]) => path);

describe('a chart as SVG', () => {
  test('draws each value at its place, and begins anew after a gap', () => {
    // The plot is 400 by 200 at (62, 34); 0 to 1 with a margin of a twentieth of it above and below.
    assert.deepEqual(paths(chartSvg(drawing())), ['M62 224.9L195.3 43.1M462 43.1']);
  });
  test('draws only the stretch that is looked at', () => {
    const [path] = paths(chartSvg(drawing({ range: [0, 10] })));
    assert.equal(path, 'M62 224.9L462 43.1');
  });
  test('leaves out what a logarithm does not have', () => {
    const [path] = paths(chartSvg(drawing({ log: true })));
    assert.match(path ?? '', /^M195\.3 [\d.]+M462 [\d.]+$/);
  });
  test('says so where there is nothing', () => {
    assert.match(chartSvg(drawing({ curves: [] })), /No values\./);
  });
  test('cannot be broken out of by the name of a run', () => {
    const name = '</text><script>alert(1)</script>';
    const svg = chartSvg(drawing({ title: '"><x', curves: [{ ...drawing().curves[0]!, name }] }));
    assert.doesNotMatch(svg, /<script|"><x/);
    assert.match(svg, /&lt;script&gt;/);
  });
});

describe('the escaping of markup', () => {
  test('covers both quotes, and characters that no XML may have', () => {
    assert.equal(
      escapeMarkup(`<a b="c" d='e'>&\u0000`),
      '&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\ufffd',
    );
  });
});
