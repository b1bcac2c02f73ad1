/** Scores of the lab's completions by the rewards of a run, or by a reward model. */
import { useEffect, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import type { LabModels, LabReward, LabScores } from '../../../src/dashboard/labProtocol.js';
import { formatNumber } from '../../../src/dashboard/view/format.js';
import { address, ask, runs, type ServerError } from '../api.js';
import { asServerError } from '../hooks.js';
import { Fault } from '../parts.js';
import { modelName } from './labForm.js';
import { completionOf, type LabResult, type LabSide } from './labResults.js';

/** What scores: the rewards of a run, or one model. */
interface Scorer {
  /** `run …` or `judge …` */
  readonly key: string;
  readonly name: string;
  readonly rewards: readonly LabReward[];
}

type Outcome = { readonly scores: LabScores } | { readonly error: ServerError };

/** The card below the completions. */
export function LabRewardsCard({
  listed,
  run,
  sides,
}: {
  listed: LabModels;
  run: string | undefined;
  sides: readonly LabResult[];
}): JSX.Element | null {
  // Not kept: names of runs may arrive after the models.
  const scorers = scorersOf(listed);
  const [wanted, setWanted] = useState('');
  const [row, setRow] = useState<Readonly<Record<string, string>>>({});
  const [outcomes, setOutcomes] = useState<Readonly<Partial<Record<LabSide, Outcome>>>>({});
  const [isBusy, setBusy] = useState(false);
  // Scores of texts that are gone would be taken for those of the new ones.
  useEffect(() => setOutcomes({}), [completionOf(sides, 'a'), completionOf(sides, 'b')]);
  const done = sides.filter(({ completion }) => completion !== undefined);
  const chosen =
    scorers.find(({ key }) => key === wanted) ??
    scorers.find(({ key }) => key === `run ${run}`) ??
    scorers[0];
  if (done.length === 0) return null;
  const why = listed.rewards.find((rewards) => rewards.run === run)?.refusal;
  if (chosen === undefined)
    return (
      <section class="card">
        <h2>Rewards</h2>
        <p class="quiet">{why ?? 'No run has rewards that can score here.'}</p>
      </section>
    );
  const columns = [...new Set(chosen.rewards.flatMap(({ column }) => column ?? []))];
  const score = async (): Promise<void> => {
    setBusy(true);
    const [kind = '', id] = chosen.key.split(' ');
    for (const { side, model, prompt, completion } of done) {
      if (completion === undefined) continue;
      const question = {
        ...{ model: model.id, ...prompt, [kind]: id, finishReason: completion.finishReason },
        completionIds: completion.sequence.tokenIds,
        row: Object.fromEntries(columns.map((column) => [column, row[column] ?? ''])),
      };
      let outcome: Outcome;
      try {
        outcome = { scores: await ask<LabScores>(address('lab/score'), undefined, question) };
      } catch (error) {
        outcome = { error: asServerError(error) };
      }
      setOutcomes((before) => ({ ...before, [side]: outcome }));
    }
    setBusy(false);
  };
  return (
    <section class="card" aria-label="Rewards">
      <h2>Rewards</h2>
      <form
        class="lab-form"
        onSubmit={(event) => {
          event.preventDefault();
          void score();
        }}
      >
        <div class="lab-models">
          <label class="lab-field">
            Scored by
            <select
              aria-label="Scored by"
              value={chosen.key}
              onChange={(event) => {
                setWanted(event.currentTarget.value);
                setOutcomes({});
              }}
            >
              {scorers.map(({ key, name }) => (
                <option key={key} value={key}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          {columns.map((column) => (
            <label key={column} class="lab-field">
              Column {column}, which rewards compare with
              <input
                type="text"
                value={row[column] ?? ''}
                onInput={(event) => {
                  const { value } = event.currentTarget;
                  setRow((before) => ({ ...before, [column]: value }));
                }}
              />
            </label>
          ))}
        </div>
        {why !== undefined && why !== null && <p class="lab-note">{why}</p>}
        <div class="toolbar">
          <span class="grow" />
          <button type="submit" class="button" disabled={isBusy}>
            {isBusy ? 'Scoring' : 'Score'}
          </button>
        </div>
      </form>
      <div aria-live="polite">
        {done.map(({ side, model }) => (
          <Scores
            key={side}
            name={`${side.toUpperCase()}: ${modelName(model)}`}
            outcome={outcomes[side]}
          />
        ))}
      </div>
    </section>
  );
}

function Scores({
  name,
  outcome,
}: {
  name: string;
  outcome: Outcome | undefined;
}): JSX.Element | null {
  if (outcome === undefined) return null;
  return (
    <>
      <h3>{name}</h3>
      {'error' in outcome ? (
        <Fault error={outcome.error} />
      ) : (
        <table class="lab-scores">
          <tbody>
            {outcome.scores.scores.map(({ name: reward, weight, score, reason }) => (
              <tr key={reward}>
                <th scope="row">{reward}</th>
                <td class="num">{score === null ? '—' : formatNumber(score, 4)}</td>
                <td class="quiet">{reason ?? `weight ${formatNumber(weight)}`}</td>
              </tr>
            ))}
            <tr>
              <th scope="row">weighted sum</th>
              <td class="num">
                <strong>{formatNumber(outcome.scores.total, 4)}</strong>
              </td>
              <td />
            </tr>
          </tbody>
        </table>
      )}
    </>
  );
}

function scorersOf({ models, rewards }: LabModels): Scorer[] {
  const byRuns = rewards
    .filter(({ refusal }) => refusal === null)
    .map((one) => ({
      key: `run ${one.run}`,
      name: `the rewards of ${runs.value.get(one.run)?.name ?? one.run}`,
      rewards: one.rewards,
    }));
  const judges = models
    .filter(({ task, refusal }) => task !== 'text' && refusal === null)
    .map((model) => ({ key: `judge ${model.id}`, name: modelName(model), rewards: [] }));
  return [...byRuns, ...judges];
}
