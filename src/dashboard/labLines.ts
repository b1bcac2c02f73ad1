/** A completion told while it grows, a line of JSON per token. */
import type { LabAnswer } from './lab.js';
import type { LabCompletion, LabLine, LabToken } from './labProtocol.js';

/** The type of such an answer. */
export const LINES = 'application/x-ndjson';

/**
 * Begins a completion and waits for its first token.
 *
 * @param complete draws until `stop` is aborted
 * @returns the lines, whose reader ends the work by leaving; the whole answer where it came without a token
 */
export function completionLines(
  complete: (
    stop: AbortSignal,
    onToken: (token: LabToken) => void,
  ) => Promise<LabAnswer<LabCompletion>>,
): Promise<ReadableStream<Uint8Array> | LabAnswer<LabCompletion>> {
  const encoder = new TextEncoder();
  const stop = new AbortController();
  let lines: ReadableStreamDefaultController<Uint8Array> | undefined;
  const say = (line: LabLine): void => {
    // Nobody hears what is said after the reader has left.
    if (!stop.signal.aborted) lines?.enqueue(encoder.encode(`${JSON.stringify(line)}\n`));
  };
  return new Promise((resolve, reject) => {
    const onToken = (token: LabToken): void => {
      if (lines === undefined)
        resolve(
          new ReadableStream<Uint8Array>({
            start: (controller) => void (lines = controller),
            cancel: () => stop.abort(),
          }),
        );
      say({ token });
    };
    complete(stop.signal, onToken).then((answer) => {
      if (lines === undefined) return resolve(answer);
      say('value' in answer ? { completion: answer.value } : { error: answer.failure });
      if (!stop.signal.aborted) lines.close();
    }, reject);
  });
}
