/** The frame around every view: where one can go, whether the server is there, the theme. */
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useErrorBoundary, useRef } from 'preact/hooks';
import { connection, runs } from './api.js';
import { Icon, type IconName } from './icons.js';
import { href, place } from './route.js';
import { chosenRuns, focusedRun } from './selection.js';
import { nextTheme, theme } from './theme.js';
import { ConfigView } from './views/config.js';
import { InspectorView } from './views/inspector.js';
import { GroupView } from './views/group.js';
import { LabView } from './views/lab.js';
import { MetricsView } from './views/metrics.js';
import { PromptView } from './views/prompt.js';
import { RunView } from './views/run.js';
import { RunsView } from './views/runs.js';
import { SamplesView } from './views/samples.js';

const TABS: readonly { readonly name: string; readonly title: string; readonly icon: IconName }[] =
  [
    { name: 'runs', title: 'Runs', icon: 'list' },
    { name: 'metrics', title: 'Metrics', icon: 'chart' },
    { name: 'samples', title: 'Samples', icon: 'text' },
    { name: 'config', title: 'Settings', icon: 'sliders' },
    { name: 'lab', title: 'Lab', icon: 'flask' },
  ];

/** Views that belong to a tab without being it. */
const TAB_OF: Readonly<Record<string, string>> = {
  run: 'runs',
  sample: 'samples',
  group: 'samples',
  prompt: 'samples',
};

/** The whole page. */
export function Page(): JSX.Element {
  const view = place.value.path[0] ?? 'runs';
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    const tab = TABS.find(({ name }) => name === (TAB_OF[view] ?? view));
    document.title = `${tab?.title ?? 'Runs'} · posttrain`;
    main.current?.scrollTo(0, 0);
  }, [view]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to content
      </a>
      <Header view={view} />
      <main id="main" ref={main} tabIndex={-1}>
        <Guard key={place.value.path.join('/')}>
          <View view={view} />
        </Guard>
      </main>
    </>
  );
}

function View({ view }: { view: string }): JSX.Element {
  switch (view) {
    case 'runs':
      return <RunsView />;
    case 'run':
      return <RunView />;
    case 'metrics':
      return <MetricsView />;
    case 'samples':
      return <SamplesView />;
    case 'sample':
      return <InspectorView />;
    case 'group':
      return <GroupView />;
    case 'prompt':
      return <PromptView />;
    case 'config':
      return <ConfigView />;
    case 'lab':
      return <LabView />;
    default:
      return (
        <div class="empty">
          <h1>There is nothing at this address</h1>
          <p>
            <a href={href(['runs'])}>All runs</a>
          </p>
        </div>
      );
  }
}

/** A fault in one view leaves the others usable. */
function Guard({ children }: { children: ComponentChildren }): JSX.Element {
  const boundary: [unknown, () => void] = useErrorBoundary();
  const [error, reset] = boundary;
  if (error === undefined || error === null) return <>{children}</>;
  return (
    <div class="empty" role="alert">
      <h1>This view failed</h1>
      <p class="mono">{error instanceof Error ? error.message : String(error)}</p>
      <button type="button" class="button" onClick={() => reset()}>
        Try again
      </button>
    </div>
  );
}

function Header({ view }: { view: string }): JSX.Element {
  const active = TAB_OF[view] ?? view;
  const chosen = chosenRuns.value.join(',') || undefined;
  const focused = focusedRun.value?.id;
  const running = [...runs.value.values()].filter(({ state }) => state === 'running').length;
  return (
    <header class="top">
      <a class="brand" href={href(['runs'])}>
        <Icon name="logo" />
        <span>posttrain</span>
      </a>
      <nav aria-label="Views">
        {TABS.map(({ name, title, icon }) => (
          <a
            key={name}
            class="tab"
            href={href(
              [name],
              ['samples', 'lab'].includes(name)
                ? { run: focused }
                : name === 'runs'
                  ? {}
                  : { runs: chosen },
            )}
            aria-current={active === name ? 'page' : undefined}
          >
            <Icon name={icon} />
            <span>{title}</span>
          </a>
        ))}
      </nav>
      <div class="top-end">
        <span class={`connection ${connection.value}`} role="status">
          <span class="dot" aria-hidden="true" />
          {connection.value === 'live'
            ? running > 0
              ? `live · ${running} running`
              : 'live'
            : connection.value === 'lost'
              ? 'no connection'
              : 'connecting'}
        </span>
        <button
          type="button"
          class="icon-button"
          onClick={nextTheme}
          title={`Theme: ${theme.value}`}
          aria-label={`Theme: ${theme.value}. Change it.`}
        >
          <Icon
            name={theme.value === 'dark' ? 'moon' : theme.value === 'light' ? 'sun' : 'contrast'}
          />
        </button>
      </div>
    </header>
  );
}
