/** What the lab is asked: models, prompt, how tokens are drawn. */
import type { JSX } from 'preact';
import { LAB_LIMITS, type LabModel } from '../../../src/dashboard/labProtocol.js';
import { runs } from '../api.js';
import { Icon } from '../icons.js';
import { canWrite } from '../../../src/dashboard/view/labChoice.js';
import type { LabSide } from './labResults.js';

/** What a question has beside its model. Missing numbers are those that the model recommends. */
export interface LabSettings {
  readonly prompt: string;
  readonly chat: boolean;
  readonly temperature?: number | undefined;
  readonly topP?: number | undefined;
  readonly topK?: number | undefined;
  readonly maxNewTokens?: number | undefined;
  readonly seed: number;
  readonly alternatives: number;
}

/** Where nothing was set. */
export const START: LabSettings = {
  ...{ prompt: '', chat: false, seed: 0, alternatives: 8 },
};

/** A number of the form, with the bounds of the server. */
interface Field {
  readonly name: 'temperature' | 'topP' | 'topK' | 'maxNewTokens' | 'seed';
  readonly label: string;
  readonly min: number;
  readonly max?: number;
  readonly step: number | 'any';
  readonly title: string;
}

const FIELDS: readonly Field[] = [
  {
    ...{ name: 'temperature', label: 'Temperature', min: 0, max: 1000, step: 'any' },
    title: '0 takes the most likely token. Empty: as the model recommends, else 1.',
  },
  {
    ...{ name: 'topP', label: 'Top p', min: 0.001, max: 1, step: 'any' },
    title: 'Only the most likely tokens that make up p. Empty: as the model recommends, else all.',
  },
  {
    ...{ name: 'topK', label: 'Top k', min: 0, step: 1 },
    title: 'Only the k most likely tokens. Empty: as the model recommends, else all.',
  },
  {
    ...{
      name: 'maxNewTokens',
      label: 'Most new tokens',
      min: 1,
      max: LAB_LIMITS.newTokens,
      step: 1,
    },
    title: 'Empty: what fits, at most 256.',
  },
  { name: 'seed', label: 'Seed', min: 0, step: 1, title: 'The same one gives the same text.' },
];

/** The form. */
export function LabForm({
  models,
  run,
  chosen,
  settings,
  isRunning,
  onChoose,
  onChange,
  onRun,
  onStop,
}: {
  models: readonly LabModel[];
  run: string | undefined;
  chosen: Readonly<Record<LabSide, LabModel | undefined>>;
  settings: LabSettings;
  isRunning: boolean;
  onChoose: (side: LabSide, id: string) => void;
  onChange: (changed: Partial<LabSettings>) => void;
  onRun: () => void;
  onStop: () => void;
}): JSX.Element {
  const refused = models.filter((model) => model.run === run && model.refusal !== null);
  return (
    <form
      class="card lab-form"
      aria-label="What to complete"
      onSubmit={(event) => {
        event.preventDefault();
        onRun();
      }}
    >
      <div class="lab-models">
        <ModelSelect
          side="a"
          label="Model A"
          models={models}
          chosen={chosen.a}
          onChoose={onChoose}
        />
        <ModelSelect
          side="b"
          label="Model B, beside it"
          models={models}
          chosen={chosen.b}
          onChoose={onChoose}
        />
      </div>
      {refused.map(({ id, label, refusal }) => (
        <p key={`${id} ${label}`} class="lab-note">
          <Icon name="warning" /> {label}: {refusal}
        </p>
      ))}
      <label class="lab-field">
        Prompt
        <textarea
          dir="auto"
          value={settings.prompt}
          maxLength={LAB_LIMITS.promptCharacters}
          spellcheck={false}
          onInput={(event) => onChange({ prompt: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
            event.preventDefault();
            onRun();
          }}
        />
      </label>
      <div class="lab-numbers">
        {FIELDS.map(({ name, label, ...rest }) => (
          <label key={name} class="lab-field" title={rest.title}>
            {label}
            <input
              type="number"
              {...rest}
              placeholder="default"
              value={settings[name] ?? ''}
              required={name === 'seed'}
              onInput={(event) => {
                const { value } = event.currentTarget;
                onChange({ [name]: value === '' && name !== 'seed' ? undefined : Number(value) });
              }}
            />
          </label>
        ))}
      </div>
      <div class="toolbar">
        <label>
          <input
            type="checkbox"
            checked={settings.chat}
            onChange={(event) => onChange({ chat: event.currentTarget.checked })}
          />
          As a chat message, by the chat template
        </label>
        <span class="grow" />
        {isRunning && (
          <button type="button" class="button" onClick={onStop}>
            <Icon name="cross" /> Stop
          </button>
        )}
        <button
          type="submit"
          class="button primary"
          disabled={chosen.a === undefined || settings.prompt === ''}
          title="Ctrl and Enter in the prompt"
        >
          <Icon name="play" /> Complete
        </button>
      </div>
    </form>
  );
}

/** A model, by the run that it belongs to. Those that cannot be asked are shown and cannot be chosen. */
function ModelSelect({
  side,
  label,
  models,
  chosen,
  onChoose,
}: {
  side: LabSide;
  label: string;
  models: readonly LabModel[];
  chosen: LabModel | undefined;
  onChoose: (side: LabSide, id: string) => void;
}): JSX.Element {
  const groups = [...new Set(models.map((model) => model.run))];
  return (
    <label class="lab-field">
      {label}
      <select
        aria-label={label}
        value={chosen === undefined ? '' : valueOf(chosen)}
        onChange={(event) => onChoose(side, event.currentTarget.value.split(' ')[0] ?? '')}
      >
        {(side === 'b' || chosen === undefined) && <option value="">none</option>}
        {groups.map((run) => (
          <optgroup key={run} label={run === null ? 'given by --model' : nameOf(run)}>
            {models
              .filter((model) => model.run === run)
              .map((model) => (
                <option
                  key={valueOf(model)}
                  value={valueOf(model)}
                  disabled={!canWrite(model)}
                  title={model.refusal ?? undefined}
                >
                  {modelName(model)}
                  {model.task === 'text' ? '' : ' (scores, writes nothing)'}
                  {model.refusal === null ? '' : ' (not opened)'}
                </option>
              ))}
          </optgroup>
        ))}
      </select>
    </label>
  );
}

/** The same model may stand in several runs, and then has one id. */
function valueOf({ id, run, label }: LabModel): string {
  return `${id} ${run} ${label}`;
}

function nameOf(run: string): string {
  return runs.value.get(run)?.name ?? run;
}

/** `sums/grpo, step 20` */
export function modelName({ run, label }: LabModel): string {
  return run === null ? label : `${nameOf(run)}, ${label}`;
}
