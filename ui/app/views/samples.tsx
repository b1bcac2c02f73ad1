/** The completions of a run: searched, filtered, sorted; only those near the window exist. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { SampleFacets, SampleSummary } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import {
  filterCount,
  SAMPLE_FILTERS,
  sampleQueryOf,
} from '../../../src/dashboard/view/sampleQuery.js';
import { address, growthOf, runs, runsLoaded } from '../api.js';
import { useAnswer, useSettled, useThrottled } from '../hooks.js';
import { Icon } from '../icons.js';
import { Empty, Fault, Waiting } from '../parts.js';
import { go, href, place, withQuery } from '../route.js';
import { focusedRun } from '../selection.js';
import { useVirtualRows } from '../virtualRows.js';
import { SampleFilters } from './sampleFilters.js';
import { left, usePages, type Pages } from './samplePages.js';

const ROW_HEIGHT = 74;

/** The view. */
export function SamplesView(): JSX.Element {
  const { query: inAddress } = place.value;
  const named = inAddress['run'];
  // Another run in its place would be taken for it.
  const isGone = named !== undefined && runsLoaded.value && !runs.value.has(named);
  const run = isGone ? undefined : focusedRun.value;
  useEffect(() => {
    // The address keeps the run: a newer one must not take its place.
    if (named === undefined && run !== undefined && run.samples > 0)
      go(withQuery({ run: run.id }), { replace: true });
  }, [named, run]);
  const query = useMemo(() => sampleQueryOf(inAddress), [JSON.stringify(inAddress)]);
  const settled = useSettled(query, 250);
  const growth = useThrottled(run === undefined ? '' : growthOf(run.id, 'samples'), 3000);
  const path = run === undefined ? null : `runs/${encodeURIComponent(run.id)}/samples`;
  const facets = useAnswer<SampleFacets>(path === null ? null : address(`${path}/facets`), growth);
  const list = usePages(path, settled, growth);
  const [filtersOpen, setFiltersOpen] = useState(window.innerWidth > 900);
  if (isGone)
    return (
      <Empty title="This run is gone">
        <p>Its folder was moved or deleted. Where it comes back it is shown again.</p>
      </Empty>
    );
  if (run === undefined) return <Empty title="No run is chosen" />;
  const filters = filterCount(query);
  const set = (changes: Record<string, string | undefined>): void =>
    go(withQuery({ run: run.id, ...changes }), { replace: true });
  return (
    <div class="view wide fill">
      <div class="toolbar">
        <h1>Samples</h1>
        <select
          aria-label="Run"
          value={run.id}
          onChange={(event) => go(href(['samples'], { run: event.currentTarget.value }))}
        >
          {[...runs.value.values()]
            .filter(({ id, samples }) => samples > 0 || id === run.id)
            .map(({ id, name, samples }) => (
              <option key={id} value={id}>
                {name} ({samples.toLocaleString('en-US')})
              </option>
            ))}
        </select>
        <label class="search">
          <Icon name="search" />
          <input
            type="search"
            placeholder="Text of prompt or completion"
            aria-label="Search samples"
            value={inAddress['text'] ?? ''}
            onInput={(event) => set({ text: event.currentTarget.value })}
          />
        </label>
        <button
          type="button"
          class="button"
          aria-expanded={filtersOpen}
          onClick={() => setFiltersOpen(!filtersOpen)}
        >
          <Icon name="sliders" /> Filters{filters > 0 && ` (${filters})`}
        </button>
        {filters > 0 && (
          <button
            type="button"
            class="button"
            onClick={() => set(Object.fromEntries(SAMPLE_FILTERS.map((name) => [name, undefined])))}
          >
            Clear
          </button>
        )}
        <span class="grow" />
        <label>
          Sort
          <select value={query.sort} onChange={(event) => set({ sort: event.currentTarget.value })}>
            <option value="-step">newest first</option>
            <option value="step">oldest first</option>
            <option value="-reward">highest reward</option>
            <option value="reward">lowest reward</option>
            <option value="-length">longest</option>
            <option value="length">shortest</option>
            <option value="-advantage">highest advantage</option>
            <option value="advantage">lowest advantage</option>
          </select>
        </label>
        {path !== null && (
          <a
            class="button"
            href={address(`runs/${encodeURIComponent(run.id)}/export/samples.jsonl`, { ...query })}
            download={`${run.name}-samples.jsonl`}
          >
            <Icon name="download" /> JSONL
          </a>
        )}
      </div>
      <div class={`samples-frame ${filtersOpen ? 'with-filters' : ''}`}>
        {filtersOpen && <SampleFilters facets={facets.data} values={inAddress} set={set} />}
        <SampleList runId={run.id} list={list} />
      </div>
    </div>
  );
}

function SampleList({ runId, list }: { runId: string; list: Pages }): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const total = list.total ?? 0;
  const rows = useVirtualRows(scroller, total, ROW_HEIGHT);
  const [active, setActive] = useState(left.active);
  const choose = (at: number): void => {
    left.active = at;
    setActive(at);
  };
  /** A row that is to have the focus, once it exists. */
  const wanted = useRef<number | undefined>(undefined);
  const first = rows.items[0]?.index ?? 0;
  const last = rows.items.at(-1)?.index ?? 0;
  // One row can be reached by Tab, and the arrow keys go on from it: the others would be thousands of stops.
  const stop = active >= first && active <= last ? active : first;
  const isThere = total > 0;
  useLayoutEffect(() => {
    if (!isThere || scroller.current === null) return;
    scroller.current.scrollTop = left.scrollTop;
    setActive(left.active);
    // Who comes back from a sample goes on from it.
    if (left.active > 0 && document.activeElement === document.body) wanted.current = left.active;
  }, [isThere]);
  useLayoutEffect(() => {
    if (wanted.current === undefined) return;
    const link = document.getElementById(`sample-${wanted.current}`);
    if (link === null) return;
    wanted.current = undefined;
    link.focus({ preventScroll: true });
  });
  useEffect(() => {
    if (total > 0) list.need(first, last);
  }, [first, last, total]);
  // What is there stays, also while the server does not answer.
  if (list.error !== undefined && list.total === undefined) return <Fault error={list.error} />;
  if (list.total === undefined) return <Waiting what="Reading samples" />;
  if (total === 0)
    return (
      <Empty title="No sample fits">
        <p>Runs write samples as they generate; `samplesPerStep` says how many.</p>
      </Empty>
    );
  const stand = (at: number): void => {
    wanted.current = at;
    choose(at);
    rows.scrollTo(at);
  };
  const loadNewer = (): void => {
    list.loadNewer();
    stand(0);
  };
  const walk = (event: KeyboardEvent): void => {
    if (event.key === 'n' && list.newer > 0 && !event.ctrlKey && !event.metaKey && !event.altKey)
      return loadNewer();
    const moves: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -Infinity,
      End: Infinity,
    };
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    stand(Math.min(total - 1, Math.max(0, stop + move)));
  };
  return (
    <div class="sample-pane">
      <p class="sample-count">
        <span class="quiet" role="status">
          {total.toLocaleString('en-US')} {total === 1 ? 'sample' : 'samples'}
          {!list.complete && ', still reading'}
        </span>
        {list.newer > 0 && (
          <button
            type="button"
            class="button primary"
            title="n in the list"
            aria-keyshortcuts="n"
            onClick={loadNewer}
          >
            {list.newer.toLocaleString('en-US')} new
          </button>
        )}
      </p>
      <div
        ref={scroller}
        class="sample-list"
        onKeyDown={walk}
        onScroll={({ currentTarget }) => (left.scrollTop = currentTarget.scrollTop)}
      >
        <ul aria-label="Samples" style={{ height: `${rows.height}px` }}>
          {rows.items.map(({ index, start }) => (
            <li
              key={index}
              aria-setsize={total}
              aria-posinset={index + 1}
              class="sample-row"
              style={{ transform: `translateY(${start}px)`, height: `${ROW_HEIGHT}px` }}
            >
              <SampleLine
                runId={runId}
                sample={list.at(index)}
                id={`sample-${index}`}
                isStop={index === stop}
                onFocus={() => choose(index)}
              />
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}

function SampleLine({
  runId,
  sample,
  id,
  isStop,
  onFocus,
}: {
  runId: string;
  sample: SampleSummary | undefined;
  id: string;
  /** Whether Tab stops here. */
  isStop: boolean;
  onFocus: () => void;
}): JSX.Element {
  if (sample === undefined) return <span class="quiet pad">…</span>;
  return (
    <a
      id={id}
      class="sample-line"
      href={href(['sample', runId, sample.index])}
      tabIndex={isStop ? 0 : -1}
      onFocus={onFocus}
    >
      <span class="sample-facts">
        <Reward value={sample.reward} title={rewardTitle(sample)} />
        <span class="num quiet">step {sample.step}</span>
      </span>
      <span class="sample-texts">
        <span class="sample-prompt" dir="auto">
          {oneLine(sample.promptExcerpt)}
        </span>
        <span class="sample-completion" dir="auto">
          {oneLine(sample.completionExcerpt)}
        </span>
      </span>
      <span class="sample-end num quiet">
        {sample.kind === 'pair' ? (
          'pair'
        ) : (
          <>
            <span title="Advantage">Â {formatNumber(sample.advantage, 3)}</span>
            <span>
              {sample.length.toLocaleString('en-US')} tokens
              {sample.finishReason !== null && ` · ${sample.finishReason}`}
            </span>
          </>
        )}
      </span>
    </a>
  );
}

/** A reward, its sign told by more than colour. */
export function Reward({
  value,
  title,
}: {
  value: number | null;
  title?: string | undefined;
}): JSX.Element {
  const kind = value === null ? 'none' : value > 0 ? 'above' : value < 0 ? 'below' : 'zero';
  return (
    <span class={`reward num ${kind}`} title={title}>
      {value === null ? 'unscored' : formatNumber(value, 3)}
    </span>
  );
}

/** Every reward by its name. */
export function rewardTitle({ rewards }: Pick<SampleSummary, 'rewards'>): string {
  return Object.entries(rewards)
    .map(([name, value]) => `${name}: ${formatNumber(value)}`)
    .join('\n');
}

/** An excerpt on one line. */
export function oneLine(text: string): string {
  return visibleText(text.replace(/\n/g, ' ↵ '));
}
