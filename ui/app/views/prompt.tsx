/** The same prompt through the steps: how its completions and their rewards change. */
import type { JSX } from 'preact';
import type { PromptHistory } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import { address, growthOf, runs } from '../api.js';
import { Chart } from '../charts/chart.js';
import { useAnswer, useThrottled } from '../hooks.js';
import { Fault, Waiting } from '../parts.js';
import { href, place } from '../route.js';
import { oneLine, Reward, rewardTitle } from './samples.js';

/** The view. */
export function PromptView(): JSX.Element {
  const [, id = '', promptId = ''] = place.value.path;
  const path = ['runs', id, 'prompts', promptId].map(encodeURIComponent).join('/');
  const growth = useThrottled(growthOf(id, 'samples'), 5000);
  const { data, error } = useAnswer<PromptHistory>(address(path), growth);
  if (error !== undefined)
    return (
      <div class="view">
        <Fault error={error} />
      </div>
    );
  if (data === undefined) return <Waiting what="Reading the prompt’s history" />;
  const curve = {
    x: data.steps.map(({ step }) => step),
    y: data.steps.map(({ rewardMean }) => rewardMean),
  };
  return (
    <div class="view">
      <div class="toolbar">
        <h1>Prompt through the steps</h1>
        <a href={href(['samples'], { run: id, promptId })}>{runs.value.get(id)?.name ?? id}</a>
      </div>
      <section class="card">
        <div class="text">{visibleText(data.prompt)}</div>
      </section>
      {data.steps.length > 1 && (
        <section class="card">
          <h2>Mean reward</h2>
          <Chart
            label="Mean reward of this prompt"
            curves={[{ name: 'mean reward', index: 0, curve }]}
            axis="step"
            log={false}
            smoothing={0}
            marks={[]}
            zoom={null}
            onZoom={() => undefined}
            height={170}
          />
        </section>
      )}
      <ol class="history">
        {data.steps.map(({ step, rewardMean, samples }) => (
          <li key={step} class="card">
            <header>
              <h2 class="num">Step {step}</h2>
              <span class="quiet num">mean reward {formatNumber(rewardMean, 3)}</span>
              <span class="grow" />
              {samples[0] !== undefined && (
                <a href={href(['group', id, step, samples[0].promptIndex])}>Group</a>
              )}
            </header>
            <ul class="plain">
              {samples.map((sample) => (
                <li key={sample.index}>
                  <a class="history-line" href={href(['sample', id, sample.index])}>
                    <Reward value={sample.reward} title={rewardTitle(sample)} />
                    <span class="sample-completion" dir="auto">
                      {oneLine(sample.completionExcerpt)}
                    </span>
                  </a>
                </li>
              ))}
            </ul>
          </li>
        ))}
      </ol>
    </div>
  );
}
