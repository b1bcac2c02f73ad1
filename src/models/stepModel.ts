/**
 * A decoder that tells right from wrong steps: process reward models. Knows the layout that transformers'
 * AutoModelForTokenClassification with two labels has on disk, and that of TRL's PRMTrainer, which saves one.
 */
import { ShapeError, ValueRangeError } from '../errors/index.js';
import { modelOnBase } from '../hub/index.js';
import type { Linear } from '../nn/index.js';
import { assertRank, tensor, tidy, zeros, type Tensor } from '../torch/index.js';
import type { CausalLmInput } from './causalLm.js';
import { scoreDtype } from './completionStates.js';
import type { Decoder } from './decoder.js';
import type { DecoderConfig } from './decoderConfig.js';
import { createHead, readHead, type HeadOptions } from './head.js';
import { HeadedModel, headedConfig } from './headedModel.js';
import { isAdapterFolder } from './adapterFolder.js';
import { headOutputs, loadHeaded, loadHeadedAdapter } from './loadHeadedModel.js';
import { loadModel, type LoadModelOptions } from './loadModel.js';
import { rowEnds } from './rowEnds.js';
import { checkRowLengths } from './rowLengths.js';

/** Wrong (0) and right (1). */
const OUTPUTS = 2;

/** What stands after every step unless config.json says otherwise: TRL 1.13, PRMConfig.step_separator. */
const DEFAULT_SEPARATOR = '\n';

/** The key of config.json. transformers keeps keys that it does not know. */
const SEPARATOR_KEY = 'step_separator';

/**
 * A decoder that gives two logits per position, of "wrong" and "right". Its head is [2, D] with a bias. Made by
 * `createStepModel` and `loadStepModel`; `save` writes a folder that `loadStepModel` and transformers'
 * AutoModelForTokenClassification open.
 */
export class StepModel extends HeadedModel {
  readonly task = 'TOKEN_CLS';
  private separator: string;

  /** @internal Use `createStepModel` or `loadStepModel`. */
  constructor(trunk: Decoder, head: Linear) {
    super(trunk, head);
    const separator = trunk.config.raw[SEPARATOR_KEY];
    this.separator = typeof separator === 'string' ? separator : DEFAULT_SEPARATOR;
  }

  /** What stands after every step where the model was trained; `save` writes it to config.json. */
  get stepSeparator(): string {
    return this.separator;
  }

  /** @throws ValueRangeError for an empty text */
  set stepSeparator(text: string) {
    assertSeparator('StepModel', text);
    this.separator = text;
  }

  /** @returns [B, L, 2] what the head reads at every position, float32, float64 for a float64 model */
  forward(input: CausalLmInput): { logits: Tensor } {
    const states = this.trunk.hiddenStates(input);
    const dtype = scoreDtype(this.trunk);
    return { logits: readHead('StepModel', this.head, states, { dtype, outputs: OUTPUTS }) };
  }

  protected override savedMetadata(): Record<string, string> {
    return { ...super.savedMetadata(), [SEPARATOR_KEY]: this.separator };
  }

  protected override savedConfig(): DecoderConfig {
    const { raw } = this.config;
    // What was opened without a separator is saved without the one that it has anyway.
    const isSaid = SEPARATOR_KEY in raw || this.separator !== DEFAULT_SEPARATOR;
    return isSaid
      ? { ...this.config, raw: { ...raw, [SEPARATOR_KEY]: this.separator } }
      : this.config;
  }
}

function assertSeparator(where: string, text: string): void {
  if (text === '')
    throw new ValueRangeError(
      `${where}: expected stepSeparator to be a text, received an empty one.`,
    );
}

/** Options of `createStepModel`. */
export interface StepModelOptions extends HeadOptions {
  /** What stands after every step: a line end unless said. */
  readonly stepSeparator?: string | undefined;
  /** The padding token that config.json names, where the trunk's names none. */
  readonly padTokenId?: number | undefined;
}

/**
 * A process reward model that begins as a language model with a new head. The head is zero unless `std` is given: every
 * step then has the probability ½ and the first loss is log 2; the trunk learns from the second update on. The model
 * owns the trunk from now on and frees its output layer, where it has one of its own; the decoder that was given must
 * not be used.
 *
 * @throws ValueRangeError unless `std` is positive, or for an empty separator
 */
export function createStepModel(trunk: Decoder, options: StepModelOptions = {}): StepModel {
  const { stepSeparator = DEFAULT_SEPARATOR, padTokenId, ...head } = options;
  assertSeparator('createStepModel', stepSeparator);
  const made = createHead('createStepModel', trunk, { ...head, outputs: OUTPUTS, bias: true });
  const config = stepConfig(trunk.config, stepSeparator, padTokenId);
  return new StepModel(trunk.withoutHead(config), made);
}

/** The configuration of a step model on the trunk that `config` describes. */
function stepConfig(
  config: DecoderConfig,
  stepSeparator: string,
  padTokenId: number | undefined,
): DecoderConfig {
  const headed = headedConfig(config, {
    task: 'ForTokenClassification',
    labels: ['LABEL_0', 'LABEL_1'],
    padTokenId,
  });
  // What an earlier head said of its bias is not true of this one.
  const { token_classification_bias: _, ...raw } = headed.raw;
  return { ...headed, raw: { ...raw, [SEPARATOR_KEY]: stepSeparator } };
}

/**
 * Loads a process reward model: a folder that `StepModel.save` wrote, or transformers' AutoModelForTokenClassification with
 * two labels, as TRL's PRMTrainer saves it, or an adapter of such a model in PEFT's layout (task_type TOKEN_CLS).
 *
 * @throws CheckpointError and IoError as `loadModel`; CheckpointError also for a folder without such a head
 */
export async function loadStepModel(
  folderOrHubId: string,
  options: LoadModelOptions = {},
): Promise<StepModel> {
  const { folder, base } = await modelOnBase(folderOrHubId, options.base);
  if (isAdapterFolder(folder)) {
    const { model, metadata } = await loadHeadedAdapter(
      folder,
      STEP_HEAD,
      { ...options, base },
      {
        isWhole: isStepModelFolder,
        loadWhole: loadStepModel,
        create: async (of, placed, padTokenId) =>
          createStepModel(await loadModel(of, placed), { padTokenId }),
      },
    );
    model.stepSeparator = metadata[SEPARATOR_KEY] ?? model.stepSeparator;
    return model;
  }
  const { trunk, head } = loadHeaded(folder, STEP_HEAD, options);
  return new StepModel(trunk, head);
}

/**
 * Whether a model folder holds a process reward model.
 *
 * @throws CheckpointError and IoError as `loadModel`, where it is no model folder
 */
export function isStepModelFolder(folder: string): boolean {
  return headOutputs('isStepModelFolder', folder) === OUTPUTS;
}

const STEP_HEAD = {
  where: 'loadStepModel',
  what: 'a head that judges steps',
  hint: 'To put a new head on a language model: createStepModel(await loadModel(folder)).',
  outputs: OUTPUTS,
  hasBias: (raw: Readonly<Record<string, unknown>>) => raw['token_classification_bias'] !== false,
} as const;

/** A trunk and a head of two outputs on its states. */
export interface StepParts {
  readonly trunk: Decoder;
  /** [2, D] */
  readonly head: Linear;
}

/** What `stepLogits` reads. S is the largest number of steps in a row. */
export interface StepRows {
  /** [B, L] int64. What stands beyond a row's length must be some id of the vocabulary and changes nothing. */
  readonly inputIds: Tensor;
  /** B numbers from 1 to L: tokens of each row, which begins at the left. */
  readonly lengths: readonly number[];
  /** For each row, the places of its steps' last tokens: rising, from 0 to lengths[i] − 1. */
  readonly stepEnds: readonly (readonly number[])[];
}

/**
 * What a process reward model says of every step.
 *
 *     logits[i][s] = head(h[i][stepEnds[i][s]])
 *
 * The state at a step's last token has seen the whole step and nothing after it.
 *
 * @returns [B, S, 2] of wrong and right, exactly 0 beyond a row's steps; float32, float64 for a float64 model; gradients
 *   flow to trunk and head
 * @throws ShapeError unless the inputs fit together
 * @throws ValueRangeError for a length or a place out of range, or where no row has a step
 */
export function stepLogits({ trunk, head }: StepParts, rows: StepRows): Tensor {
  const { longest, width, places, ends } = layoutOf(rows, trunk.config);
  const count = rows.stepEnds.length;
  const dtype = scoreDtype(trunk);
  return tidy(() => {
    const index = (values: readonly number[]): Tensor =>
      tensor(Float64Array.from(values), { dtype: 'int64', device: trunk.device });
    const spans = rows.lengths.map((length, line) => ({ line, start: 0, length }));
    const states = trunk.hiddenStates({
      inputIds: rows.inputIds.narrow(1, 0, longest),
      sequenceIds: rowEnds(trunk, [count, longest], spans),
    });
    const read = states.flatten(0, 1).indexSelect(0, index(ends));
    const logits = readHead('stepLogits', head, read, { dtype, outputs: OUTPUTS });
    return zeros([count * width * OUTPUTS], { dtype, device: trunk.device })
      .scatter(0, index(places), logits.flatten(0, 1))
      .view([count, width, OUTPUTS]);
  });
}

interface StepLayout {
  /** Tokens of the longest row. */
  readonly longest: number;
  /** S */
  readonly width: number;
  /** Of every step and output: where it goes in the flattened [B, S, 2]. */
  readonly places: readonly number[];
  /** Of every step: where its last token stands in the flattened [B, longest]. */
  readonly ends: readonly number[];
}

function layoutOf(
  { inputIds, lengths, stepEnds }: StepRows,
  config: Pick<DecoderConfig, 'maxPositionEmbeddings'>,
): StepLayout {
  const where = 'stepLogits';
  assertRank(where, '[B, L]', { inputIds });
  const [rows, columns] = [inputIds.size(0), inputIds.size(1)];
  if (lengths.length !== rows || stepEnds.length !== rows)
    throw new ShapeError(
      `${where}: expected ${rows} lengths and stepEnds, one per row of inputIds, received ${lengths.length} and ${stepEnds.length}.`,
    );
  checkRowLengths(where, lengths, columns, config);
  lengths.forEach((length, row) => {
    let before = -1;
    for (const end of stepEnds[row] ?? []) {
      if (!Number.isInteger(end) || end <= before || end >= length)
        throw new ValueRangeError(
          `${where}: expected stepEnds[${row}] to rise from 0 to at most ${length - 1}, received ${end} after ${before}.`,
        );
      before = end;
    }
  });
  const width = Math.max(0, ...stepEnds.map((ends) => ends.length));
  if (width === 0)
    throw new ValueRangeError(`${where}: expected a row with a step, received none.`);
  const longest = Math.max(...lengths);
  const steps = stepEnds.flatMap((ends, row) =>
    ends.map((end, step) => ({ place: row * width + step, end: row * longest + end })),
  );
  return {
    longest,
    width,
    places: steps.flatMap(({ place }) =>
      Array.from({ length: OUTPUTS }, (_, output) => place * OUTPUTS + output),
    ),
    ends: steps.map(({ end }) => end),
  };
}
