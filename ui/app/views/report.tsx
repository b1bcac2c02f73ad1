/** A button that makes a report of a run, to send to somebody. */
import { useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type {
  MetricCatalog,
  RunDetail,
  SampleGroup,
  SamplePage,
  Series,
} from '../../../src/dashboard/protocol.js';
import { reportHtml } from '../../../src/dashboard/view/report.js';
import { address, ask, type ServerError } from '../api.js';
import { download } from '../download.js';
import { asServerError } from '../hooks.js';
import { Icon } from '../icons.js';

const POINTS = 400;
const GROUPS = 4;

/** The button. */
export function ReportButton({ run }: { run: RunDetail }): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ServerError | undefined>();
  const make = (): void => {
    setBusy(true);
    setError(undefined);
    saveReport(run)
      .catch((reason: unknown) => setError(asServerError(reason)))
      .finally(() => setBusy(false));
  };
  return (
    <>
      {error !== undefined && <span role="alert">{error.message}</span>}
      <button type="button" class="button" disabled={busy} onClick={make}>
        <Icon name="download" /> {busy ? 'Making the report' : 'Report'}
      </button>
    </>
  );
}

async function saveReport(run: RunDetail): Promise<void> {
  const path = `runs/${encodeURIComponent(run.id)}`;
  const [catalog, series, latest] = await Promise.all([
    ask<MetricCatalog>(address(`${path}/metrics`)),
    ask<Series>(address(`${path}/series`, { points: POINTS })),
    ask<SamplePage>(address(`${path}/samples`, { sort: '-step', limit: 100 })),
  ]);
  const places = latest.samples
    .filter(({ kind }) => kind === 'completion')
    .map(({ step, promptIndex }) => `${step}/${promptIndex}`);
  const groups = await Promise.all(
    [...new Set(places)]
      .slice(0, GROUPS)
      .map((place) => ask<SampleGroup>(address(`${path}/groups/${place}`))),
  );
  const html = reportHtml({ run, catalog, series, groups, made: new Date().toISOString() });
  download(`${run.name}-report.html`, new Blob([html], { type: 'text/html' }));
}
