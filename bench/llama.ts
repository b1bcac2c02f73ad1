/**
 * The other side of `llama`: tokens per second of llama.cpp by node-llama-cpp's prebuilt CPU binary, in a process of its
 * own. The package is installed below build/ and is no dependency of anything here.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { GenerateJob, WorkerReport } from './jobs.js';
import { ROOT } from './machine.js';

/** What is called of node-llama-cpp. */
interface LlamaModule {
  readonly getLlama: (options: {
    gpu: false;
    build: 'never';
    maxThreads: number;
    progressLogs: false;
  }) => Promise<{
    loadModel(options: { modelPath: string; gpuLayers: 0 }): Promise<{
      createContext(options: { contextSize: number; threads: number }): Promise<{
        getSequence(): {
          clearHistory(): Promise<void>;
          evaluate(
            tokens: readonly number[],
            options: { temperature: number; yieldEogToken: true },
          ): AsyncIterable<number>;
        };
      }>;
    }>;
  }>;
}

const PACKAGE = join(ROOT, 'build', 'bench-llama', 'node_modules', 'node-llama-cpp');

const job = JSON.parse(process.argv[2] ?? '') as GenerateJob;
const { promptTokens, newTokens, gguf } = job;

const entry = pathToFileURL(join(PACKAGE, 'dist', 'index.js')).href;
const { getLlama } = (await import(entry)) as LlamaModule;
const threads = Number(process.env['OMP_NUM_THREADS'] ?? availableParallelism());
const llama = await getLlama({
  gpu: false,
  build: 'never',
  maxThreads: threads,
  progressLogs: false,
});
const model = await llama.loadModel({ modelPath: gguf ?? '', gpuLayers: 0 });
const context = await model.createContext({ contextSize: promptTokens + newTokens, threads });
const sequence = context.getSequence();

/** Greedy: drawing tokens is not what is compared, and llama.cpp sorts the whole vocabulary to do it. */
async function run(tokens: number): Promise<number[]> {
  await sequence.clearHistory();
  const prompt = Array.from({ length: promptTokens }, (_, index) => 2 + index);
  const drawn: number[] = [];
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    drawn.push(token);
    if (drawn.length === tokens) break;
  }
  return drawn;
}

await run(8);
const speeds: number[] = [];
const end = performance.now() + 1000 * job.seconds;
while (speeds.length < job.rounds || performance.now() < end) {
  const start = performance.now();
  const drawn = await run(newTokens);
  speeds.push(drawn.length / ((performance.now() - start) / 1000));
}
const { user, system } = process.cpuUsage();
const { version } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')) as {
  version: string;
};
const report: WorkerReport = {
  rounds: { 'tokens/s': speeds },
  peakRssBytes: process.resourceUsage().maxRSS * 1024,
  cpuSeconds: (user + system) / 1e6,
  threads,
  versions: { 'node-llama-cpp': version },
  cpuCapability: '',
};
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
