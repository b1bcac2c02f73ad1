/**
 * The lab as the dashboard has it: one process that opens models, started with the first question and ended when nobody
 * asks any more. Its work never holds up the server, and whatever happens to it (no memory, code of a reward that never
 * returns) happens to it alone.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type {
  CompleteJob,
  Failure,
  Lab,
  LabAnswer,
  LabCompletion,
  LabScores,
  LabToken,
  ScoreJob,
} from '../dashboard/index.js';
import type { FromLab, LabPlacement, LabTask, ToLab } from './messages.js';

/** Settings of the lab. */
export interface LabProcessOptions extends LabPlacement {
  /** How long it stays, models and all, when nobody asks. Ten minutes unless said. */
  readonly idleMs?: number | undefined;
  /** How long one question may take. Ten minutes unless said. */
  readonly limitMs?: number | undefined;
  /** How long it may go on with what was cancelled before it is ended. Three seconds unless said. */
  readonly graceMs?: number | undefined;
  /** How many questions may wait. 8 unless said. */
  readonly mostWaiting?: number | undefined;
}

type Value = LabCompletion | LabScores;

interface Waiting {
  readonly id: number;
  readonly task: LabTask;
  readonly onToken: ((token: LabToken) => void) | undefined;
  readonly settle: (answer: LabAnswer<Value>) => void;
  isCancelled: boolean;
}

const MINUTE = 60_000;

/** The lab's process, seen from outside. */
export class LabProcess implements Lab {
  private readonly options: LabProcessOptions;
  private readonly queue: Waiting[] = [];
  private active: Waiting | undefined;
  private child: ChildProcess | undefined;
  private lastId = 0;
  private isClosed = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: LabProcessOptions) {
    this.options = options;
  }

  /** Its number; undefined while there is none. */
  get pid(): number | undefined {
    return this.child?.pid;
  }

  complete(
    job: CompleteJob,
    signal: AbortSignal,
    onToken?: (token: LabToken) => void,
  ): Promise<LabAnswer<LabCompletion>> {
    return this.ask<LabCompletion>({ kind: 'complete', job }, signal, onToken);
  }

  score(job: ScoreJob, signal: AbortSignal): Promise<LabAnswer<LabScores>> {
    return this.ask<LabScores>({ kind: 'score', job }, signal);
  }

  async rewardColumns(specs: readonly string[]): Promise<(string | null)[]> {
    if (specs.length === 0) return [];
    const { rewardColumn } = await import('../rewards/index.js');
    return specs.map((spec) => rewardColumn(spec) ?? null);
  }

  async close(): Promise<void> {
    this.isClosed = true;
    for (const { settle } of this.queue.splice(0)) settle(CANCELLED);
    this.active?.settle(CANCELLED);
    this.active = undefined;
    await this.end();
  }

  private ask<Answer extends Value>(
    task: LabTask,
    signal: AbortSignal,
    onToken?: (token: LabToken) => void,
  ): Promise<LabAnswer<Answer>> {
    const { mostWaiting = 8 } = this.options;
    if (this.isClosed || signal.aborted) return Promise.resolve(CANCELLED);
    if (this.queue.length >= mostWaiting) return Promise.resolve(busy(this.queue.length));
    return new Promise((resolve) => {
      const waiting: Waiting = {
        ...{ id: ++this.lastId, task, onToken, isCancelled: false },
        settle: (answer) => {
          signal.removeEventListener('abort', onAbort);
          // The lab answers a question of this kind with a value of this kind.
          resolve(answer as LabAnswer<Answer>);
        },
      };
      const onAbort = (): void => this.cancel(waiting);
      signal.addEventListener('abort', onAbort);
      this.queue.push(waiting);
      this.next();
    });
  }

  private cancel(waiting: Waiting): void {
    const place = this.queue.indexOf(waiting);
    if (place !== -1) {
      this.queue.splice(place, 1);
      waiting.settle(CANCELLED);
      return;
    }
    if (this.active !== waiting) return;
    waiting.isCancelled = true;
    this.say({ type: 'cancel', id: waiting.id });
    // What does not listen, such as code of a reward in a loop, is ended.
    this.after(this.options.graceMs ?? 3000, () => this.giveUp(CANCELLED));
  }

  private next(): void {
    if (this.active !== undefined || this.isClosed) return;
    const waiting = this.queue.shift();
    if (waiting === undefined) {
      // The program may end while nobody asks; the lab ends with the connection.
      this.child?.unref();
      this.child?.channel?.unref();
      this.after(this.options.idleMs ?? 10 * MINUTE, () => void this.end());
      return;
    }
    this.active = waiting;
    const { limitMs = 10 * MINUTE, device, dtype } = this.options;
    this.after(limitMs, () => this.giveUp(tooLong(limitMs)));
    this.start();
    this.child?.ref();
    this.child?.channel?.ref();
    this.say({ type: 'task', id: waiting.id, task: waiting.task, placed: { device, dtype } });
  }

  /** The active question is answered like this, and the process ended. */
  private giveUp(answer: LabAnswer<Value>): void {
    const { active } = this;
    this.active = undefined;
    void this.end();
    active?.settle(answer);
    this.next();
  }

  private start(): void {
    if (this.child !== undefined) return;
    // From the sources this file is .ts, built it is .js: so is the other one.
    const program = fileURLToPath(new URL(`./worker${extname(import.meta.url)}`, import.meta.url));
    const child = fork(program, [], {
      // No name that a run's files hold may be looked for on the network.
      env: { ...process.env, HF_HUB_OFFLINE: '1' },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.child = child;
    child.on('message', (message) => this.hear(message as FromLab));
    const gone = (why: string): void => {
      if (this.child !== child) return;
      this.child = undefined;
      this.giveUp({ failure: { code: 'E_LAB', message: `The lab’s process ${why}.` } });
    };
    child.on('error', (error) => gone(`did not start: ${error.message}`));
    child.on('exit', (code, signal) => gone(`ended (${signal ?? `exit code ${code}`})`));
  }

  private hear({ id, token, value, failure }: FromLab): void {
    const { active } = this;
    if (active?.id !== id) return;
    if (token !== undefined) {
      if (!active.isCancelled) active.onToken?.(token);
      return;
    }
    this.active = undefined;
    if (active.isCancelled) active.settle(CANCELLED);
    else active.settle(value === undefined ? { failure: failure ?? NO_ANSWER } : { value });
    this.next();
  }

  private say(message: ToLab): void {
    // A process that is gone is heard of by its end.
    this.child?.send(message, () => undefined);
  }

  /** One time limit at a time: of the active question, its cancelling, or of idleness. */
  private after(milliseconds: number, action: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(action, milliseconds);
    this.timer.unref();
  }

  private end(): Promise<void> {
    clearTimeout(this.timer);
    const { child } = this;
    this.child = undefined;
    if (child === undefined) return Promise.resolve();
    const ended = new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) resolve();
      else child.once('exit', () => resolve());
    });
    child.ref(); // its end is waited for
    // Nothing that it holds has to be saved.
    child.kill('SIGKILL');
    return ended;
  }
}

const CANCELLED: { readonly failure: Failure['error'] } = {
  failure: { code: 'E_CANCELLED', message: 'The question was taken back.' },
};
const NO_ANSWER: Failure['error'] = { code: 'E_LAB', message: 'internal: the lab said nothing.' };

function busy(waiting: number): LabAnswer<never> {
  return {
    failure: {
      code: 'E_BUSY',
      message: `The lab is at work, and ${waiting} more questions wait.`,
      hint: 'Ask again when one of them is answered.',
    },
  };
}

function tooLong(limitMs: number): LabAnswer<never> {
  return {
    failure: {
      code: 'E_TIMEOUT',
      message: `The lab did not answer within ${limitMs / 1000} s and was ended.`,
      hint: 'Ask for fewer tokens, or of a smaller model.',
    },
  };
}
