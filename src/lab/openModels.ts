/** The models that the lab keeps loaded: the two that were used last, as long as their files stay the same. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { CompleteJob, ModelSource } from '../dashboard/index.js';
import { CheckpointError, ConfigError } from '../errors/index.js';
import { defaultMaxNewTokens } from '../generation/index.js';
import {
  isScalarModelFolder,
  isStepModelFolder,
  loadModel,
  openModelFolder,
  readDecoderConfig,
  readGenerationConfig,
  tokenizerFolderOf,
  type Decoder,
  type GenerationConfig,
} from '../models/index.js';
import { requireMemory } from '../runs/index.js';
import { loadTokenizer, type Tokenizer } from '../tokenizers/index.js';
import { cudaIsAvailable, type Dtype } from '../torch/index.js';
import type { LabPlacement } from './messages.js';
import { promptTokens } from './promptTokens.js';

/** A model that can be asked. */
export interface OpenModel {
  readonly model: Decoder;
  readonly tokenizer: Tokenizer;
  readonly recommended: GenerationConfig | null;
  /** Seconds until it was there; 0 where it was. */
  readonly loading: number;
}

const MOST = 2;

interface Kept extends OpenModel {
  readonly folder: string;
  /** Another one where anything that matters is another. */
  readonly key: string;
}

/** What is loaded. */
export class OpenModels {
  /** The one used last comes last. */
  private kept: Kept[] = [];

  /**
   * Loads a model, unless it is there. Others are freed where there is not memory for all.
   *
   * @throws CheckpointError where it writes no text, and as `loadModel`; ConfigError where there is not enough memory
   */
  async open(
    job: Pick<CompleteJob, 'model' | 'prompt' | 'chat' | 'givenIds' | 'maxNewTokens'>,
    { device, dtype }: LabPlacement,
  ): Promise<OpenModel> {
    const startedAt = performance.now();
    const folder = await openSource(job.model);
    const key = JSON.stringify([folder, job.model.base, device, dtype, stampOf(folder)]);
    const there = this.kept.find((one) => one.key === key);
    if (there !== undefined) {
      this.kept = [...this.kept.filter((one) => one !== there), there];
      return { ...there, loading: 0 };
    }
    // Written anew since.
    for (const old of this.kept.filter((one) => one.folder === folder)) this.free(old);
    requireText(folder);
    const placed = { dtype, device: placeOf(device) };
    const tokenizer = await loadTokenizer(tokenizerFolderOf(folder));
    await this.makeRoom(folder, placed, longestOf(job, folder, tokenizer));
    const model = (await loadModel(folder, placed)).freeze();
    const loading = (performance.now() - startedAt) / 1000;
    const recommended = readGenerationConfig(folder);
    this.kept.push({ folder, key, model, tokenizer, recommended, loading });
    return { model, tokenizer, recommended, loading };
  }

  /** Frees all. */
  dispose(): void {
    for (const one of this.kept) this.free(one);
  }

  private async makeRoom(
    folder: string,
    placed: { dtype: Dtype; device: string },
    tokens: number,
  ): Promise<void> {
    const [first] = this.kept;
    if (first !== undefined && this.kept.length >= MOST) this.free(first);
    for (;;) {
      try {
        return await requireRoom(folder, placed, { hasLmHead: true, tokens });
      } catch (error) {
        const [oldest] = this.kept;
        if (!(error instanceof ConfigError) || oldest === undefined) throw error;
        this.free(oldest);
      }
    }
  }

  private free(one: Kept): void {
    one.model.dispose();
    this.kept = this.kept.filter((other) => other !== one);
  }
}

/**
 * The folder of a model that may be opened. An adapter stands on the base that was looked at, whatever its settings name.
 *
 * @throws as `openModelFolder`
 */
export function openSource({ from, base }: ModelSource): Promise<string> {
  return openModelFolder('The lab', from, base ?? undefined);
}

/** @throws ConfigError where a model does not fit into memory; `tokens` are those of one row, 0 where none is drawn */
export function requireRoom(
  folder: string,
  { dtype, device }: { dtype: Dtype; device: string },
  { hasLmHead, tokens }: { hasLmHead: boolean; tokens: number },
): Promise<void> {
  const models = [{ from: folder, isTrained: false, hasLmHead }];
  const rollout = tokens === 0 ? null : { rows: 1, tokens };
  const settings = { dtype, microBatchTokens: 1, memoryCheck: 'refuse' as const };
  return requireMemory(settings, { models, device, update: null, rollout }, null);
}

/** The device that a setting stands for. */
export function placeOf(device: string): string {
  return device === 'auto' ? (cudaIsAvailable() ? 'cuda' : 'cpu') : device;
}

function requireText(folder: string): void {
  const [what, kind] = isScalarModelFolder(folder)
    ? ['a reward model', 'scores']
    : isStepModelFolder(folder)
      ? ['a process reward model', 'judges']
      : [];
  if (what === undefined) return;
  throw new CheckpointError(
    `The lab: expected a model that writes text in ${folder}, found ${what}.`,
    { hint: `It ${kind} what others write: choose it as the reward.` },
  );
}

function longestOf(
  { prompt, chat, givenIds, maxNewTokens }: Parameters<OpenModels['open']>[0],
  folder: string,
  tokenizer: Tokenizer,
): number {
  const length = promptTokens(tokenizer, { prompt, chat }).length + givenIds.length;
  return (
    length + (maxNewTokens ?? defaultMaxNewTokens({ config: readDecoderConfig(folder) }, length))
  );
}

/** Changes when a file of the folder is written anew, as the model of a run that goes on is. */
function stampOf(folder: string): string {
  if (!existsSync(folder)) return ''; // what loads it tells
  return readdirSync(folder)
    .sort()
    .map((name) => {
      const { size, mtimeMs } = statSync(join(folder, name));
      return `${name} ${size} ${mtimeMs}`;
    })
    .join('\n');
}
