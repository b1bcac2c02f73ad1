/**
 * A run as one file of HTML that can be sent to somebody: its facts, what was noticed, every curve, some samples. It needs
 * no server and no script, and asks nothing of the network.
 */
import type { Mark, MetricCatalog, RunDetail, SampleGroup, Series } from '../protocol.js';
import { chartSvg } from './chartSvg.js';
import { curveOf } from './curves.js';
import { flattenSettings } from './settings.js';
import { formatDuration, formatNumber, visibleText } from './format.js';
import { escapeMarkup } from './markup.js';

/** What the report is made of. */
export interface ReportInputs {
  readonly run: RunDetail;
  readonly catalog: MetricCatalog;
  readonly series: Series;
  /** Groups whose completions are quoted. */
  readonly groups: readonly SampleGroup[];
  /** ISO 8601. */
  readonly made: string;
}

/** Dark on white, for print as well. */
const COLOURS = { text: '#171b21', grid: '#e3e7ec', background: '#ffffff' };
const LINE = '#0072b2';

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #171b21; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; } h2 { margin: 2rem 0 .6rem; border-bottom: 1px solid #dfe3e9; }
.quiet { color: #59636f; } .charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(22rem, 1fr)); gap: 1rem; }
figure { margin: 0; break-inside: avoid; } figure svg { width: 100%; height: auto; } figcaption { font-size: 13px; color: #59636f; }
table { border-collapse: collapse; font-size: 14px; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; border-bottom: 1px solid #eef0f3; }
th { font-weight: 500; color: #59636f; white-space: nowrap; } td, pre { overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: #f6f7f9; padding: .6rem .8rem; border-radius: 6px; margin: .3rem 0; font-size: 13px; unicode-bidi: plaintext; }
.mark { border-left: 4px solid #8a5a00; background: #fff4d9; padding: .5rem .8rem; margin: .4rem 0; } .failure { border-left: 4px double #b3261e; background: #fdeae8; }
`;

/** The whole file. Every text of the run is escaped. */
export function reportHtml(inputs: ReportInputs): string {
  const { run, catalog, groups, made } = inputs;
  const title = `${run.name}, ${run.method}`;
  return [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    // Should an escape ever fail, nothing of it runs and nothing is fetched.
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${escaped(title)}</title>`,
    `<style>${STYLE}</style>`,
    '</head>',
    '<body>',
    `<h1>${escaped(run.name)}</h1>`,
    `<p class="quiet">Report of ${escaped(made)}, by posttrain.</p>`,
    facts(run),
    catalog.marks.length > 0 ? '<h2>Noticed</h2>' : '',
    ...catalog.marks.map(markHtml),
    ...catalog.groups.flatMap((group) => groupHtml(group, inputs)),
    groups.length > 0 ? '<h2>Samples</h2>' : '',
    ...groups.map(sampleHtml),
    '<h2>Settings</h2>',
    table(flattenSettings(run.config)),
    '<h2>Inputs and versions</h2>',
    table(flattenSettings({ ...run.inputs, versions: run.versions, commit: run.commit })),
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function facts(run: RunDetail): string {
  const progress = run.totalSteps === null ? `${run.step}` : `${run.step} of ${run.totalSteps}`;
  const state = run.message === null ? run.state : `${run.state}: ${run.message}`;
  return table([
    ['Method', run.preset === null ? run.method : `${run.method} (${run.preset})`],
    ['State', state],
    ['Steps', progress],
    ['Took', formatDuration(run.seconds)],
    ['Model', run.model ?? '—'],
    ['Data', run.data ?? '—'],
    ['Seed', String(run.seed ?? '—')],
    ['Started', run.started ?? '—'],
    ['Command', run.command.join(' ')],
  ]);
}

function markHtml({ severity, title, fromStep, toStep, finding, advice }: Mark): string {
  return `<div class="mark ${severity === 'failure' ? 'failure' : ''}"><strong>${escaped(title)}</strong> <span class="quiet">steps ${fromStep} to ${toStep}</span><br>${escaped(finding)}<br><span class="quiet">${escaped(advice)}</span></div>`;
}

function groupHtml(
  { title, metrics }: MetricCatalog['groups'][number],
  { run, series }: ReportInputs,
): string[] {
  const figures = metrics.flatMap(({ key, label, unit, explanation, last }) => {
    const curve = curveOf(series, key, 'step');
    if (curve === undefined) return [];
    const svg = chartSvg({
      title: unit === null ? label : `${label}, ${unit}`,
      xLabel: 'step',
      curves: [{ ...curve, name: run.name, colour: LINE, dash: [] }],
      log: false,
      colours: COLOURS,
      width: 480,
      height: 240,
    });
    return [
      `<figure>${svg}<figcaption>${escaped(explanation)} Last: ${escaped(formatNumber(last))}.</figcaption></figure>`,
    ];
  });
  return figures.length === 0
    ? []
    : [`<h2>${escaped(title)}</h2>`, '<div class="charts">', ...figures, '</div>'];
}

function sampleHtml({ step, prompt, samples }: SampleGroup): string {
  const completions = samples.map(
    ({ reward, advantage, finishReason, completion }) =>
      `<p class="quiet">reward ${escaped(formatNumber(reward))}, advantage ${escaped(formatNumber(advantage))}${finishReason === null ? '' : `, ended by ${escaped(finishReason)}`}</p><pre>${escaped(completion)}</pre>`,
  );
  return `<h3>Step ${step}</h3><pre>${escaped(prompt)}</pre>${completions.join('')}`;
}

function table(rows: readonly (readonly [string, string])[]): string {
  const lines = rows.map(
    ([name, value]) => `<tr><th>${escaped(name)}</th><td>${escaped(value)}</td></tr>`,
  );
  return `<table>${lines.join('')}</table>`;
}

function escaped(text: string): string {
  return escapeMarkup(visibleText(text));
}
