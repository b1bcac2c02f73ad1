/** The model lab: a prompt, one model or two side by side, every token with its alternatives, and scores. */
import { signal } from '@preact/signals';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type {
  LabCompletion,
  LabLine,
  LabModel,
  LabModels,
} from '../../../src/dashboard/labProtocol.js';
import type { SampleDetail } from '../../../src/dashboard/protocol.js';
import { address, askLines, growthOf, runs, ServerError } from '../api.js';
import { asServerError, useAnswer, useThrottled } from '../hooks.js';
import { Empty, Fault, Waiting } from '../parts.js';
import { go, href, place, withQuery } from '../route.js';
import { focusedRun } from '../selection.js';
import { LabForm, START, type LabSettings } from './labForm.js';
import { chosenModels } from '../../../src/dashboard/view/labChoice.js';
import { LabResults, type GivenToken, type LabSide } from './labResults.js';
import { LabRewardsCard } from './labRewards.js';

/** What stays when one goes to another view and comes back. */
const settings = signal<LabSettings>(START);

/** What became of a question. */
interface Asked {
  readonly running: boolean;
  /** Texts of the tokens so far. */
  readonly drawn: readonly string[];
  readonly completion?: LabCompletion | undefined;
  readonly error?: ServerError | undefined;
  /** The model that was asked, and how. */
  readonly model: LabModel;
  readonly prompt: Pick<LabSettings, 'prompt' | 'chat'>;
}

/** The view. */
export function LabView(): JSX.Element {
  const { query } = place.value;
  const run = query['run'] ?? focusedRun.value?.id;
  const growth = useThrottled(run === undefined ? '' : growthOf(run, 'metrics'), 5000);
  const { data, error } = useAnswer<LabModels>(address('lab/models'), growth);
  if (error !== undefined && data === undefined)
    return (
      <div class="view">
        <h1>Model lab</h1>
        <Fault error={error} />
      </div>
    );
  if (data === undefined) return <Waiting what="Looking for models" />;
  return (
    <div class="view lab">
      <div class="toolbar">
        <h1>Model lab</h1>
        {run !== undefined && <a href={href(['run', run])}>{runs.value.get(run)?.name ?? run}</a>}
      </div>
      {data.models.length === 0 ? (
        <Empty title="There is no model to try yet">
          <p>A run keeps models at its checkpoints and at its end; others are given by --model.</p>
        </Empty>
      ) : (
        <Lab listed={data} run={run} />
      )}
    </div>
  );
}

function Lab({ listed, run }: { listed: LabModels; run: string | undefined }): JSX.Element {
  const { query } = place.value;
  const step = query['step'] === undefined ? undefined : Number(query['step']);
  const { a, b } = chosenModels(listed.models, { run, step, a: query['a'], b: query['b'] });
  useSamplePrompt(run, query['sample']);
  const [asked, setAsked] = useState<Readonly<Partial<Record<LabSide, Asked>>>>({});
  const stops = useRef(new Map<LabSide, AbortController>());
  // Leaving the view takes back what is still asked.
  useEffect(() => () => stops.current.forEach((stop) => stop.abort()), []);

  const start = (side: LabSide, model: LabModel, given: readonly GivenToken[] = []): void => {
    stops.current.get(side)?.abort();
    const stop = new AbortController();
    stops.current.set(side, stop);
    const { prompt, chat, ...numbers } = settings.value;
    const about = { model, prompt: { prompt, chat } };
    const drawn = given.map(({ text }) => text);
    const show = (what: Pick<Asked, 'running' | 'completion' | 'error'>): void => {
      if (stops.current.get(side) !== stop) return;
      setAsked((before) => ({ ...before, [side]: { ...about, drawn: [...drawn], ...what } }));
      if (!what.running) stops.current.delete(side);
    };
    show({ running: true });
    const givenIds = given.map(({ id }) => id);
    const question = { ...numbers, prompt, chat, model: model.id, givenIds };
    let frame: number | undefined;
    const onToken = (text: string): void => {
      drawn.push(text);
      // Tokens may come faster than pictures.
      frame ??= requestAnimationFrame(() => {
        frame = undefined;
        show({ running: true });
      });
    };
    complete(question, stop.signal, onToken).then(
      (completion) => show({ running: false, completion }),
      (failure: unknown) =>
        show({ running: false, ...(!stop.signal.aborted && { error: asServerError(failure) }) }),
    );
  };
  const runAll = (): void => {
    if (a !== undefined) start('a', a);
    if (b !== undefined) start('b', b);
    else setAsked(({ a: first }) => (first === undefined ? {} : { a: first }));
  };
  const isRunning = asked.a?.running === true || asked.b?.running === true;
  const sides = useMemo(
    () =>
      (['a', 'b'] as const).flatMap((side) => {
        const found = asked[side];
        return found === undefined ? [] : [{ side, ...found }];
      }),
    [asked],
  );
  return (
    <>
      <LabForm
        models={listed.models}
        run={run}
        chosen={{ a, b }}
        settings={settings.value}
        isRunning={isRunning}
        onChoose={(side, id) =>
          // Both, or the other one would be chosen anew.
          go(withQuery({ a: a?.id, b: b?.id ?? 'none', [side]: id === '' ? 'none' : id }), {
            replace: true,
          })
        }
        onChange={(changed) => (settings.value = { ...settings.value, ...changed })}
        onRun={runAll}
        onStop={() => stops.current.forEach((stop) => stop.abort())}
      />
      <LabResults
        sides={sides}
        onBranch={(side, given) => {
          const model = asked[side]?.model;
          if (model !== undefined) start(side, model, given);
        }}
      />
      <LabRewardsCard listed={listed} run={run} sides={sides} />
    </>
  );
}

/** @param onToken hears the text of every token that is drawn */
async function complete(
  question: object,
  stop: AbortSignal,
  onToken: (text: string) => void,
): Promise<LabCompletion> {
  for await (const line of askLines<LabLine>(address('lab/complete'), stop, question)) {
    if ('completion' in line) return line.completion;
    if ('error' in line) throw new ServerError(0, line.error);
    onToken(line.token.text);
  }
  const message = 'The dashboard’s server ended before the completion did.';
  throw new ServerError(0, { code: 'E_CONNECTION', message });
}

/** The prompt of a sample that the address names, once. */
function useSamplePrompt(run: string | undefined, sample: string | undefined): void {
  const path =
    run === undefined || sample === undefined
      ? null
      : address(['runs', run, 'samples', sample].map(encodeURIComponent).join('/'));
  const { data } = useAnswer<SampleDetail>(path);
  const taken = useRef<string | null>(null);
  useEffect(() => {
    if (data === undefined || taken.current === path) return;
    taken.current = path;
    // As the model saw it: the chat template has written it already.
    settings.value = { ...settings.value, prompt: data.prompt, chat: false };
  }, [data, path]);
}
