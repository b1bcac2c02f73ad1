/** What samples can be filtered by. */
import type { JSX } from 'preact';
import type { SampleFacets } from '../../../src/dashboard/protocol.js';
import { formatNumber } from '../../../src/dashboard/view/format.js';
import { oneLine } from './samples.js';

interface FilterProps {
  readonly facets: SampleFacets | undefined;
  readonly values: Readonly<Record<string, string>>;
  readonly set: (changes: Record<string, string | undefined>) => void;
}

/** The filters, with the ranges that the run has. */
export function SampleFilters({ facets, values, set }: FilterProps): JSX.Element {
  const range = (low: number | undefined, high: number | undefined): string =>
    low === undefined || high === undefined
      ? ''
      : ` (${formatNumber(low, 3)} to ${formatNumber(high, 3)})`;
  return (
    <aside class="card filters" aria-label="Filters">
      <Range
        title={`Step${range(facets?.step?.min, facets?.step?.max)}`}
        names={['stepFrom', 'stepTo']}
        values={values}
        set={set}
      />
      {(facets?.rewardNames.length ?? 0) > 0 && (
        <label class="field">
          Reward function
          <select
            value={values['rewardName'] ?? ''}
            onChange={(event) => set({ rewardName: event.currentTarget.value })}
          >
            <option value="">all, weighted</option>
            {facets?.rewardNames.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <Range
        title={`Reward${values['rewardName'] === undefined ? range(facets?.reward?.min, facets?.reward?.max) : ''}`}
        names={['rewardMin', 'rewardMax']}
        values={values}
        set={set}
      />
      <Range
        title={`Tokens${range(facets?.length?.min, facets?.length?.max)}`}
        names={['lengthMin', 'lengthMax']}
        values={values}
        set={set}
      />
      <label class="field">
        Ended by
        <select
          value={values['finishReason'] ?? ''}
          onChange={(event) => set({ finishReason: event.currentTarget.value })}
        >
          <option value="">anything</option>
          {facets?.finishReasons.map(({ name, count }) => (
            <option key={name} value={name}>
              {name} ({count.toLocaleString('en-US')})
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        Prompt
        <select
          value={values['promptId'] ?? ''}
          onChange={(event) => set({ promptId: event.currentTarget.value })}
        >
          <option value="">any</option>
          {facets?.prompts.map(({ promptId, excerpt, steps: count }) => (
            <option key={promptId} value={promptId}>
              {oneLine(excerpt).slice(0, 60)} ({count} {count === 1 ? 'step' : 'steps'})
            </option>
          ))}
        </select>
      </label>
    </aside>
  );
}

function Range({
  title,
  names: [low, high],
  values,
  set,
}: {
  title: string;
  names: readonly [string, string];
  values: FilterProps['values'];
  set: FilterProps['set'];
}): JSX.Element {
  const input = (name: string, placeholder: string): JSX.Element => (
    <input
      type="number"
      step="any"
      placeholder={placeholder}
      aria-label={`${title}, ${placeholder}`}
      value={values[name] ?? ''}
      onInput={(event) => set({ [name]: event.currentTarget.value })}
    />
  );
  return (
    <fieldset class="field">
      <legend>{title}</legend>
      {input(low, 'from')}
      {input(high, 'to')}
    </fieldset>
  );
}
