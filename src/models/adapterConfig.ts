/** adapter_config.json of PEFT: which layers have adapters, and of what kind. Knows the file, not the layers. */
import { CheckpointError } from '../errors/index.js';
import { Fields, isJsonObject, type JsonObject } from './jsonFields.js';

/** What an adapter is for: PEFT's names of what stands on the trunk. */
export type AdapterTask = 'CAUSAL_LM' | 'SEQ_CLS' | 'TOKEN_CLS';

/** The settings of LoRA, as they are chosen before training. */
export interface LoraOptions {
  /** r: rows of A. */
  readonly rank: number;
  /** α, which with the rank gives the scaling. */
  readonly alpha: number;
  /** Probability with which an element of an adapter's input is dropped in training. */
  readonly dropout: number;
  /** α/√r in place of α/r. */
  readonly rsLora: boolean;
  /** A trained length for each row of the adapted weights. */
  readonly dora: boolean;
  /**
   * Layers with an adapter: names, which may leave out what stands before a dot (`q_proj`), or a regular expression for
   * whole names; `all-linear` stands for every linear layer but the output layer.
   */
  readonly targetModules: string | readonly string[];
  /** How names of layers end that are trained as a whole and saved with the adapter. */
  readonly modulesToSave: readonly string[];
}

/** Contents of an adapter_config.json. */
export interface AdapterConfig extends LoraOptions {
  /** Path of the model that the adapter belongs to, or its name on the Hub, as it was written. */
  readonly baseModel: string | null;
  /** Of a base model of the Hub: its branch, tag or commit; null where the file does not tell. */
  readonly revision: string | null;
  /** null where the file does not tell. */
  readonly task: AdapterTask | null;
  /** Ranks of layers that have another one, by the ends of their names as regular expressions. */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** The same for α. */
  readonly alphaPattern: Readonly<Record<string, number>>;
}

/** Fields that change nothing once an adapter is trained, or that `parseAdapterConfig` reads. */
const KNOWN = new Set([
  'alpha_pattern',
  'auto_mapping',
  'base_model_name_or_path',
  'bias',
  'fan_in_fan_out', // how the base stores its matrices, which config.json tells
  'inference_mode',
  'init_lora_weights',
  'lora_alpha',
  'lora_dropout',
  'megatron_core',
  'modules_to_save',
  'peft_type',
  'peft_version',
  'qalora_group_size',
  'r',
  'rank_pattern',
  'revision',
  'runtime_config',
  'target_modules',
  'task_type',
  'use_dora',
  'use_rslora',
]);

/** First values of A and B that leave the base as it is. Others (PiSSA, OLoRA, …) change it when they are loaded. */
const HARMLESS_INITS: readonly unknown[] = [
  true,
  false,
  'gaussian',
  'orthogonal',
  'eva',
  undefined,
];

const TASKS: readonly string[] = ['CAUSAL_LM', 'SEQ_CLS', 'TOKEN_CLS'];

/**
 * Reads adapter_config.json.
 *
 * @param path of the file, for messages
 * @throws CheckpointError for a method other than LoRA, a field of another type, or a field that is on and that posttrain
 *   does not have
 */
export function parseAdapterConfig(raw: JsonObject, path: string): AdapterConfig {
  const fields = new Fields(raw, path);
  if (fields.value('peft_type') !== 'LORA') throw fields.wrong('peft_type', '"LORA"');
  if (fields.text('bias', 'none') !== 'none') throw fields.wrong('bias', '"none"');
  if (!HARMLESS_INITS.includes(fields.value('init_lora_weights')))
    throw fields.wrong('init_lora_weights', 'true, false, "gaussian", "orthogonal" or "eva"');
  for (const [name, value] of Object.entries(raw)) {
    if (KNOWN.has(name) || isOff(value)) continue;
    throw new CheckpointError(
      `${path}: expected ${name} to be off, received ${JSON.stringify(value)}, which posttrain does not have.`,
      { hint: 'Merge the adapter with PEFT (merge_and_unload) and open the merged model.' },
    );
  }
  const task = fields.value('task_type');
  if (task !== undefined && !TASKS.includes(String(task)))
    throw fields.wrong('task_type', 'one of CAUSAL_LM, SEQ_CLS, TOKEN_CLS');
  return {
    baseModel: textOrNull(fields, 'base_model_name_or_path'),
    revision: textOrNull(fields, 'revision'),
    task: (task as AdapterTask | undefined) ?? null,
    rank: fields.size('r', 8),
    alpha: fields.positive('lora_alpha', 8),
    dropout: fields.numberOrNull('lora_dropout') ?? 0,
    rsLora: fields.flag('use_rslora', false),
    dora: fields.flag('use_dora', false),
    targetModules: targets(fields),
    modulesToSave: names(fields, 'modules_to_save') ?? [],
    rankPattern: patterns(fields, 'rank_pattern', 'positive integers', Number.isSafeInteger),
    alphaPattern: patterns(fields, 'alpha_pattern', 'positive numbers', Number.isFinite),
  };
}

function isOff(value: unknown): boolean {
  if (value === null || value === false) return true;
  if (Array.isArray(value)) return value.length === 0;
  return isJsonObject(value) && Object.keys(value).length === 0;
}

function textOrNull(fields: Fields, name: string): string | null {
  return fields.value(name) === undefined ? null : fields.text(name);
}

function names(fields: Fields, name: string): string[] | null {
  const value = fields.value(name);
  if (value === undefined) return null;
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === 'string'))
    throw fields.wrong(name, 'a list of names');
  return value;
}

function targets(fields: Fields): string | string[] {
  const value = fields.value('target_modules');
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) throw fields.wrong('target_modules', 'a list of names or a text');
  return names(fields, 'target_modules') ?? [];
}

/** Values of layers by the ends of their names, which are regular expressions. */
function patterns(
  fields: Fields,
  name: string,
  expected: string,
  isAllowed: (value: unknown) => boolean,
): Record<string, number> {
  const value = fields.value(name) ?? {};
  const isPositive = (entry: unknown): boolean =>
    typeof entry === 'number' && isAllowed(entry) && entry > 0;
  if (!isJsonObject(value) || !Object.values(value).every(isPositive))
    throw fields.wrong(name, `an object of ${expected}`);
  if (!Object.keys(value).every(isExpression))
    throw fields.wrong(name, 'an object whose keys are regular expressions');
  return value as Record<string, number>;
}

function isExpression(text: string): boolean {
  try {
    new RegExp(`(?:${text})`);
    return true;
  } catch {
    return false;
  }
}

/**
 * The file's contents in the order of PEFT, which sorts by name.
 *
 * @param isTransposed whether the base has its matrices as [in, out] (GPT-2)
 */
export function adapterConfigJson(config: AdapterConfig, isTransposed: boolean): JsonObject {
  return {
    alpha_pattern: config.alphaPattern,
    base_model_name_or_path: config.baseModel,
    bias: 'none',
    fan_in_fan_out: isTransposed,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    modules_to_save: config.modulesToSave.length === 0 ? null : config.modulesToSave,
    peft_type: 'LORA',
    r: config.rank,
    rank_pattern: config.rankPattern,
    revision: config.revision,
    target_modules: config.targetModules,
    task_type: config.task,
    use_dora: config.dora,
    use_rslora: config.rsLora,
  };
}
