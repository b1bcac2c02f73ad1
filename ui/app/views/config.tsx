/** The settings of several runs side by side. */
import { useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { ConfigComparison } from '../../../src/dashboard/protocol.js';
import { visibleText } from '../../../src/dashboard/view/format.js';
import { address } from '../api.js';
import { useAnswer } from '../hooks.js';
import { Empty, Fault, RunLink, Waiting } from '../parts.js';
import { shownRuns } from '../selection.js';
import { RunPicker } from './runPicker.js';

/** The view. */
export function ConfigView(): JSX.Element {
  const [all, setAll] = useState(false);
  const [search, setSearch] = useState('');
  const shown = shownRuns.value;
  const ids = shown.map(({ id }) => id).join(',');
  const { data, error } = useAnswer<ConfigComparison>(
    ids === '' ? null : address('compare', { runs: ids }),
  );
  const settings = (data?.settings ?? []).filter(
    ({ path, differs }) =>
      (all || differs || shown.length < 2) && path.toLowerCase().includes(search.toLowerCase()),
  );
  return (
    <div class="view wide">
      <div class="toolbar">
        <h1>Settings</h1>
        <RunPicker />
        <span class="grow" />
        <label class="search">
          <input
            type="text"
            placeholder="Name of a setting"
            aria-label="Search settings"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
        <label>
          <input
            type="checkbox"
            checked={all || shown.length < 2}
            disabled={shown.length < 2}
            onChange={(event) => setAll(event.currentTarget.checked)}
          />
          Equal ones too
        </label>
      </div>
      {error !== undefined && <Fault error={error} />}
      {data === undefined && error === undefined && ids !== '' && (
        <Waiting what="Comparing settings" />
      )}
      {data !== undefined && settings.length === 0 && (
        <Empty title={search === '' ? 'These runs have the same settings' : 'No such setting'} />
      )}
      {settings.length > 0 && (
        <div class="table-frame settings tall">
          <table>
            <thead>
              <tr>
                <th scope="col">Setting</th>
                {shown.map((run, index) => (
                  <th key={run.id} scope="col">
                    <RunLink run={run} index={index} />
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {settings.map(({ path, values, differs }) => (
                <tr key={path} class={differs && all ? 'differs' : undefined}>
                  <th scope="row">{visibleText(path)}</th>
                  {values.map((value, index) => (
                    <td key={data?.runs[index]?.id ?? index} class="mono">
                      {value === null ? <span class="quiet">not set</span> : visibleText(value)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
