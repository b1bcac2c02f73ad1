/** What is measured, and how a measuring process is told and answers. Knows no process and no engine. */

/** The sizes of a model, by the names of `makeDecoderConfig`; the Python side reads the same object. */
export interface ModelShape {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly tieWordEmbeddings: true;
}

/** Models that benches are made with, by name. Weights are random: speed does not depend on them. */
export const SHAPES: Readonly<Record<string, ModelShape>> = {
  /** Llama-shaped, 5.3 million parameters. */
  tiny: {
    vocabSize: 8192,
    hiddenSize: 256,
    intermediateSize: 688,
    numLayers: 4,
    numHeads: 4,
    numKeyValueHeads: 4,
    tieWordEmbeddings: true,
  },
  /** https://huggingface.co/HuggingFaceTB/SmolLM2-135M, config.json */
  'smollm2-135m': {
    vocabSize: 49152,
    hiddenSize: 576,
    intermediateSize: 1536,
    numLayers: 30,
    numHeads: 9,
    numKeyValueHeads: 3,
    tieWordEmbeddings: true,
  },
};

/** Calls of small operators. */
export interface DispatchJob {
  readonly kind: 'dispatch';
  /** Timed repetitions in one process. */
  readonly rounds: number;
  /** Calls per repetition. */
  readonly calls: number;
}

/** Sampling without an end token: every row gets `newTokens` tokens. */
export interface GenerateJob {
  readonly kind: 'generate';
  /** Repetitions with 8 new tokens that are not counted go on for at least this long. */
  readonly warmUpSeconds: number;
  /** Timed repetitions: at least so many, and for at least `seconds` together. */
  readonly rounds: number;
  readonly seconds: number;
  readonly shape: ModelShape;
  /** Rows, each with a prompt of its own. */
  readonly batch: number;
  readonly promptTokens: number;
  readonly newTokens: number;
}

/** Whole steps of supervised fine-tuning on rows of `shortest` to `longest` tokens. */
export interface PackingJob {
  readonly kind: 'packing';
  readonly rounds: number;
  readonly shape: ModelShape;
  readonly packing: boolean;
  /** Rows of a step. */
  readonly rows: number;
  readonly shortest: number;
  readonly longest: number;
}

/** Texts to token ids, on one thread. */
export interface EncodeJob {
  readonly kind: 'encode';
  /** Timed repetitions: at least so many, and for at least `seconds` together. */
  readonly rounds: number;
  readonly seconds: number;
  /** A tokenizer.json and a list of texts to make rows of, both gzipped; paths below the checkout. */
  readonly tokenizer: string;
  readonly texts: string;
  /** Characters of all rows together, and of each. One row as long as all has no spaces. */
  readonly characters: number;
  readonly rowCharacters: number;
}

/** One process's work. */
export type Job = DispatchJob | GenerateJob | PackingJob | EncodeJob;

/** One line of the table. */
export interface Cell {
  readonly name: string;
  /** What is measured in this cell, among what the job's process reports. */
  readonly quantity: string;
  readonly job: Job;
}

/** What a measuring process prints as its last line. The Python side prints the same. */
export interface WorkerReport {
  /** Per quantity, one value per round. */
  readonly rounds: Readonly<Record<string, readonly number[]>>;
  /** The most memory that the process had resident. */
  readonly peakRssBytes: number;
  /** Processor time of all threads since the process began. */
  readonly cpuSeconds: number;
  /** That one operator may use. */
  readonly threads: number;
  readonly versions: Readonly<Record<string, string>>;
  /** The vector instructions that libtorch chose. */
  readonly cpuCapability: string;
  /** Where the time went, when it was asked for; milliseconds of all rounds together. */
  readonly profile?: readonly ProfileRow[];
}

/** One kind of call of the engine. */
export interface ProfileRow {
  readonly name: string;
  readonly calls: number;
  readonly milliseconds: number;
}
