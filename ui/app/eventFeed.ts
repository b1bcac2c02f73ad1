/**
 * The stream of events. A browser has six connections to a server for all of its tabs, and a stream keeps one for good: ten
 * open tabs would leave none for answers. So a shared worker keeps a single stream for all tabs. Where a browser has no
 * such workers (Chrome on Android) each page has its own, and lets go of it while it is hidden.
 */

/** What a page hears. */
export interface FeedListener {
  readonly onOpen: () => void;
  /** The stream is broken; it is tried again by itself. */
  readonly onLost: () => void;
  /** JSON of a `DashboardEvent`. After every pause a `hello` comes first. */
  readonly onEvent: (data: string) => void;
}

/** What a page says to the worker: whether it is looked at. */
export type FeedRequest = { readonly watch: string } | 'rest';
/** What the worker says to a page. */
export type FeedMessage =
  { readonly type: 'open' | 'lost' } | { readonly type: 'event'; readonly data: string };

/** Least time before a stream that was refused is tried again. */
const RETRY_MS = 3000;

/** A stream that tries again until it is ended. @returns what ends it */
export function openStream(url: string, listener: FeedListener): () => void {
  let isEnded = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stream: EventSource | undefined;
  const connect = (): void => {
    const opened = new EventSource(url);
    stream = opened;
    opened.addEventListener('open', listener.onOpen);
    opened.addEventListener('error', () => {
      if (isEnded) return;
      listener.onLost();
      // A browser gives up for good when the answer was no stream; otherwise it tries again by itself.
      if (opened.readyState === EventSource.CLOSED) timer = setTimeout(connect, RETRY_MS);
    });
    opened.addEventListener('message', ({ data }: MessageEvent<string>) => listener.onEvent(data));
  };
  connect();
  return () => {
    isEnded = true;
    clearTimeout(timer);
    stream?.close();
  };
}

/** Tells of every event while the page is looked at. A page that is hidden hears nothing, and a `hello` when it is shown. */
export function followEvents(listener: FeedListener): void {
  const url = new URL('api/events', document.baseURI).href;
  let feed = sharedFeed(url, listener) ?? ownFeed(url, listener);
  let isWatching = false;
  const follow = (isShown: boolean): void => {
    if (isShown === isWatching) return;
    isWatching = isShown;
    if (isShown) feed.watch();
    else feed.rest();
  };
  feed.onBroken?.(() => {
    feed = ownFeed(url, listener);
    if (isWatching) feed.watch();
  });
  const look = (): void => follow(document.visibilityState === 'visible');
  document.addEventListener('visibilitychange', look);
  // A page that goes may be kept, and come back.
  window.addEventListener('pagehide', () => follow(false));
  window.addEventListener('pageshow', look);
  look();
}

interface Feed {
  readonly watch: () => void;
  readonly rest: () => void;
  readonly onBroken?: (action: () => void) => void;
}

function ownFeed(url: string, listener: FeedListener): Feed {
  let end: (() => void) | undefined;
  return {
    watch: () => {
      end ??= openStream(url, listener);
    },
    rest: () => {
      end?.();
      end = undefined;
    },
  };
}

function sharedFeed(url: string, listener: FeedListener): Feed | undefined {
  if (typeof SharedWorker === 'undefined') return undefined;
  const worker = new SharedWorker(new URL('./eventWorker.ts', import.meta.url), { type: 'module' });
  worker.port.addEventListener('message', ({ data }: MessageEvent<FeedMessage>) => {
    if (data.type === 'event') listener.onEvent(data.data);
    else if (data.type === 'open') listener.onOpen();
    else listener.onLost();
  });
  worker.port.start();
  const say = (request: FeedRequest): void => worker.port.postMessage(request);
  return {
    watch: () => say({ watch: url }),
    rest: () => say('rest'),
    onBroken: (action) => worker.addEventListener('error', action, { once: true }),
  };
}
