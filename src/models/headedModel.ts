/** A decoder with a head in place of its output layer, as transformers lays it out on disk: trunk, then `score`. */
import { ConfigError } from '../errors/index.js';
import { Module, type Linear } from '../nn/index.js';
import type { Dtype, Tensor } from '../torch/index.js';
import type { Adapter } from './adapter.js';
import type { AdapterTask } from './adapterConfig.js';
import { saveAdapter } from './adapterFolder.js';
import type { SaveOptions } from './causalLm.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { CLASS_NAMES } from './families.js';
import { saveModel, type SavedModel } from './saveModel.js';

/** The key of an adapter's metadata that names the padding token. */
export const PAD_TOKEN = 'pad_token_id';

/** What models with a head have in common, whatever it reads. */
export abstract class HeadedModel extends Module {
  /** The decoder below the head. It has no output layer of its own: its `lmHead` is not meant to be used. */
  readonly trunk: Decoder;
  /** Checkpoint key: `score`. */
  readonly head: Linear;

  constructor(trunk: Decoder, head: Linear) {
    super();
    this.trunk = trunk;
    this.head = this.child('score', head);
  }

  get config(): DecoderConfig {
    return this.trunk.config;
  }

  get dtype(): Dtype {
    return this.trunk.dtype;
  }

  get device(): string {
    return this.trunk.device;
  }

  /** Parameters by the names of the checkpoint: the trunk's, then those of `score`. */
  override namedParameters(): Map<string, Tensor> {
    return new Map([...this.trunk.namedParameters(), ...super.namedParameters()]);
  }

  override namedModules(): Map<string, Module> {
    return new Map([...this.trunk.namedModules(), ...super.namedModules()]);
  }

  /** That of the trunk. The head is trained as a whole beside it. */
  get adapter(): Adapter | null {
    return this.trunk.adapter;
  }

  /** Parameters that training changes, by name: all, or those of the trunk's adapter and the head. */
  trainedParameters(): Map<string, Tensor> {
    return new Map([...this.trunk.trainedParameters(), ...super.namedParameters()]);
  }

  /**
   * Writes a folder that posttrain and transformers open. transformers finds a row's last token by `pad_token_id` and
   * refuses batches where config.json names none.
   *
   * @throws IoError with the path when writing fails
   */
  save(folder: string, options: SaveOptions = {}): Promise<void> {
    const { adapter } = this;
    if (adapter === null)
      return saveModel(this.savedModel(), this.trunk.generationConfig, folder, options);
    const modulesToSave = [...adapter.config.modulesToSave, 'score'];
    const config = { ...adapter.config, task: this.task, modulesToSave };
    const metadata = this.savedMetadata();
    return saveAdapter(
      {
        ...{ base: this.config, adapter: { ...adapter, config } },
        ...{ parameters: this.trainedParameters(), metadata },
      },
      folder,
    );
  }

  /** What `save` writes of a model without an adapter. */
  savedModel(): SavedModel {
    const { dtype } = this;
    const namedParameters = (): Map<string, Tensor> => this.namedParameters();
    return { config: this.savedConfig(), dtype, namedParameters };
  }

  /** What PEFT calls a model with such a head. */
  abstract readonly task: AdapterTask;

  /** What config.json tells beside the trunk's own: an adapter has none, and keeps it with its tensors. */
  protected savedMetadata(): Record<string, string> {
    const { padTokenId } = this.config;
    return padTokenId === null ? {} : { [PAD_TOKEN]: String(padTokenId) };
  }

  /** The configuration as `save` writes it. */
  protected savedConfig(): DecoderConfig {
    return this.config;
  }

  override dispose(): void {
    this.trunk.dispose();
    this.head.dispose();
  }
}

/** What config.json tells of a head. */
export interface HeadDescription {
  /** How transformers' names of such classes end. */
  readonly task: 'ForSequenceClassification' | 'ForTokenClassification';
  /** One per output. */
  readonly labels: readonly string[];
  readonly padTokenId?: number | undefined;
}

/**
 * The configuration of a decoder with a head of `labels` outputs: config.json names its class and its labels, and
 * `padTokenId` where it names no padding token yet.
 *
 * @throws ConfigError where transformers has no such class for the family
 */
export function headedConfig(
  config: DecoderConfig,
  { task, labels, ...options }: HeadDescription,
): DecoderConfig {
  // GPT2ForTokenClassification reads another head under another name; Gemma 3's text model has no such class.
  const isMissing = config.modelType === 'gpt2' || config.modelType === 'gemma3_text';
  if (task === 'ForTokenClassification' && isMissing)
    throw new ConfigError(
      `createStepModel: expected a family that transformers has a model of steps for, received ${config.modelType}.`,
      { hint: "Take a process reward model on another family: it need not be the policy's." },
    );
  const padTokenId = config.padTokenId ?? options.padTokenId ?? null;
  const raw = {
    ...config.raw,
    architectures: [`${CLASS_NAMES[config.modelType]}${task}`],
    id2label: Object.fromEntries(labels.entries()),
    label2id: Object.fromEntries(labels.map((label, index) => [label, index])),
    ...(padTokenId !== null && { pad_token_id: padTokenId }),
  };
  return { ...config, padTokenId, raw };
}
