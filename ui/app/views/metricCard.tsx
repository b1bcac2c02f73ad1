/** One metric: what it means, how a healthy run goes, its curves, what was noticed, files to take away. */
import { useEffect, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type {
  HealthyDirection,
  Mark,
  MetricInfo,
  RunSummary,
} from '../../../src/dashboard/protocol.js';
import { chartSvg } from '../../../src/dashboard/view/chartSvg.js';
import { smooth } from '../../../src/dashboard/view/curves.js';
import { address } from '../api.js';
import { Chart, type ChartMark, type RunCurve } from '../charts/chart.js';
import { download, fileName } from '../download.js';
import { Icon, type IconName } from '../icons.js';
import { MarkList } from '../parts.js';
import { shownRuns } from '../selection.js';
import { cssColor, runColour, runDash } from '../theme.js';
import type { ChartView } from './metrics.js';

const DIRECTIONS: Readonly<Record<HealthyDirection, { icon: IconName; text: string } | undefined>> =
  {
    up: { icon: 'up', text: 'should rise' },
    down: { icon: 'down', text: 'should fall' },
    steady: { icon: 'steady', text: 'should stay' },
    none: undefined,
  };

const AXIS_LABELS = { step: 'step', seconds: 'seconds in steps', tokens: 'tokens' } as const;

interface CardProps {
  readonly info: MetricInfo;
  readonly curves: readonly RunCurve[];
  readonly marks: readonly {
    readonly mark: Mark;
    readonly run: RunSummary;
    readonly drawn: ChartMark | undefined;
  }[];
  readonly view: ChartView;
}

/** The card. Its chart is made once it comes near the screen. */
export function MetricCard({ info, curves, marks, view }: CardProps): JSX.Element {
  const [large, setLarge] = useState(false);
  const [near, setNear] = useState(false);
  const card = useRef<HTMLElement>(null);
  const canvas = useRef<HTMLCanvasElement | null>(null);
  useEffect(() => {
    if (card.current === null) return undefined;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some(({ isIntersecting }) => isIntersecting)) setNear(true);
      },
      { rootMargin: '400px' },
    );
    observer.observe(card.current);
    return () => observer.disconnect();
  }, []);
  const direction = DIRECTIONS[info.direction];
  const height = large ? 420 : 190;
  const drawn = marks.flatMap(({ drawn: mark }) => mark ?? []);
  return (
    <article ref={card} class={`card metric ${large ? 'large' : ''}`} data-metric={info.key}>
      <header>
        <h3>
          {info.label}
          {info.unit !== null && <span class="quiet"> {info.unit}</span>}
        </h3>
        {direction !== undefined && (
          <span class="direction" title={info.healthy}>
            <Icon name={direction.icon} />
            {direction.text}
          </span>
        )}
        <span class="grow" />
        <ExportMenu info={info} curves={curves} view={view} canvas={canvas} />
        <button
          type="button"
          class="icon-button"
          aria-pressed={large}
          aria-label={`${large ? 'Shrink' : 'Enlarge'} ${info.label}`}
          onClick={() => setLarge(!large)}
        >
          <Icon name="expand" />
        </button>
      </header>
      {info.explanation !== '' && (
        <p class="explanation" title={`${info.explanation}\nHealthy: ${info.healthy}`}>
          {info.explanation}
          {large && info.healthy !== '' && ` Healthy: ${info.healthy}.`}
        </p>
      )}
      {curves.length === 0 ? (
        <p class="quiet chart-empty">No values over this axis.</p>
      ) : near ? (
        <Chart
          label={info.label}
          curves={curves}
          marks={drawn}
          axis={view.axis}
          log={view.log}
          smoothing={view.smoothing}
          zoom={view.zoom}
          onZoom={view.onZoom}
          height={height}
          onCanvas={(element) => {
            canvas.current = element;
          }}
        />
      ) : (
        <div style={{ height: `${height}px` }} />
      )}
      <MarkList
        folded
        marks={marks.map(({ mark, run }) => ({ ...mark, title: titled(mark, run) }))}
      />
      {info.notFinite > 0 && (
        <p class="quiet">
          {info.notFinite} of {info.count} values are not finite and are left out.
        </p>
      )}
    </article>
  );
}

function titled(mark: Mark, run: RunSummary): string {
  return shownRuns.value.length > 1 ? `${mark.title} (${run.name})` : mark.title;
}

function ExportMenu({
  info,
  curves,
  view,
  canvas,
}: {
  info: MetricInfo;
  curves: readonly RunCurve[];
  view: ChartView;
  canvas: { readonly current: HTMLCanvasElement | null };
}): JSX.Element {
  const menu = useRef<HTMLDetailsElement>(null);
  const done = (): void => {
    if (menu.current !== null) menu.current.open = false;
  };
  const saveSvg = (): void => {
    const svg = svgOf(info, curves, view);
    download(`${info.key}.svg`, new Blob([svg], { type: 'image/svg+xml' }));
    done();
  };
  const savePng = (): void => {
    const source = canvas.current;
    if (source === null) return;
    pictureOf(source, info.label).toBlob((blob) => {
      if (blob !== null) download(`${info.key}.png`, blob);
    });
    done();
  };
  return (
    <details ref={menu} class="menu" onKeyDown={(event) => event.key === 'Escape' && done()}>
      <summary class="icon-button" aria-label={`Save ${info.label}`} title="Save">
        <Icon name="download" />
      </summary>
      <div class="menu-items">
        <button type="button" onClick={saveSvg}>
          Chart as SVG
        </button>
        <button type="button" onClick={savePng}>
          Chart as PNG
        </button>
        {shownRuns.value.map(({ id, name }) => (
          <a
            key={id}
            href={address(`runs/${encodeURIComponent(id)}/export/metrics.csv`, {
              keys: encodeURIComponent(info.key),
            })}
            download={fileName(`${name}-${info.key}.csv`)}
            onClick={done}
          >
            Values as CSV ({name})
          </a>
        ))}
      </div>
    </details>
  );
}

function svgOf(info: MetricInfo, curves: readonly RunCurve[], view: ChartView): string {
  return chartSvg({
    title: info.unit === null ? info.label : `${info.label}, ${info.unit}`,
    xLabel: AXIS_LABELS[view.axis],
    log: view.log,
    range: view.zoom ?? undefined,
    width: 720,
    height: 360,
    colours: {
      text: cssColor('--text'),
      grid: cssColor('--grid'),
      background: cssColor('--surface'),
    },
    curves: curves.map(({ name, index, curve }) => ({
      name,
      colour: cssColor(runColour(index)),
      dash: runDash(index),
      x: curve.x,
      y: smooth(curve.y, view.smoothing),
    })),
  });
}

/** The canvas on the background of the page, with its name above. */
function pictureOf(source: HTMLCanvasElement, title: string): HTMLCanvasElement {
  const scale = devicePixelRatio;
  const above = Math.round(28 * scale);
  const picture = document.createElement('canvas');
  picture.width = source.width;
  picture.height = source.height + above;
  const context = picture.getContext('2d');
  if (context === null) return source;
  context.fillStyle = cssColor('--surface');
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = cssColor('--text');
  context.font = `600 ${14 * scale}px system-ui, sans-serif`;
  context.fillText(title, 10 * scale, 19 * scale);
  context.drawImage(source, 0, above);
  return picture;
}
