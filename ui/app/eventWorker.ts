/** The worker that keeps one stream of events for all tabs that are looked at; see eventFeed.ts. */
import { openStream, type FeedMessage, type FeedRequest } from './eventFeed.js';

/** As far as it is used here: the types of workers and those of pages exclude each other. */
interface SharedWorkerScope {
  onconnect: ((event: MessageEvent) => void) | null;
}

const watching = new Set<MessagePort>();
let end: (() => void) | undefined;
/** How the stream stands; undefined before its first answer. */
let state: 'open' | 'lost' | undefined;
/** The greeting of the server, for pages that join later. */
let hello: FeedMessage | undefined;

function tell(message: FeedMessage): void {
  for (const port of watching) port.postMessage(message);
}

function connect(url: string): void {
  end = openStream(url, {
    onOpen: () => {
      state = 'open';
      tell({ type: state });
    },
    onLost: () => {
      state = 'lost';
      hello = undefined;
      tell({ type: state });
    },
    onEvent: (data) => {
      const message: FeedMessage = { type: 'event', data };
      if (hello === undefined) hello = message;
      tell(message);
    },
  });
}

function join(port: MessagePort, url: string): void {
  watching.add(port);
  if (end === undefined) return connect(url);
  if (state !== undefined) port.postMessage({ type: state } satisfies FeedMessage);
  if (hello !== undefined) port.postMessage(hello);
}

function leave(port: MessagePort): void {
  watching.delete(port);
  if (watching.size > 0) return;
  end?.();
  end = undefined;
  state = undefined;
  hello = undefined;
}

(self as unknown as SharedWorkerScope).onconnect = ({ ports: [port] }) => {
  if (port === undefined) return;
  port.addEventListener('message', ({ data }: MessageEvent<FeedRequest>) => {
    if (data === 'rest') leave(port);
    else join(port, data.watch);
  });
  port.start();
};
