/**
 * The model card: README.md of a repository on the Hub, with YAML before its text. Written after the Hub's "Model Cards"
 * and what TRL writes for its trainers, so that the Hub shows base model, data sets and license.
 */
import { stringify } from 'yaml';
import { isPinned, type RunFacts } from './runFacts.js';

/** The file of settings that lies beside the card of a run's model. */
export const SETTINGS_FILE = 'posttrain_settings.json';

/** What is uploaded. */
export type ModelKind = 'language model' | 'reward model' | 'process reward model' | 'adapter';

/** What a card is written from. */
export interface CardFacts {
  /** `org/name` of the repository. */
  readonly repo: string;
  readonly kind: ModelKind;
  /** `text-generation` and its like; undefined where config.json does not say. */
  readonly pipelineTag: string | undefined;
  /** The base model's, where it is known. */
  readonly license: string | undefined;
  /** Undefined for a model folder of no run. */
  readonly run: RunFacts | undefined;
  /** `org/name` of an adapter's base model; undefined for what is no adapter, or names none. */
  readonly adapterBase: string | undefined;
}

const METHODS: Readonly<Record<string, string>> = {
  sft: 'supervised fine-tuning',
  reward: 'training a reward model on preferences',
  prm: 'training a process reward model on steps',
  dpo: 'DPO',
  kto: 'KTO',
  orpo: 'ORPO',
  simpo: 'SimPO',
  cpo: 'CPO',
  'online-dpo': 'online DPO',
  ppo: 'PPO',
  grpo: 'GRPO or a method of its family',
  rejection: 'rejection sampling with fine-tuning',
  rlhf: 'RLHF in stages',
};

/** The text of README.md. */
export function modelCard(facts: CardFacts): string {
  const { repo, kind, run } = facts;
  const sections = [
    `# ${repo.split('/')[1] ?? repo}`,
    introduction(facts),
    usage(repo, kind),
    ...(run === undefined ? [] : runSections(run)),
  ];
  return `---\n${frontMatter(facts)}---\n\n${sections.join('\n\n')}\n`;
}

function frontMatter({ kind, pipelineTag, license, run, adapterBase }: CardFacts): string {
  const datasets = [
    ...new Set(run?.data.flatMap(({ files }) => files.flatMap(({ hubId }) => hubId ?? []))),
  ];
  // What a run started from may have been an adapter itself.
  const base = adapterBase ?? run?.base?.hubId;
  return stringify({
    library_name: kind === 'adapter' ? 'peft' : 'transformers',
    ...(pipelineTag !== undefined && { pipeline_tag: pipelineTag }),
    ...(base !== undefined && {
      base_model: base,
      base_model_relation: kind === 'adapter' ? 'adapter' : 'finetune',
    }),
    ...(datasets.length > 0 && { datasets }),
    ...(license !== undefined && { license }),
    tags: ['posttrain', ...(run === undefined ? [] : [run.method])],
  });
}

function introduction({ kind, run }: CardFacts): string {
  const what = `${kind === 'adapter' ? 'An' : 'A'} ${kind}`;
  if (run === undefined) return `${what} that posttrain can load.`;
  const { method, base, versions } = run;
  const from = base === undefined ? '' : ` from ${linked(base.hubId, base.name)}`;
  return `${what} made${from} by ${METHODS[method] ?? method} with posttrain ${versions.posttrain}.`;
}

function linked(hubId: string | undefined, name: string, folder = ''): string {
  return hubId === undefined
    ? `\`${name}\``
    : `[${hubId}](https://huggingface.co/${folder}${hubId})`;
}

function usage(repo: string, kind: ModelKind): string {
  const commands: Readonly<Record<ModelKind, string>> = {
    'language model': `npx posttrain generate --model ${repo} --prompt "…"`,
    adapter: `npx posttrain generate --model ${repo} --prompt "…"`,
    'reward model': `npx posttrain eval --model ${repo} --data preferences.jsonl`,
    'process reward model': `npx posttrain train grpo --reward prm:${repo} --model … --data … --out …`,
  };
  return ['## Use', fenced('sh', commands[kind])].join('\n\n');
}

function runSections(run: RunFacts): string[] {
  return [
    ...dataSection(run),
    ...resultSection(run),
    ...settingsSection(run),
    ...reproduction(run),
  ];
}

function dataSection({ data, rewards, environment }: RunFacts): string[] {
  const rows = data.map(({ role, files, rows: count, sha256 }) => [
    role,
    files.length === 0
      ? 'rows in memory'
      : files.map(({ hubId, name }) => linked(hubId, name, 'datasets/')).join(', '),
    String(count),
    `\`${sha256.slice(0, 16)}\``,
  ]);
  const sources = [
    ...(rewards.length > 0 ? [`Rewards: ${rewards.map((name) => `\`${name}\``).join(', ')}.`] : []),
    ...(environment === undefined ? [] : [`Environment: \`${environment}\`.`]),
  ];
  if (rows.length === 0 && sources.length === 0) return [];
  return [
    '## Data',
    ...(rows.length > 0 ? [table(['', 'source', 'rows', 'SHA-256 of the rows'], rows)] : []),
    ...sources,
  ];
}

function resultSection({ metrics, steps }: RunFacts): string[] {
  if (metrics.length === 0) return [];
  const isCut = steps !== undefined && steps.done < steps.total;
  const end = steps === undefined ? '' : ` Last is after ${steps.done} of ${steps.total} steps.`;
  return [
    '## Results',
    `From the run's metrics.jsonl; \`eval/\` is measured on held-out data.${end}${isCut ? ' The run was stopped before its end.' : ''}`,
    table(
      ['metric', 'first', 'last'],
      metrics.map(({ name, first, last }) => [`\`${name}\``, first, last]),
    ),
  ];
}

function settingsSection({ settings, changed }: RunFacts): string[] {
  if (changed.length === 0) return ['## Settings', 'The defaults of the method.'];
  return [
    '## Settings',
    `Those that are not the defaults; all are in [${SETTINGS_FILE}](${SETTINGS_FILE}).`,
    table(
      ['setting', 'value'],
      changed.map((name) => [`\`${name}\``, `\`${JSON.stringify(settings[name])}\``]),
    ),
  ];
}

function reproduction(run: RunFacts): string[] {
  const { method, versions, seed, commit } = run;
  const inputs = [run.base, ...run.data.flatMap(({ files }) => files)].filter(
    (input) => input !== undefined,
  );
  const isWhole = inputs.every(isPinned) && run.data.every(({ files }) => files.length > 0);
  return [
    '## Reproduction',
    fenced('sh', commandOf(run)),
    [
      ...(isWhole
        ? []
        : [
            'What is not of the Hub is named without its folders; the data is known by its SHA-256.',
          ]),
      `Seed ${seed}, method \`${method}\`; posttrain ${versions.posttrain}, libtorch ${versions.libtorch}, Node ${versions.node}, ${versions.platform}${commit === null ? '' : `, commit \`${commit}\` of the folder that it was run in`}.`,
    ].join(' '),
  ];
}

/** The options of `train` by the names of inputs in config.json. */
const DATA_OPTIONS: Readonly<Record<string, string>> = {
  data: '--data',
  evalData: '--eval-data',
  referenceData: '--reference-data',
  demonstrations: '--demonstrations',
  prompts: '--prompts',
  preferences: '--preferences',
  evalPrompts: '--eval-prompts',
};

function commandOf({ method, base, data, rewards, environment }: RunFacts): string {
  const parts = [
    `npx posttrain train ${method}`,
    ...(base === undefined ? [] : [`--model ${shellWord(base.name)}`]),
    ...data.flatMap(({ role, files }) =>
      files.map(({ name }) => `${DATA_OPTIONS[role] ?? `--${role}`} ${shellWord(name)}`),
    ),
    ...rewards.map((spec) => `--reward ${shellWord(spec)}`),
    ...(environment === undefined ? [] : [`--environment ${shellWord(environment)}`]),
    `--config ${SETTINGS_FILE}`,
    `--out runs/${method}`,
  ];
  return parts.join(' \\\n  ');
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function fenced(language: string, text: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\``;
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n');
}
