/** The runs that are looked at, with their colours; more are added and taken away here. */
import type { JSX } from 'preact';
import { runs } from '../api.js';
import { Icon } from '../icons.js';
import { RunLink } from '../parts.js';
import { choose, shownRuns } from '../selection.js';

/** Chips of the chosen runs, and a list to add another. */
export function RunPicker(): JSX.Element {
  const shown = shownRuns.value;
  const ids = shown.map(({ id }) => id);
  const others = [...runs.value.values()].filter(({ id }) => !ids.includes(id));
  return (
    <div class="picker" role="group" aria-label="Runs that are shown">
      {shown.map((run, index) => (
        <span key={run.id} class="chip">
          <RunLink run={run} index={index} />
          {shown.length > 1 && (
            <button
              type="button"
              aria-label={`Take ${run.name} away`}
              onClick={() => choose(ids.filter((id) => id !== run.id))}
            >
              <Icon name="cross" />
            </button>
          )}
        </span>
      ))}
      {others.length > 0 && (
        <select
          aria-label="Add a run"
          value=""
          onChange={(event) => {
            if (event.currentTarget.value !== '') choose([...ids, event.currentTarget.value]);
            event.currentTarget.value = '';
          }}
        >
          <option value="">+ run</option>
          {others.map(({ id, name, method }) => (
            <option key={id} value={id}>
              {name} ({method})
            </option>
          ))}
        </select>
      )}
    </div>
  );
}
