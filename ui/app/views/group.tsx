/** All completions of one prompt in one step, side by side: what the advantages compare. */
import type { JSX } from 'preact';
import type { SampleGroup } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import { address, runs } from '../api.js';
import { useAnswer } from '../hooks.js';
import { Fact, Fault, Waiting } from '../parts.js';
import { href, place } from '../route.js';
import { Reward, rewardTitle } from './samples.js';

/** The view. */
export function GroupView(): JSX.Element {
  const [, id = '', step = '', promptIndex = ''] = place.value.path;
  const path = ['runs', id, 'groups', step, promptIndex].map(encodeURIComponent).join('/');
  const { data, error } = useAnswer<SampleGroup>(address(path));
  if (error !== undefined)
    return (
      <div class="view">
        <Fault error={error} />
      </div>
    );
  if (data === undefined) return <Waiting what="Reading the group" />;
  const largest = Math.max(1e-9, ...data.samples.map(({ advantage }) => Math.abs(advantage ?? 0)));
  return (
    <div class="view">
      <div class="toolbar">
        <h1>Group</h1>
        <a href={href(['samples'], { run: id })}>{runs.value.get(id)?.name ?? id}</a>
        <span class="quiet">step {data.step}</span>
        <span class="grow" />
        <a class="button" href={href(['prompt', id, data.promptId])}>
          This prompt through the steps
        </a>
      </div>
      <section class="card">
        <h2>Prompt</h2>
        <div class="text">{visibleText(data.prompt)}</div>
      </section>
      <dl class="card facts">
        <Fact name="Completions">{data.samples.length}</Fact>
        <Fact name="Mean reward">
          <span class="num">{formatNumber(data.rewardMean)}</span>
        </Fact>
        <Fact name="Standard deviation">
          <span class="num">{formatNumber(data.rewardStd)}</span>
        </Fact>
      </dl>
      {data.rewardStd === 0 && (
        <p class="card quiet">
          All rewards are equal: this group has no advantages, and teaches the policy nothing.
        </p>
      )}
      <ol class="group">
        {data.samples.map((sample) => (
          <li key={sample.index} class="card">
            <header>
              <Reward value={sample.reward} title={rewardTitle(sample)} />
              <Advantage value={sample.advantage} largest={largest} />
              <span class="grow" />
              <span class="quiet num">
                {sample.length} tokens
                {sample.finishReason !== null && ` · ${sample.finishReason}`}
              </span>
            </header>
            <div class="text">{visibleText(sample.completion)}</div>
            <footer>
              {Object.keys(sample.rewards).length > 1 && (
                <span class="quiet">{rewardTitle(sample).replaceAll('\n', ' · ')}</span>
              )}
              <a href={href(['sample', id, sample.index])}>Tokens</a>
            </footer>
          </li>
        ))}
      </ol>
    </div>
  );
}

/** A signed bar from the middle, with its number. */
function Advantage({ value, largest }: { value: number | null; largest: number }): JSX.Element {
  const share = (Math.abs(value ?? 0) / largest) * 50;
  const left = (value ?? 0) < 0 ? 50 - share : 50;
  return (
    <span class="advantage" title="Advantage">
      <span class="advantage-bar" aria-hidden="true">
        <span
          class={(value ?? 0) < 0 ? 'below' : 'above'}
          style={{ left: `${left}%`, width: `${share}%` }}
        />
      </span>
      <span class="num">Â {formatNumber(value, 3)}</span>
    </span>
  );
}
