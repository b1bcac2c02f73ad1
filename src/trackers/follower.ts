/** The queue between a run and one tracker: bounded, patient, and never waited for before the run's end. */
import { setTimeout as sleepMilliseconds } from 'node:timers/promises';
import { counted, PosttrainError, TrackerError } from '../errors/index.js';
import type { TrackedEnd, TrackedRun, TrackedStep, Tracker } from './tracker.js';

/** Most steps that wait. Of more the oldest are lost: 40 metrics each are some 20 MB. */
const MOST_WAITING = 10_000;
/** Most steps of one call. */
const MOST_AT_ONCE = 250;
/** Waits between attempts grow to this, or at the end of a run to the second. */
const LONGEST_WAIT_SECONDS = 60;
const LONGEST_WAIT_AT_END_SECONDS = 2;
/** Most of a wait that a server asks for. */
const MOST_ASKED_SECONDS = 300;
/** How long a run waits at its end for what has not arrived. */
export const FLUSH_SECONDS = 20;

/** What a follower needs beside its tracker. */
export interface FollowerOptions {
  /** Tells people a sentence. */
  readonly tell: (sentence: string) => void;
  /** Must end early where its signal is aborted. By the clock unless set. */
  readonly sleep?: ((seconds: number, signal: AbortSignal) => Promise<unknown>) | undefined;
  readonly flushSeconds?: number | undefined;
  readonly mostWaiting?: number | undefined;
}

/** Follows one run with one tracker. */
export class Follower {
  private readonly tracker: Tracker;
  private readonly options: FollowerOptions;
  private readonly work: Promise<void>;
  private waiting: TrackedStep[] = [];
  private state: TrackedEnd | undefined;
  /** Aborted at the end of the run: waits are cut short. */
  private readonly ending = new AbortController();
  /** Aborted when the time after the end is over. */
  private readonly over = new AbortController();
  private wake = (): void => undefined;
  private total = 0;
  private arrived = 0;
  private failures = 0;
  private endWasTold = false;

  constructor(tracker: Tracker, run: TrackedRun, options: FollowerOptions) {
    this.tracker = tracker;
    this.options = options;
    this.work = this.follow(run);
  }

  /** Hands a step over, and returns at once. */
  log(step: TrackedStep): void {
    this.total++;
    this.waiting.push(step);
    if (this.waiting.length > (this.options.mostWaiting ?? MOST_WAITING)) this.waiting.shift();
    this.wake();
  }

  /** Waits, for a limited time, until everything has arrived; and tells what has not. */
  async end(state: TrackedEnd): Promise<void> {
    const { flushSeconds = FLUSH_SECONDS, tell } = this.options;
    this.state = state;
    this.ending.abort();
    this.wake();
    const timer = setTimeout(() => this.over.abort(), 1000 * flushSeconds);
    const isOver = new Promise<void>((resolve) => {
      this.over.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([this.work, isOver]);
    clearTimeout(timer);
    this.over.abort();
    const { name } = this.tracker;
    const lost = this.total - this.arrived;
    if (lost > 0) tell(`${name}: ${lost} of ${counted(this.total, 'step')} did not arrive.`);
    else if (!this.endWasTold) tell(`${name}: every step has arrived, the end of the run has not.`);
    else if (this.failures > 0)
      tell(`${name}: everything has arrived, after ${counted(this.failures, 'failure')}.`);
  }

  private async follow(run: TrackedRun): Promise<void> {
    // What a tracker does at once is no part of the step either.
    await Promise.resolve();
    const { tracker } = this;
    if (!(await this.attempt((signal) => tracker.begin(run, signal)))) return;
    for (let steps = await this.next(); steps.length > 0; steps = await this.next()) {
      if (await this.attempt((signal) => tracker.log(steps, signal))) this.arrived += steps.length;
    }
    const state = this.state ?? 'failed';
    this.endWasTold = await this.attempt((signal) => tracker.end(state, signal));
  }

  /** The steps that wait, or those that come next; none once the run has ended. */
  private async next(): Promise<TrackedStep[]> {
    while (this.waiting.length === 0 && this.state === undefined) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    return this.waiting.splice(0, MOST_AT_ONCE);
  }

  /** @returns whether it was done in the end */
  private async attempt(call: (signal: AbortSignal) => Promise<void> | void): Promise<boolean> {
    for (let attempt = 0; !this.over.signal.aborted; attempt++) {
      try {
        await call(this.over.signal);
        return true;
      } catch (error) {
        if (this.over.signal.aborted) return false;
        this.failed(error);
        if (!(error instanceof TrackerError) || !error.again) return false;
        await this.pause(attempt, error.waitSeconds);
      }
    }
    return false;
  }

  private failed(error: unknown): void {
    if (this.failures++ > 0) return;
    const { name } = this.tracker;
    const reason = error instanceof Error ? error.message : String(error);
    const hint =
      error instanceof PosttrainError && error.hint !== undefined ? ` ${error.hint}` : '';
    this.options.tell(
      `${name}: ${/[.!?]$/.test(reason) ? reason : `${reason}.`}${hint} The run goes on; further failures are counted.`,
    );
  }

  /** @param asked seconds that the server has asked for */
  private async pause(attempt: number, asked: number | undefined): Promise<void> {
    const { sleep = sleepSeconds } = this.options;
    if (asked !== undefined)
      return void (await sleep(Math.min(asked, MOST_ASKED_SECONDS), this.over.signal));
    // The end of the run cuts a wait short once; from then on waits are short themselves.
    const isEnding = this.ending.signal.aborted;
    const longest = isEnding ? LONGEST_WAIT_AT_END_SECONDS : LONGEST_WAIT_SECONDS;
    const { signal } = isEnding ? this.over : this.ending;
    await sleep(Math.min(2 ** attempt, longest), signal);
  }
}

async function sleepSeconds(seconds: number, signal: AbortSignal): Promise<void> {
  try {
    await sleepMilliseconds(1000 * seconds, undefined, { signal });
  } catch {
    // Cut short.
  }
}
