/** Tells how far a download is: one line that changes on a terminal, elsewhere a line now and then. */
import type { HubStream } from './hubFetch.js';

/** Smaller files are not worth a line. */
const LEAST_BYTES = 2 ** 20;
const DRAW_SECONDS = 0.2;
const LINE_SECONDS = 10;

/** Of one file. */
export class DownloadProgress {
  private readonly stream: HubStream | null;
  private readonly label: string;
  private readonly total: number;
  private startedAt = performance.now();
  private startedFrom = 0;
  private shownAt = -Infinity;

  constructor(stream: HubStream | null, label: string, total: number) {
    this.stream =
      total >= LEAST_BYTES && process.env['HF_HUB_DISABLE_PROGRESS_BARS'] !== '1' ? stream : null;
    this.label = label;
    this.total = total;
  }

  /** Says from where the download goes on: earlier bytes do not count for the rate. */
  start(done: number): void {
    this.startedAt = performance.now();
    this.startedFrom = done;
  }

  update(done: number): void {
    const now = performance.now();
    const isTerminal = this.stream?.isTTY === true;
    if (now - this.shownAt < 1000 * (isTerminal ? DRAW_SECONDS : LINE_SECONDS)) return;
    this.shownAt = now;
    this.stream?.write(isTerminal ? `\r\x1b[2K${this.line(done)}` : `${this.line(done)}\n`);
  }

  finish(): void {
    this.stream?.write(
      `${this.stream.isTTY === true ? '\r\x1b[2K' : ''}${this.label}, ${megabytes(this.total)} downloaded\n`,
    );
  }

  private line(done: number): string {
    const seconds = Math.max(1e-3, (performance.now() - this.startedAt) / 1000);
    const rate = (done - this.startedFrom) / seconds;
    const percent = Math.floor((100 * done) / this.total);
    return `${this.label} ${percent} % of ${megabytes(this.total)}, ${megabytes(rate)}/s`;
  }
}

function megabytes(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
