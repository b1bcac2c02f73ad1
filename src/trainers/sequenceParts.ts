/**
 * Losses of whole completions, divided among them for the record: what the log-probability of each moves, and what is
 * left. Plain numbers; knows no tensors but where a loss is asked for its slope.
 */

/**
 * A completion's part of the loss of its optimizer step, exact at the recorded numbers:
 *
 *     part = slope·Σ(log π − log π_ref) + rest        the parts of all completions add up to the loss
 */
export interface SequencePart {
  /** ∂L/∂log π(y), 1/nats: with it every token of the completion moves. */
  readonly slope: number;
  readonly rest: number;
}

/** A completion of a group as `groupPreferenceParts` sees it. */
export interface PreferredRow {
  /** Σ(log π − log π_ref) over the tokens that the model drew, nats. */
  readonly logratio: number;
  readonly isGood: boolean;
}

/**
 * Of the completions of one prompt, with s = β·log(π/π_ref), p the softmax of s over all of them and q over the good ones:
 *
 *     L = −w·log(Σ_good eˢ / Σ_all eˢ) = Σᵢ w·((pᵢ − qᵢ)·sᵢ + qᵢ·log qᵢ − pᵢ·log pᵢ),    ∂L/∂sᵢ = w·(pᵢ − qᵢ)
 */
export function groupPreferenceParts(
  rows: readonly PreferredRow[],
  { beta, weight }: { beta: number; weight: number },
): SequencePart[] {
  const scores = rows.map(({ logratio }) => beta * logratio);
  const ofAll = softmax(scores);
  const ofGood = softmax(rows.map(({ isGood }, at) => (isGood ? (scores[at] ?? NaN) : -Infinity)));
  return rows.map((_, at) => {
    const [p, q] = [ofAll[at] ?? NaN, ofGood[at] ?? NaN];
    return { slope: weight * beta * (p - q), rest: weight * (plogp(q) - plogp(p)) };
  });
}

/**
 * KTO's loss of a row and its slope, with x = β·(log-ratio − z) for desirable rows and its negative for others:
 *
 *     L = λ·(1 − σ(x))/B,    ∂L/∂log π(y) = ∓λ·β·σ(x)·σ(−x)/B
 */
export function ktoPart(
  { logratio, label }: { logratio: number; label: boolean },
  settings: { beta: number; klBaseline: number; weight: number; rows: number },
): SequencePart {
  const { beta, klBaseline, weight, rows } = settings;
  const sign = label ? 1 : -1;
  const x = sign * beta * (logratio - klBaseline);
  const slope = (-sign * weight * beta * sigmoid(x) * sigmoid(-x)) / rows;
  return { slope, rest: (weight * sigmoid(-x)) / rows - slope * logratio };
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function softmax(values: readonly number[]): number[] {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** p·log p, 0 at 0. */
function plogp(p: number): number {
  return p === 0 ? 0 : p * Math.log(p);
}
