/** The lab's process: does what the dashboard sends, one thing after the other, and ends with it. */
import { setPriority } from 'node:os';
import { PosttrainError } from '../errors/index.js';
import { completePrompt } from './complete.js';
import type { FromLab, LabPlacement, LabTask, ToLab } from './messages.js';
import { OpenModels } from './openModels.js';
import { scoreCompletion } from './score.js';

/** A training beside it, and the dashboard itself, come first. */
const NICENESS = 10;

const models = new OpenModels();
const stops = new Map<number, AbortController>();

async function work(task: LabTask, placed: LabPlacement, signal: AbortSignal) {
  return task.kind === 'complete'
    ? completePrompt(await models.open(task.job, placed), task.job, signal)
    : scoreCompletion(task.job, placed, signal);
}

async function answer({ id, task, placed }: ToLab & { type: 'task' }): Promise<FromLab> {
  const stop = new AbortController();
  stops.set(id, stop);
  try {
    return { id, value: await work(task, placed, stop.signal) };
  } catch (error) {
    return { id, failure: failureOf(error) };
  } finally {
    stops.delete(id);
  }
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
  else void answer(message).then((said) => process.send?.(said));
});
