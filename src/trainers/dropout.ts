/** Dropout of adapters in a trainer's own pass. Everything else that reads a model computes without. */
import { loraLayers, type Decoder } from '../models/index.js';
import { withLoraDropout } from '../nn/index.js';
import { deriveSeed } from '../torch/index.js';

/** What a pass with dropout is drawn from. */
export interface DropoutPass {
  readonly model: Pick<Decoder, 'namedModules'>;
  /** null, or a dropout of 0: nothing is dropped. */
  readonly lora: { readonly dropout: number } | null;
  readonly seed: number;
  readonly step: number;
  /** Which micro-batch of the step it is. What is dropped depends on how a step is cut into them. */
  readonly part: number;
}

/** Forward and backward of one micro-batch, with dropout where the settings ask for it. */
export function withDropout<Result>(
  { model, lora, seed, step, part }: DropoutPass,
  pass: () => Result,
): Result {
  if (lora === null || lora.dropout === 0) return pass();
  const dropout = { p: lora.dropout, seed: deriveSeed(seed, 'dropout', step, part) };
  return withLoraDropout(loraLayers(model), dropout, pass);
}
