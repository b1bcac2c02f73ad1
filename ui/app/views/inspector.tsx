/** The token inspector: one completion, or a pair side by side, with every number of every token. */
import { useCallback, useEffect, useMemo, useReducer, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { SampleDetail, SampleGroup, SampleSequence } from '../../../src/dashboard/protocol.js';
import { formatNumber, visibleText } from '../../../src/dashboard/view/format.js';
import {
  availableStreams,
  clipSide,
  colourScale,
  preferredStream,
  runningSum,
  valuesOf,
  type ColourScale,
  type StreamInfo,
} from '../../../src/dashboard/view/streams.js';
import { address, revisionOf, runs } from '../api.js';
import { Chart, type RunCurve } from '../charts/chart.js';
import { useAnswer } from '../hooks.js';
import { Fact, Fault, Waiting } from '../parts.js';
import { go, href, place, withQuery } from '../route.js';
import { TokenLegend } from '../tokens/legend.js';
import { TokenPanel } from '../tokens/tokenPanel.js';
import { TokenText } from '../tokens/tokenText.js';
import { Reward } from './samples.js';

/** Which text a token belongs to. */
type Side = 'completion' | 'rejected';

interface ActiveToken {
  readonly side: Side;
  readonly index: number;
  readonly pinned: boolean;
}

/** The view. */
export function InspectorView(): JSX.Element {
  const [, run = '', index = ''] = place.value.path;
  const base = `runs/${encodeURIComponent(run)}/samples/${encodeURIComponent(index)}`;
  const [reading, readAgain] = useReducer<number, void>((n) => n + 1, 0);
  const { data, error } = useAnswer<SampleDetail>(address(base), reading);
  if (error !== undefined)
    return (
      <div class="view">
        <Fault error={error} />
      </div>
    );
  if (data === undefined) return <Waiting what="Reading the sample" />;
  const isOld = (revisionOf(run) ?? 0) > data.revision;
  return (
    <Inspector
      key={`${run} ${index} ${data.revision}`}
      runId={run}
      base={base}
      sample={data}
      note={isOld && <OldSample onReadAgain={() => readAgain()} />}
    />
  );
}

/** The run has written its samples anew since this one was read. */
function OldSample({ onReadAgain }: { onReadAgain: () => void }): JSX.Element {
  return (
    <p class="card toolbar" role="status">
      The run was resumed or begun anew: this place may hold another sample now.
      <button type="button" class="button" onClick={onReadAgain}>
        Read it again
      </button>
    </p>
  );
}

function Inspector({
  runId,
  base,
  sample,
  note,
}: {
  runId: string;
  base: string;
  sample: SampleDetail;
  note: JSX.Element | false;
}): JSX.Element {
  const sequences = useMemo(
    () => [sample.completion, ...(sample.rejected === null ? [] : [sample.rejected])],
    [sample],
  );
  const available = useMemo(() => availableStreams(sequences), [sequences]);
  const wanted = place.value.query['stream'];
  const info = available.find(({ name }) => name === wanted) ?? preferredStream(available);
  const scale = useMemo(
    () =>
      info === undefined
        ? undefined
        : colourScale(
            info,
            sequences.map((sequence) => valuesOf(sequence, info.name) ?? []),
          ),
    [sequences, info],
  );
  const [active, setActive] = useState<ActiveToken | undefined>();
  const onActive = useCallback(
    (side: Side, index: number | undefined, pinned: boolean) =>
      setActive((before) => {
        if (index === undefined) return undefined;
        if (!pinned && before?.pinned === true) return before;
        return { side, index, pinned };
      }),
    [],
  );
  const shownSequence = active?.side === 'rejected' ? sample.rejected : sample.completion;
  return (
    <div class="view inspector">
      <SampleHead runId={runId} sample={sample} />
      {note}
      <PromptCard sample={sample} />
      <div class="inspect">
        <div class="inspect-main">
          <section class="card">
            <StreamPicker available={available} info={info} />
            {info !== undefined && scale !== undefined && (
              <>
                <p class="quiet">{info.explanation}</p>
                <TokenLegend
                  info={info}
                  scale={scale}
                  hasClipped={sequences.some(({ tokens }, nth) =>
                    tokens.some((_, at) => clipSide(sequences[nth] ?? sample.completion, at)),
                  )}
                  hasUntrained={sequences.some(({ streams }) => streams.mask?.includes(0) ?? false)}
                />
              </>
            )}
          </section>
          <div class={sample.rejected === null ? '' : 'pair'}>
            <SideCard
              side="completion"
              title={sample.kind === 'pair' ? 'Chosen' : 'Completion'}
              sequence={sample.completion}
              info={info}
              scale={scale}
              active={active}
              onActive={onActive}
            />
            {sample.rejected !== null && (
              <SideCard
                side="rejected"
                title="Rejected"
                sequence={sample.rejected}
                info={info}
                scale={scale}
                active={active}
                onActive={onActive}
              />
            )}
          </div>
          {info !== undefined && <AlongText sample={sample} info={info} />}
        </div>
        <aside class="card inspect-side" aria-label="Token">
          {active === undefined || shownSequence === null ? (
            <p class="quiet">
              Point at a token, or walk with the arrow keys. A click or a key holds the token until
              Escape.
            </p>
          ) : (
            <TokenPanel
              sequence={shownSequence}
              index={active.index}
              chosen={info?.name}
              explanationAddress={
                // The files hold another sample here.
                note === false
                  ? address(`${base}/tokens/${active.index}`, {
                      side: active.side === 'rejected' ? 'rejected' : undefined,
                    })
                  : null
              }
            />
          )}
        </aside>
      </div>
    </div>
  );
}

function SampleHead({ runId, sample }: { runId: string; sample: SampleDetail }): JSX.Element {
  const groupPath = ['runs', runId, 'groups', sample.step, sample.promptIndex]
    .map(encodeURIComponent)
    .join('/');
  const group = useAnswer<SampleGroup>(sample.kind === 'completion' ? address(groupPath) : null);
  return (
    <>
      <div class="toolbar">
        <h1>{sample.kind === 'pair' ? 'Preference pair' : 'Token inspector'}</h1>
        <a href={href(['samples'], { run: runId })}>{runs.value.get(runId)?.name ?? runId}</a>
        <span class="quiet num">step {sample.step}</span>
        <span class="grow" />
        {sample.kind === 'completion' && (
          <a class="button" href={href(['group', runId, sample.step, sample.promptIndex])}>
            Group side by side
          </a>
        )}
        <a class="button" href={href(['prompt', runId, sample.promptId])}>
          Through the steps
        </a>
        <a class="button" href={href(['lab'], { run: runId, sample: sample.index })}>
          Continue this prompt
        </a>
      </div>
      {(group.data?.samples.length ?? 0) > 1 && (
        <nav class="siblings" aria-label="Completions of the group">
          {group.data?.samples.map(({ index, groupIndex, reward }) => (
            <a
              key={index}
              href={href(['sample', runId, index], { stream: place.value.query['stream'] })}
              aria-current={index === sample.index ? 'page' : undefined}
            >
              <span class="quiet num">{groupIndex + 1}</span> <Reward value={reward} />
            </a>
          ))}
        </nav>
      )}
    </>
  );
}

function PromptCard({ sample }: { sample: SampleDetail }): JSX.Element {
  return (
    <section class="card prompt-card">
      <div>
        <h2>Prompt</h2>
        <div class="text short">{visibleText(sample.prompt)}</div>
        {sample.turns.length > 0 && (
          <details>
            <summary>{sample.turns.length} turns</summary>
            <ol class="plain turns">
              {sample.turns.map(({ role, text }, index) => (
                <li key={index}>
                  <strong>{visibleText(role)}</strong>
                  <div class="text">{visibleText(text)}</div>
                </li>
              ))}
            </ol>
          </details>
        )}
      </div>
      <dl class="facts">
        <Fact name={sample.kind === 'pair' ? 'Margin' : 'Reward'}>
          <Reward value={sample.reward} />
        </Fact>
        {Object.entries(sample.rewards).map(([name, value]) => (
          <Fact key={name} name={name}>
            <span class="num">{formatNumber(value)}</span>
          </Fact>
        ))}
        {sample.advantage !== null && (
          <Fact name="Advantage">
            <span class="num">{formatNumber(sample.advantage)}</span>
          </Fact>
        )}
        <Fact name="Tokens">
          <span class="num">
            {sample.length}
            {sample.finishReason !== null && `, ended by ${sample.finishReason}`}
          </span>
        </Fact>
        {sample.weightVersion !== null && (
          <Fact name="Drawn by weights after">
            <span class="num">{sample.weightVersion} updates</span>
          </Fact>
        )}
      </dl>
    </section>
  );
}

function StreamPicker({
  available,
  info,
}: {
  available: readonly StreamInfo[];
  info: StreamInfo | undefined;
}): JSX.Element {
  const groups = [...new Set(available.map(({ group }) => group))];
  const choose = (name: string): void => go(withQuery({ stream: name }), { replace: true });
  return (
    <div class="streams" role="radiogroup" aria-label="Colour tokens by">
      {groups.map((group) => (
        <div key={group} class="stream-group">
          <span class="quiet">{group}</span>
          <div class="stream-names">
            {available
              .filter((stream) => stream.group === group)
              .map(({ name, label, explanation }) => (
                <label key={name} class={info?.name === name ? 'chosen' : ''} title={explanation}>
                  <input
                    type="radio"
                    name="stream"
                    value={name}
                    checked={info?.name === name}
                    onChange={() => choose(name)}
                  />
                  {label}
                </label>
              ))}
          </div>
        </div>
      ))}
      {available.length === 0 && <span class="quiet">No numbers per token were recorded.</span>}
    </div>
  );
}

function SideCard({
  side,
  title,
  sequence,
  info,
  scale,
  active,
  onActive,
}: {
  side: Side;
  title: string;
  sequence: SampleSequence;
  info: StreamInfo | undefined;
  scale: ColourScale | undefined;
  active: ActiveToken | undefined;
  onActive: (side: Side, index: number | undefined, pinned: boolean) => void;
}): JSX.Element {
  const reward = sequence.streams.implicitRewards;
  return (
    <section class="card">
      <h2>
        {title}
        {reward !== undefined && (
          <span class="quiet num">
            {' '}
            implicit reward {formatNumber(runningSum(reward).at(-1), 4)}
          </span>
        )}
      </h2>
      <TokenText
        id={side}
        label={`${title}, coloured by ${info?.label ?? 'nothing'}`}
        sequence={sequence}
        info={info}
        scale={scale}
        active={active?.side === side ? active.index : undefined}
        onActive={(index, pinned) => onActive(side, index, pinned)}
      />
    </section>
  );
}

/** The chosen stream along the text; implicit rewards as they add up. */
function AlongText({
  sample,
  info,
}: {
  sample: SampleDetail;
  info: StreamInfo;
}): JSX.Element | null {
  const addsUp = info.name === 'implicitRewards';
  const curves = useMemo(() => {
    const sides = [
      { name: sample.kind === 'pair' ? 'chosen' : 'completion', sequence: sample.completion },
      { name: 'rejected', sequence: sample.rejected },
    ];
    return sides.flatMap(({ name, sequence }, index): RunCurve[] => {
      const values = sequence === null ? undefined : valuesOf(sequence, info.name);
      if (values === undefined || values.length < 2) return [];
      const x = values.map((_, at) => at + 1);
      return [{ name, index, curve: { x, y: addsUp ? runningSum(values) : values } }];
    });
  }, [sample, info]);
  const [zoom, setZoom] = useState<readonly [number, number] | null>(null);
  useEffect(() => setZoom(null), [sample]);
  if (curves.length === 0) return null;
  return (
    <section class="card">
      <h2>
        {addsUp ? 'Implicit reward, adding up along the text' : `${info.label} along the text`}
      </h2>
      <Chart
        label={info.label}
        curves={curves}
        axis="step"
        xName="token"
        log={false}
        smoothing={0}
        marks={[]}
        zoom={zoom}
        onZoom={setZoom}
        height={170}
      />
    </section>
  );
}
