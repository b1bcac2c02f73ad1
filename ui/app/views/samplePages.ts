/** A list of samples, page by page as they are looked at. What a run writes meanwhile waits until it is asked for. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { SamplePage, SampleSummary } from '../../../src/dashboard/protocol.js';
import { pagesOf } from '../../../src/dashboard/view/sampleQuery.js';
import { address, ask, type ServerError } from '../api.js';
import { asServerError } from '../hooks.js';

const PAGE = 100;
/** A search that has not seen all of the file, or a file that is being read, is asked for again. */
const UNREAD_MS = 700;

/** The list. */
export interface Pages {
  /** undefined until it is known. */
  readonly total: number | undefined;
  readonly complete: boolean;
  /** How many have been written since that would stand in it. */
  readonly newer: number;
  readonly error: ServerError | undefined;
  readonly at: (index: number) => SampleSummary | undefined;
  readonly need: (first: number, last: number) => void;
  /** Takes the new ones into the list. */
  readonly loadNewer: () => void;
}

/** The state of the run's samples that a list was made from. */
type Edition = Pick<SamplePage, 'revision' | 'upTo'>;

/** The list that was looked at last and the place in it, for who comes back from a sample. */
export const left: {
  key: string;
  edition: Edition | undefined;
  active: number;
  scrollTop: number;
} = { key: '', edition: undefined, active: 0, scrollTop: 0 };

function isSame(a: Edition, b: Edition): boolean {
  return a.revision === b.revision && a.upTo === b.upTo;
}

/** @param growth changes when there may be more */
export function usePages(path: string | null, query: object, growth: string): Pages {
  const [pages, setPages] = useState<ReadonlyMap<number, SamplePage>>(new Map());
  const [head, setHead] = useState<SamplePage | undefined>();
  const [error, setError] = useState<ServerError | undefined>();
  const key = `${path} ${JSON.stringify(query)}`;
  const latest = useRef(growth);
  latest.current = growth;
  /** What was asked for, at which growth, and what of it is on its way. */
  const asked = useRef({ growth, pages: new Set<number>(), flying: new Set<number>() });
  const abort = useRef(new AbortController());
  const visible = useRef<readonly [number, number]>([0, 0]);
  const fetchPage = (page: number): void => {
    const { pages: all, flying } = asked.current;
    if (path === null || all.has(page)) return;
    all.add(page);
    flying.add(page);
    const { signal } = abort.current;
    const part = { offset: page * PAGE, limit: PAGE, upTo: left.edition?.upTo };
    ask<SamplePage>(address(path, { ...query, ...part }), signal).then(
      (answer) => {
        if (signal.aborted) return;
        flying.delete(page);
        if (left.edition !== undefined && !isSame(left.edition, answer)) {
          // Asked for before the list stood still; or the run was resumed and has other samples since.
          if (left.edition.revision !== answer.revision) left.edition = undefined;
          return fetchAgain();
        }
        const { revision, upTo } = answer;
        if (answer.complete && answer.total > 0) left.edition ??= { revision, upTo };
        setPages((before) => {
          const kept = [...before].filter(([, each]) => isSame(each, answer));
          return new Map(kept).set(page, answer);
        });
        setHead(answer);
        setError(undefined);
        if (flying.size === 0 && asked.current.growth !== latest.current) fetchAgain();
      },
      (reason: unknown) => {
        if (signal.aborted) return;
        flying.delete(page);
        all.delete(page);
        setError(asServerError(reason));
      },
    );
  };
  const fetchAgain = (): void => {
    abort.current.abort();
    abort.current = new AbortController();
    asked.current = { growth: latest.current, pages: new Set(), flying: new Set() };
    for (const page of pagesOf(...visible.current, PAGE)) fetchPage(page);
  };
  useEffect(() => {
    if (path !== null && left.key !== key)
      Object.assign(left, { key, edition: undefined, active: 0, scrollTop: 0 });
    setPages(new Map());
    setHead(undefined);
    setError(undefined);
    visible.current = [0, 0];
    fetchAgain();
    return () => abort.current.abort();
  }, [key]);
  useEffect(() => {
    // What is on its way is waited for: on a slow line it would be asked for anew again and again.
    if (asked.current.flying.size === 0) fetchAgain();
  }, [growth]);
  useEffect(() => {
    if (head === undefined || head.complete) return undefined;
    const timer = setTimeout(fetchAgain, UNREAD_MS);
    return () => clearTimeout(timer);
  }, [head]);
  return {
    ...{ total: head?.total, complete: head?.complete ?? true, error, newer: head?.newer ?? 0 },
    at: (index) => pages.get(Math.floor(index / PAGE))?.samples[index % PAGE],
    need: (first, last) => {
      visible.current = [first, last];
      for (const page of pagesOf(first, last, PAGE)) fetchPage(page);
    },
    loadNewer: () => {
      left.edition = undefined;
      visible.current = [0, 0];
      fetchAgain();
    },
  };
}
