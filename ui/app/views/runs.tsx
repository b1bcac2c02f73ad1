/** Every run that was found: how it stands, how far it is, what it says. */
import { useEffect, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { RunSummary } from '../../../src/dashboard/protocol.js';
import { formatAgo, formatDuration, formatNumber } from '../../../src/dashboard/view/format.js';
import {
  arrangeRuns,
  searchRuns,
  type RunColumn,
  type RunOrder,
} from '../../../src/dashboard/view/runTable.js';
import { runs, runsLoaded, unreadable, clockAhead } from '../api.js';
import { Icon } from '../icons.js';
import { Empty, MarkCount, Progress, StateBadge, Swatch, Waiting } from '../parts.js';
import { go, href, place, withQuery } from '../route.js';
import { chosenRuns, choose, toggle } from '../selection.js';
import { MOST_RUNS } from '../theme.js';

const COLUMNS: readonly {
  readonly id: RunColumn;
  readonly title: string;
  readonly class?: string;
}[] = [
  { id: 'name', title: 'Run' },
  { id: 'state', title: 'State' },
  { id: 'method', title: 'Method' },
  { id: 'model', title: 'Model and data', class: 'wide' },
  { id: 'progress', title: 'Steps' },
  { id: 'left', title: 'Time left' },
  { id: 'reward', title: 'Reward', class: 'right' },
  { id: 'kl', title: 'KL', class: 'right' },
  { id: 'updated', title: 'Updated' },
];

/** The view. */
export function RunsView(): JSX.Element {
  const [order, setOrder] = useState<RunOrder>({ column: 'updated', descending: true });
  const now = useNow();
  const search = place.value.query['search'] ?? '';
  const all = [...runs.value.values()];
  const rows = arrangeRuns(searchRuns(all, search), order);
  const chosen = chosenRuns.value.filter((id) => runs.value.has(id));
  if (!runsLoaded.value) return <Waiting what="Looking for runs" />;
  if (all.length === 0 && unreadable.value.length === 0) {
    return (
      <Empty title="No runs yet">
        <p>
          Start one, and it appears here: <code>npx posttrain quickstart --out runs/first</code>
        </p>
      </Empty>
    );
  }
  const sortBy = (column: RunColumn): void =>
    setOrder((before) => ({
      column,
      descending: before.column === column ? !before.descending : column !== 'name',
    }));
  return (
    <div class="view wide">
      <div class="toolbar">
        <h1>
          Runs <span class="count">{all.length}</span>
        </h1>
        <label class="search">
          <Icon name="search" />
          <input
            type="search"
            placeholder="Name, method, model, state"
            aria-label="Search runs"
            value={search}
            onInput={(event) =>
              go(withQuery({ search: event.currentTarget.value }), { replace: true })
            }
          />
        </label>
        <span class="grow" />
        {chosen.length > 0 && (
          <>
            <span class="quiet" role="status">
              {chosen.length} chosen
              {chosen.length === MOST_RUNS && ', the most that can be told apart'}
            </span>
            <button type="button" class="button" onClick={() => choose([])}>
              Clear
            </button>
            <a class="button" href={href(['config'], { runs: chosen.join(',') })}>
              Compare settings
            </a>
            <a class="button primary" href={href(['metrics'], { runs: chosen.join(',') })}>
              Compare curves
            </a>
          </>
        )}
      </div>
      <div class="table-frame">
        <table class="runs">
          <thead>
            <tr>
              <th class="tick">
                <span class="hidden">Chosen</span>
              </th>
              {COLUMNS.map(({ id, title, class: name }) => (
                <th
                  key={id}
                  class={name}
                  aria-sort={
                    order.column !== id ? 'none' : order.descending ? 'descending' : 'ascending'
                  }
                >
                  <button type="button" onClick={() => sortBy(id)}>
                    {title}
                    {order.column === id && <Icon name={order.descending ? 'down' : 'up'} />}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map(({ run, depth }) => (
              <Row key={run.id} run={run} depth={depth} now={now} chosen={chosen} />
            ))}
          </tbody>
        </table>
        {rows.length === 0 && <p class="quiet pad">No run has all of these words.</p>}
      </div>
      {unreadable.value.length > 0 && (
        <details class="card">
          <summary>
            <Icon name="warning" />{' '}
            {unreadable.value.length === 1
              ? 'A folder cannot be read'
              : `${unreadable.value.length} folders cannot be read`}
          </summary>
          <ul>
            {unreadable.value.map(({ name, reason }) => (
              <li key={name}>
                <strong>{name}</strong>: {reason}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}

function Row({
  run,
  depth,
  now,
  chosen,
}: {
  run: RunSummary;
  depth: number;
  now: number;
  chosen: readonly string[];
}): JSX.Element {
  const index = chosen.indexOf(run.id);
  return (
    <tr class={index >= 0 ? 'chosen' : undefined}>
      <td class="tick">
        <label>
          <input
            type="checkbox"
            checked={index >= 0}
            disabled={index < 0 && chosen.length >= MOST_RUNS}
            onChange={() => toggle(run.id)}
            aria-label={`Choose ${run.name}`}
          />
          {index >= 0 && <Swatch index={index} />}
        </label>
      </td>
      <td class="name">
        <a href={href(['run', run.id])} style={{ paddingLeft: `${depth * 1.1}rem` }}>
          {depth > 0 && <span class="quiet">└ </span>}
          {run.name}
        </a>
        <MarkCount marks={run.marks} />
      </td>
      <td data-title="State">
        <StateBadge run={run} />
      </td>
      <td data-title="Method">
        {run.method}
        {run.preset !== null && <span class="quiet"> {run.preset}</span>}
      </td>
      <td class="wide" data-title="Model and data">
        <span class="ellipsis" title={run.model ?? undefined}>
          {lastPart(run.model)}
        </span>
        <span class="ellipsis quiet" title={run.data ?? undefined}>
          {lastPart(run.data)}
        </span>
      </td>
      <td data-title="Steps">
        <Progress run={run} />
      </td>
      <td data-title="Time left" class="num nowrap">
        {run.state === 'running' ? (
          formatDuration(run.secondsLeft)
        ) : (
          <span class="quiet">took {formatDuration(run.seconds)}</span>
        )}
      </td>
      <td data-title="Reward" class="num right">
        <RewardOrLoss latest={run.latest} />
      </td>
      <td data-title="KL" class="num right">
        {formatNumber(run.latest['klPolicyReference'])}
      </td>
      <td data-title="Updated" class="quiet nowrap">
        {formatAgo(run.updated ?? run.started, now)}
      </td>
    </tr>
  );
}

/** The reward; of a run that has none its loss, by name. */
function RewardOrLoss({ latest }: Pick<RunSummary, 'latest'>): JSX.Element {
  const reward = latest['reward'] ?? latest['eval/reward'];
  const loss = latest['eval/loss'] ?? latest['loss'];
  if (reward !== undefined || loss === undefined) return <>{formatNumber(reward)}</>;
  return <span class="quiet">loss {formatNumber(loss)}</span>;
}

/** The end of a path: `SmolLM2-135M`. */
function lastPart(path: string | null): string {
  return path?.replace(/\/+$/, '').split('/').slice(-2).join('/') ?? '—';
}

/** The server's time, every ten seconds. */
function useNow(): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 10_000);
    return () => clearInterval(timer);
  }, []);
  return now + clockAhead.value;
}
