/** The completions of a run: searched, filtered, sorted; only those near the window exist. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { SampleFacets, SamplePage, SampleSummary } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import {
  filterCount,
  pagesOf,
  SAMPLE_FILTERS,
  sampleQueryOf,
} from '../../../src/dashboard/view/sampleQuery.js';
import { address, ask, growthOf, runs, type ServerError } from '../api.js';
import { asServerError, useAnswer, useSettled, useThrottled } from '../hooks.js';
import { Icon } from '../icons.js';
import { Empty, Fault, Waiting } from '../parts.js';
import { go, href, place, withQuery } from '../route.js';
import { focusedRun } from '../selection.js';
import { useVirtualRows } from '../virtualRows.js';
import { SampleFilters } from './sampleFilters.js';

const PAGE = 100;
const ROW_HEIGHT = 74;

/** The view. */
export function SamplesView(): JSX.Element {
  const run = focusedRun.value;
  const { query: inAddress } = place.value;
  const query = useMemo(() => sampleQueryOf(inAddress), [JSON.stringify(inAddress)]);
  const settled = useSettled(query, 250);
  const growth = useThrottled(run === undefined ? '' : growthOf(run.id, 'samples'), 3000);
  const path = run === undefined ? null : `runs/${encodeURIComponent(run.id)}/samples`;
  const facets = useAnswer<SampleFacets>(path === null ? null : address(`${path}/facets`), growth);
  const list = usePages(path, settled, growth);
  const [filtersOpen, setFiltersOpen] = useState(window.innerWidth > 900);
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
        <span class="quiet" role="status">
          {list.total === undefined
            ? ''
            : `${list.total.toLocaleString('en-US')} samples${list.complete ? '' : ', still reading'}`}
        </span>
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

interface Pages {
  readonly total: number | undefined;
  readonly complete: boolean;
  readonly error: ServerError | undefined;
  readonly at: (index: number) => SampleSummary | undefined;
  readonly need: (first: number, last: number) => void;
}

/** The list, page by page as they are looked at. */
function usePages(path: string | null, query: object, growth: string): Pages {
  const [pages, setPages] = useState<ReadonlyMap<number, SamplePage>>(new Map());
  const [head, setHead] = useState<SamplePage | undefined>();
  const [error, setError] = useState<ServerError | undefined>();
  const asked = useRef(new Set<number>());
  const abort = useRef(new AbortController());
  const key = `${path} ${JSON.stringify(query)}`;
  const fetchPage = (page: number): void => {
    if (path === null || asked.current.has(page)) return;
    asked.current.add(page);
    const { signal } = abort.current;
    ask<SamplePage>(address(path, { ...query, offset: page * PAGE, limit: PAGE }), signal).then(
      (answer) => {
        if (signal.aborted) return;
        setPages((before) => new Map(before).set(page, answer));
        setHead(answer);
        setError(undefined);
      },
      (reason: unknown) => {
        if (signal.aborted) return;
        asked.current.delete(page);
        setError(asServerError(reason));
      },
    );
  };
  const lastKey = useRef(key);
  const visible = useRef<readonly [number, number]>([0, 0]);
  useEffect(() => {
    abort.current.abort();
    abort.current = new AbortController();
    asked.current = new Set();
    if (lastKey.current !== key) {
      // Other samples: what is shown is no longer of these filters.
      setPages(new Map());
      setHead(undefined);
      visible.current = [0, 0];
    }
    lastKey.current = key;
    for (const page of pagesOf(...visible.current, PAGE)) fetchPage(page);
  }, [key, growth]);
  // A search that has not seen all of the file, or a file that is being read, is asked for again.
  useEffect(() => {
    if (head === undefined || head.complete) return undefined;
    const timer = setTimeout(() => {
      asked.current = new Set();
      for (const page of pagesOf(...visible.current, PAGE)) fetchPage(page);
    }, 700);
    return () => clearTimeout(timer);
  }, [head]);
  return {
    total: head?.total,
    complete: head?.complete ?? true,
    error,
    at: (index) => pages.get(Math.floor(index / PAGE))?.samples[index % PAGE],
    need: (first, last) => {
      visible.current = [first, last];
      for (const page of pagesOf(first, last, PAGE)) fetchPage(page);
    },
  };
}

function SampleList({ runId, list }: { runId: string; list: Pages }): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const total = list.total ?? 0;
  const rows = useVirtualRows(scroller, total, ROW_HEIGHT);
  const [active, setActive] = useState(0);
  /** A row that is to have the focus, once it exists. */
  const wanted = useRef<number | undefined>(undefined);
  const first = rows.items[0]?.index ?? 0;
  const last = rows.items.at(-1)?.index ?? 0;
  // One row can be reached by Tab, and the arrow keys go on from it: the others would be thousands of stops.
  const stop = active >= first && active <= last ? active : first;
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
  if (list.error !== undefined) return <Fault error={list.error} />;
  if (list.total === undefined) return <Waiting what="Reading samples" />;
  if (total === 0)
    return (
      <Empty title="No sample fits">
        <p>Runs write samples as they generate; `samplesPerStep` says how many.</p>
      </Empty>
    );
  const walk = (event: KeyboardEvent): void => {
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
    const next = Math.min(total - 1, Math.max(0, stop + move));
    wanted.current = next;
    setActive(next);
    rows.scrollTo(next);
  };
  return (
    <div ref={scroller} class="sample-list" onKeyDown={walk}>
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
              onFocus={() => setActive(index)}
            />
          </li>
        ))}
      </ul>
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
        <span class="sample-prompt">{oneLine(sample.promptExcerpt)}</span>
        <span class="sample-completion">{oneLine(sample.completionExcerpt)}</span>
      </span>
      <span class="sample-end num quiet">
        {sample.kind === 'pair' ? (
          'pair'
        ) : (
          <>
            <span title="Advantage">Â {formatNumber(sample.advantage, 3)}</span>
            <span>
              {sample.length} tokens
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
