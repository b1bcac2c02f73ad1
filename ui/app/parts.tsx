/** Small pieces that several views share. */
import type { ComponentChildren, JSX } from 'preact';
import type { DashboardState, Mark, RunSummary } from '../../src/dashboard/protocol.js';
import type { ServerError } from './api.js';
import { Icon, type IconName } from './icons.js';
import { href } from './route.js';
import { dashIndex, runColour } from './theme.js';

const STATES: Readonly<Record<DashboardState, { icon: IconName; title: string }>> = {
  starting: { icon: 'clock', title: 'No step is done yet' },
  running: { icon: 'play', title: 'Its process is at work' },
  finished: { icon: 'check', title: 'All steps are done' },
  stopped: { icon: 'pause', title: 'Stopped on request; --resume goes on' },
  failed: { icon: 'cross', title: 'Ended with an error' },
  diverged: { icon: 'warning', title: 'Ended because a number was not finite' },
  lost: { icon: 'question', title: 'Says that it is running, but its process is gone' },
};

/** The state of a run, by sign, word and colour. */
export function StateBadge({ run }: { run: RunSummary }): JSX.Element {
  const { icon, title } = STATES[run.state];
  return (
    <span class={`state ${run.state}`} title={run.message ?? title}>
      <Icon name={icon} />
      {run.state}
    </span>
  );
}

/** How far a run is. */
export function Progress({ run }: { run: RunSummary }): JSX.Element {
  const { step, totalSteps } = run;
  if (totalSteps === null || totalSteps === 0) return <span class="num">{step}</span>;
  const share = Math.min(1, step / totalSteps);
  return (
    <span class="progress">
      <span
        class="bar"
        role="progressbar"
        aria-label="Steps done"
        aria-valuenow={step}
        aria-valuemin={0}
        aria-valuemax={totalSteps}
      >
        <span style={{ width: `${share * 100}%` }} />
      </span>
      <span class="num">
        {step.toLocaleString('en-US')}
        <span class="quiet"> / {totalSteps.toLocaleString('en-US')}</span>
      </span>
    </span>
  );
}

/** The colour of a chosen run. */
export function Swatch({ index }: { index: number }): JSX.Element {
  return (
    <svg class="swatch" viewBox="0 0 20 10" aria-hidden="true">
      <line
        x1="0"
        x2="20"
        y1="5"
        y2="5"
        style={{ stroke: `var(${runColour(index)})` }}
        stroke-dasharray={['none', '6 2.5', '2 2.5', '7 2 2 2'][dashIndex(index)]}
      />
    </svg>
  );
}

/** Warnings of a run in short: how many, and the worst. */
export function MarkCount({ marks }: { marks: readonly Mark[] }): JSX.Element | null {
  const [worst] = marks;
  if (worst === undefined) return null;
  return (
    <span class={`mark-count ${worst.severity}`} title={marks.map(({ title }) => title).join('\n')}>
      <Icon name="warning" />
      {worst.title}
      {marks.length > 1 && <span class="quiet"> +{marks.length - 1}</span>}
    </span>
  );
}

/** What was seen of known failures, why it matters, what to try. `folded` shows their names until one is opened. */
export function MarkList({
  marks,
  folded = false,
}: {
  marks: readonly Mark[];
  folded?: boolean;
}): JSX.Element | null {
  if (marks.length === 0) return null;
  return (
    <ul class="marks">
      {marks.map((mark) => (
        <li key={`${mark.title} ${mark.fromStep}`} class={mark.severity}>
          <Icon name="warning" />
          <details open={!folded}>
            <summary>
              <strong>{mark.title}</strong>{' '}
              <span class="quiet">
                {mark.fromStep === mark.toStep
                  ? `step ${mark.fromStep}`
                  : `steps ${mark.fromStep} to ${mark.toStep}`}
              </span>
            </summary>
            <p>{mark.finding}</p>
            <p class="quiet">{mark.advice}</p>
          </details>
        </li>
      ))}
    </ul>
  );
}

/** What went wrong, and what to do. */
export function Fault({ error }: { error: ServerError }): JSX.Element {
  return (
    <div class="fault" role="alert">
      <Icon name="warning" />
      <div>
        <strong>{error.message}</strong>
        {error.hint !== undefined && <p>{error.hint}</p>}
        <p class="quiet">{error.code}</p>
      </div>
    </div>
  );
}

/** Something is on its way. */
export function Waiting({ what }: { what: string }): JSX.Element {
  return (
    <p class="waiting" role="status">
      <span class="spinner" aria-hidden="true" />
      {what}
    </p>
  );
}

/** There is nothing, and why. */
export function Empty({
  title,
  children,
}: {
  title: string;
  children?: ComponentChildren;
}): JSX.Element {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** A name and its value, of a list of facts. */
export function Fact({
  name,
  children,
}: {
  name: string;
  children: ComponentChildren;
}): JSX.Element {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** A link to a run, with its colour where it is a chosen one. */
export function RunLink({ run, index }: { run: RunSummary; index?: number }): JSX.Element {
  return (
    <a class="run-link" href={href(['run', run.id])}>
      {index !== undefined && <Swatch index={index} />}
      {run.name}
    </a>
  );
}
