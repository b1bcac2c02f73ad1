import type { Command } from 'commander';
import { BASE_HELP, withExample, withJson } from '../options.js';
import type { CommandContext } from '../program.js';

interface MergeOptions {
  readonly model: string;
  readonly out: string;
  readonly base?: string;
  readonly json?: boolean;
}

/** Adds `merge`. */
export function registerMerge(program: Command, { io }: CommandContext): void {
  const command = program
    .command('merge')
    .description('fold a LoRA adapter into its base model')
    .requiredOption('--model <adapter>', 'the adapter: a folder, or org/name[@revision] of the Hub')
    .requiredOption('--out <folder>', 'folder of the whole model; must not exist yet')
    .option('--base <model>', BASE_HELP);
  withExample(withJson(command), 'posttrain merge --model runs/sft/model --out ./merged');
  command.action(async ({ json, ...options }: MergeOptions) => {
    const { mergeAdapter } = await import('../../runs/index.js');
    const result = await mergeAdapter(options);
    const { layers, base, model, dtype } = result;
    const { isScalarModelFolder, isStepModelFolder } = await import('../../models/index.js');
    const scores = isScalarModelFolder(model) || isStepModelFolder(model);
    const next = scores
      ? `Measure it: posttrain eval --model ${model} --data held-out.jsonl`
      : `Try it: posttrain generate --model ${model} --prompt "…"`;
    io.out(
      json === true
        ? JSON.stringify(result)
        : `Merged the adapters of ${layers} layers into ${base}, in ${dtype}.\nModel: ${model}\n${next}`,
    );
  });
}
