/** Server-sent events. A page that reads slowly gets the newest of each kind and never a growing queue. */
import type { DashboardEvent } from './protocol.js';
import type { RunRegistry } from './runRegistry.js';

/** Proxies and browsers close a connection that is silent. */
const BEAT_MS = 20_000;
/** Least time between two deliveries. */
const DELIVERY_MS = 250;

/** A stream of what changes, until the reader leaves. */
export function eventStream(registry: RunRegistry): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const waiting = new Map<string, DashboardEvent>();
  let timers: NodeJS.Timeout[] = [];
  let leave = (): void => undefined;
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const send = (text: string): void => controller.enqueue(encoder.encode(text));
        const hasRoom = (): boolean => (controller.desiredSize ?? 0) > 0;
        const deliver = (): void => {
          if (waiting.size === 0 || !hasRoom()) return;
          const events = [...waiting.values()];
          waiting.clear();
          send(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
        };
        leave = registry.listen((event) => waiting.set(keyOf(event), event));
        timers = [
          setInterval(deliver, DELIVERY_MS).unref(),
          setInterval(() => hasRoom() && send(': beat\n\n'), BEAT_MS).unref(),
        ];
        deliver();
      },
      cancel() {
        leave();
        for (const timer of timers) clearInterval(timer);
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 1 << 20 }),
  );
}

/** Of events with the same key the later one says all. */
function keyOf(event: DashboardEvent): string {
  switch (event.type) {
    case 'hello':
      return 'hello';
    case 'run':
      return `run ${event.run.id}`;
    case 'removed':
      return `run ${event.id}`;
    case 'metrics':
    case 'samples':
      return `${event.type} ${event.id}`;
  }
}
