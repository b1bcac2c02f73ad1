/** One run: how it stands, what it was started with, what it said, what to take away. */
import type { JSX } from 'preact';
import type { RunDetail, RunLog } from '../../../src/dashboard/protocol.js';
import { formatDuration, formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import { flattenSettings } from '../../../src/dashboard/view/settings.js';
import { address, growthOf, runs } from '../api.js';
import { useAnswer, useThrottled } from '../hooks.js';
import { Empty, Fact, Fault, MarkList, Progress, StateBadge, Waiting } from '../parts.js';
import { href, place } from '../route.js';
import { ReportButton } from './report.js';

/** The view. */
export function RunView(): JSX.Element {
  const id = place.value.path[1] ?? '';
  const growth = useThrottled(growthOf(id, 'metrics'), 3000);
  const summary = runs.value.get(id);
  const detail = useAnswer<RunDetail>(
    address(`runs/${encodeURIComponent(id)}`),
    // A folder may be deleted and made anew under its name.
    `${summary?.state} ${summary?.started} ${growth}`,
  );
  const log = useAnswer<RunLog>(
    address(`runs/${encodeURIComponent(id)}/log`, { lines: 200 }),
    growth,
  );
  if (detail.error !== undefined && detail.data === undefined)
    return (
      <div class="view">
        <Fault error={detail.error} />
      </div>
    );
  if (detail.data === undefined) return <Waiting what="Reading the run" />;
  const run = { ...detail.data, ...summary };
  return (
    <div class="view">
      <div class="toolbar">
        <h1>{run.name}</h1>
        <StateBadge run={run} />
        <span class="grow" />
        <a class="button" href={href(['samples'], { run: id })}>
          Samples
        </a>
        <a class="button" href={href(['metrics'], { runs: id })}>
          Curves
        </a>
        <a class="button" href={href(['lab'], { run: id })}>
          Try it
        </a>
        <ReportButton run={detail.data} />
      </div>
      {run.message !== null && <p class="card">{visibleText(run.message)}</p>}
      <MarkList marks={run.marks} />
      <dl class="card facts">
        <Fact name="Method">
          {run.method}
          {run.preset !== null && ` (${run.preset})`}
        </Fact>
        <Fact name="Steps">
          <Progress run={run} />
        </Fact>
        <Fact name={run.state === 'running' ? 'Time left' : 'Took'}>
          {formatDuration(run.state === 'running' ? run.secondsLeft : run.seconds)}
        </Fact>
        <Fact name="Model">{run.model ?? '—'}</Fact>
        <Fact name="Data">{run.data ?? '—'}</Fact>
        <Fact name="Seed">{run.seed ?? '—'}</Fact>
        <Fact name="Started">
          {run.started === null ? '—' : new Date(run.started).toLocaleString()}
        </Fact>
        <Fact name="Commit">
          <span class="mono">{run.commit?.slice(0, 10) ?? '—'}</span>
        </Fact>
        {Object.entries(run.latest).map(([name, value]) => (
          <Fact key={name} name={name}>
            <span class="num">{formatNumber(value)}</span>
          </Fact>
        ))}
      </dl>
      <div class="columns">
        <section class="card">
          <h2>Settings</h2>
          <Settings value={run.config} />
        </section>
        <section class="card">
          <h2>Inputs and versions</h2>
          <Settings value={{ ...run.inputs, versions: run.versions }} />
          <p class="quiet">Started as</p>
          <p class="mono log">{run.command.map(visibleText).join(' ')}</p>
          {run.resumed.map(({ time, fromStep, changed }) => (
            <p key={time}>
              Resumed from step {fromStep} at {new Date(time).toLocaleString()}
              {changed.length > 0 && `: ${changed.join('; ')}`}
            </p>
          ))}
        </section>
        <section class="card">
          <h2>Checkpoints</h2>
          {run.checkpoints.length === 0 ? (
            <p class="quiet">None is kept.</p>
          ) : (
            <ul class="plain">
              {run.checkpoints.map(({ name, step }) => (
                <li key={name}>
                  <span class="mono">{name}</span> <span class="quiet">step {step}</span>{' '}
                  <a href={href(['lab'], { run: id, step })}>try it</a>
                </li>
              ))}
            </ul>
          )}
          {run.children.length > 0 && (
            <>
              <h3>Runs inside</h3>
              <ul class="plain">
                {run.children.map((child) => (
                  <li key={child}>
                    <a href={href(['run', child])}>{runs.value.get(child)?.name ?? child}</a>
                  </li>
                ))}
              </ul>
            </>
          )}
        </section>
        <section class="card">
          <h2>Log</h2>
          {log.data === undefined || log.data.lines.length === 0 ? (
            <Empty title="Nothing yet" />
          ) : (
            <pre class="log" tabIndex={0} aria-label="The end of log.txt">
              {log.data.truncated && '…\n'}
              {log.data.lines.map(visibleText).join('\n')}
            </pre>
          )}
        </section>
      </div>
    </div>
  );
}

/** Nested settings as lines `clip.high  0.28`. */
function Settings({ value }: { value: Readonly<Record<string, unknown>> }): JSX.Element {
  return (
    <div class="settings" tabIndex={0}>
      <table>
        <tbody>
          {flattenSettings(value).map(([path, text]) => (
            <tr key={path}>
              <th scope="row">{visibleText(path)}</th>
              <td class="mono">{visibleText(text)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
