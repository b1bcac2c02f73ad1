/** What is measured, and how a measuring process is told and answers. Knows no process and no engine. */

import type { Work } from './work.js';

/** The sizes of a model, by the names of `makeDecoderConfig`; the Python side reads the same object. */
export interface ModelShape {
  /** llama unless set. */
  readonly modelType?: 'qwen2';
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
  /** https://huggingface.co/Qwen/Qwen2.5-0.5B, config.json */
  'qwen2.5-0.5b': {
    modelType: 'qwen2',
    vocabSize: 151_936,
    hiddenSize: 896,
    intermediateSize: 4864,
    numLayers: 24,
    numHeads: 14,
    numKeyValueHeads: 2,
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

/** What a model is computed in. */
export type ComputeDtype = 'float32' | 'bfloat16';

/** Sampling without an end token: every row gets `newTokens` tokens, or as many as `limits` says. */
export interface GenerateJob {
  readonly kind: 'generate';
  readonly dtype: ComputeDtype;
  /** Repetitions with 8 new tokens that are not counted go on for at least this long. */
  readonly warmUpSeconds: number;
  /** Timed repetitions: at least so many, and for at least `seconds` together. */
  readonly rounds: number;
  readonly seconds: number;
  readonly shape: ModelShape;
  /** Rows. */
  readonly batch: number;
  /** Rows of each prompt, which stand together; 1 unless set. */
  readonly copies?: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  /** A folder of `makeModelFolder`. */
  readonly model: string;
  /** 0 takes the most likely token; 1 unless set. */
  readonly temperature?: 0;
  /** A file of `writeGguf` with the same weights, for llama.cpp. */
  readonly gguf?: string;
  /** New tokens of each row, where they differ; as many numbers as rows. */
  readonly limits?: readonly number[];
}

/** Methods whose steps are measured. */
export type TrainMethod = 'sft' | 'dpo' | 'reward' | 'grpo' | 'ppo';

/** Whole steps of a run on the files that both sides read. */
export interface TrainJob {
  readonly kind: 'train';
  readonly method: TrainMethod;
  /** A folder of `makeModelFolder`. */
  readonly model: string;
  /** A file of `makeDataFile`. */
  readonly data: string;
  readonly shape: ModelShape;
  /** `mixed`: weights and optimizer in float32, matrix products in bfloat16. */
  readonly dtype: ComputeDtype | 'mixed';
  /** Rows of a step: texts (sft), pairs (dpo, reward) or prompts (grpo, ppo). */
  readonly rows: number;
  /** Of each text, or of each prompt with its completion; end tokens included. */
  readonly tokens: number;
  readonly promptTokens: number;
  /** grpo and ppo: completions of each prompt, and tokens of each. Nothing ends one earlier. */
  readonly groupSize: number;
  readonly newTokens: number;
  /** grpo and ppo: weight of the KL to a reference. 0 has none. */
  readonly klCoef: number;
  readonly lora?: { readonly rank: number; readonly alpha: number };
  /** Ours alone: most tokens of one pass; the default where it is not given. */
  readonly microBatchTokens?: number;
  /** Steps that are not timed; at least one. */
  readonly warmUpSteps: number;
  /** Timed steps. */
  readonly rounds: number;
}

/** Makes a file that llama.cpp reads; nothing is measured. */
export interface GgufJob {
  readonly kind: 'gguf';
  readonly folder: string;
  readonly path: string;
  readonly shape: ModelShape;
  readonly dtype: ComputeDtype;
}

/** Fresh processes of the built command line. */
export interface StartupJob {
  readonly kind: 'startup';
  /** A folder of `makeModelFolder`. */
  readonly model: string;
  readonly shape: ModelShape;
  readonly rounds: number;
}

/** What the machine can do at best. */
export interface CeilingJob {
  readonly kind: 'ceiling';
  readonly shape: ModelShape;
  readonly dtype: ComputeDtype;
}

/** Makes a folder that training cells read; nothing is measured. */
export interface ModelFolderJob {
  readonly kind: 'modelFolder';
  readonly folder: string;
  readonly shape: ModelShape;
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
export type Job =
  | DispatchJob
  | GenerateJob
  | TrainJob
  | StartupJob
  | CeilingJob
  | ModelFolderJob
  | GgufJob
  | PackingJob
  | EncodeJob;

/** One line of the table. */
export interface Cell {
  readonly name: string;
  /** What is measured in this cell, among what the job's process reports. */
  readonly quantity: string;
  readonly job: Job;
  /** What it asks of the machine at least, for each token of a `tokens/s`. */
  readonly work?: Work;
  /** What grows from cell to cell, and its value here; of `growth`. */
  readonly axis?: { readonly name: string; readonly value: number };
  /** How long one process of one side takes, seconds, roughly; only told. */
  readonly expectedSeconds?: number;
}

/** What a measuring process prints as its last line. The Python side prints the same. */
export interface WorkerReport {
  /** Per quantity, one value per round. */
  readonly rounds: Readonly<Record<string, readonly number[]>>;
  /** The most memory that the process had resident. */
  readonly peakRssBytes: number;
  /** Processor time of all threads since the process began; null where processes that it started did the work. */
  readonly cpuSeconds: number | null;
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
