import { join } from 'node:path';
import { Fields, readJsonObject, type JsonObject } from './jsonFields.js';

/** The fields of generation_config.json that posttrain knows; null where the file does not say. */
export interface GenerationConfig {
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[] | null;
  readonly padTokenId: number | null;
  readonly doSample: boolean | null;
  readonly temperature: number | null;
  readonly topK: number | null;
  readonly topP: number | null;
  readonly minP: number | null;
  readonly repetitionPenalty: number | null;
  readonly maxNewTokens: number | null;
  /** The file as it was read. */
  readonly raw: JsonObject;
}

/**
 * The generation settings that a model's authors recommend.
 *
 * @returns null when the folder has no generation_config.json
 * @throws CheckpointError when the file is not JSON or a field has the wrong type
 */
export function readGenerationConfig(folder: string): GenerationConfig | null {
  const path = join(folder, 'generation_config.json');
  const raw = readJsonObject(path);
  if (raw === null) return null;
  const fields = new Fields(raw, path);
  return {
    bosTokenId: fields.tokenId('bos_token_id'),
    eosTokenIds: fields.tokenIds('eos_token_id'),
    padTokenId: fields.tokenId('pad_token_id'),
    doSample: fields.value('do_sample') === undefined ? null : fields.flag('do_sample', false),
    temperature: fields.numberOrNull('temperature'),
    topK: fields.numberOrNull('top_k'),
    topP: fields.numberOrNull('top_p'),
    minP: fields.numberOrNull('min_p'),
    repetitionPenalty: fields.numberOrNull('repetition_penalty'),
    maxNewTokens: fields.numberOrNull('max_new_tokens'),
    raw,
  };
}
