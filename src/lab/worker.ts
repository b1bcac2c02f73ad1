/** The lab's process: does what the dashboard sends, one thing after the other, and ends with it. */
import { setPriority } from 'node:os';
import type { LabToken } from '../dashboard/index.js';
import { PosttrainError } from '../errors/index.js';
import { completePrompt } from './complete.js';
import type { FromLab, LabPlacement, LabTask, ToLab } from './messages.js';
import { OpenModels } from './openModels.js';
import { scoreCompletion } from './score.js';

/** A training beside it, and the dashboard itself, come first. */
const NICENESS = 10;

const models = new OpenModels();
const stops = new Map<number, AbortController>();

interface Listening {
  readonly signal: AbortSignal;
  readonly onToken: (token: LabToken) => void;
}

async function work(task: LabTask, placed: LabPlacement, listening: Listening) {
  return task.kind === 'complete'
    ? completePrompt(await models.open(task.job, placed), task.job, listening)
    : scoreCompletion(task.job, placed, listening.signal);
}

async function answer({ id, task, placed }: ToLab & { type: 'task' }): Promise<FromLab> {
  const stop = new AbortController();
  stops.set(id, stop);
  try {
    const onToken = (token: LabToken): void => say({ id, token });
    return { id, value: await work(task, placed, { signal: stop.signal, onToken }) };
  } catch (error) {
    return { id, failure: failureOf(error) };
  } finally {
    stops.delete(id);
  }
}

function say(message: FromLab): void {
  process.send?.(message);
}

function failureOf(error: unknown): NonNullable<FromLab['failure']> {
  if (error instanceof PosttrainError) {
    const { code, message, hint } = error;
    return { code, message, ...(hint !== undefined && { hint }) };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'E_INTERNAL', message: `internal: ${message}` };
}

setPriority(NICENESS);
process.on('disconnect', () => process.exit());
process.on('message', (message: ToLab) => {
  if (message.type === 'cancel') stops.get(message.id)?.abort();
  else void answer(message).then(say);
});
