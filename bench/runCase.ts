/** Measures the cells of a case, one after the other, and keeps what was found after each. */
import { existsSync } from 'node:fs';
import { PosttrainError, ShapeError, UsageError } from '../src/errors/index.js';
import { CASES, makeModels } from './cells.js';
import type { Cell, CeilingJob, ProfileRow } from './jobs.js';
import { circumstances, type Circumstances } from './machine.js';
import { CHANGES_CELLS, count, type Options } from './options.js';
import {
  measureOther,
  measureOurs,
  measureUndisturbed,
  otherSide,
  type OtherSide,
} from './processes.js';
import {
  markdownTable,
  provenance,
  readResults,
  resultsPath,
  writeResults,
  type Results,
  type Row,
} from './results.js';
import { median, ratioOf, rounded, summarise, unitOf, type Measurement } from './statistics.js';

interface Measured {
  readonly ours: Measurement[];
  readonly theirs: Measurement[];
}

/** Runs a job's processes in turn: ours, other, ours, other, … */
async function measureInTurn(
  cell: Cell,
  other: OtherSide | undefined,
  { pairs, quiet }: { pairs: number; quiet: boolean },
): Promise<Measured> {
  const measured: Measured = { ours: [], theirs: [] };
  const progress = (side: string, report: Measurement): void => {
    const side1 = summarise([report], cell.quantity);
    process.stderr.write(
      `${cell.name}: ${side} ${side1.median} ${unitOf(cell.quantity)}, peak ${side1.peakRssMib} MiB\n`,
    );
  };
  for (let pair = 0; pair < pairs; pair++) {
    const ours = await measureUndisturbed(() => measureOurs(cell.job), quiet);
    progress('posttrain', ours);
    measured.ours.push(ours);
    if (other === undefined) continue;
    const theirs = await measureUndisturbed(() => measureOther(other, cell.job), quiet);
    progress(other.name, theirs);
    requireSameTokens(cell, ours, theirs);
    measured.theirs.push(theirs);
  }
  return measured;
}

const TOKENS = 'tokens per step';

/** @throws ShapeError unless every timed step of both sides had as many tokens */
export function requireSameTokens({ name }: Cell, ours: Measurement, theirs: Measurement): void {
  const [mine, others] = [ours.rounds[TOKENS], theirs.rounds[TOKENS]];
  if (mine === undefined && others === undefined) return;
  if (mine?.join() === others?.join()) return;
  throw new ShapeError(
    `bench, ${name}: expected both sides to have as many tokens in each step, received ${mine?.join(', ')} and ${others?.join(', ')}.`,
  );
}

/** The share of what the machine can do, measured right beside the cell. */
async function sharesOf(cell: Cell, row: Row): Promise<Pick<Row, 'ceiling'>> {
  const { job, work } = cell;
  if (work === undefined || (work.flops === undefined && work.bytes === undefined)) return {};
  if (job.kind !== 'train' && job.kind !== 'generate') return {};
  const dtype = job.dtype === 'mixed' ? 'bfloat16' : job.dtype;
  const ceilingJob: CeilingJob = { kind: 'ceiling', shape: job.shape, dtype };
  const { rounds } = await measureOurs(ceilingJob);
  const isFlops = work.flops !== undefined;
  const unit = isFlops ? 'GFLOP/s' : 'GB/s';
  const rate = rounded(median(rounds[unit] ?? []));
  const share = (tokensPerSecond: number): number =>
    rounded((tokensPerSecond * (work.flops ?? work.bytes ?? NaN)) / 1e9 / rate);
  return {
    ceiling: {
      ...{ unit, rate, ours: share(row.ours.median) },
      ...(row.against && { against: share(row.against.median) }),
    },
  };
}

/** One case against one other side, or alone. */
interface Run {
  readonly name: string;
  readonly against: string | null;
  readonly cells: readonly Cell[];
}

/** What a run over cells is told. */
interface Course {
  readonly pairs: number;
  readonly isResumed: boolean;
  readonly path: string | undefined;
  readonly options: Options;
  /** Where cells that failed are named, so that the others go on; undefined where the first failure ends the run. */
  readonly failed?: string[];
}

function coursesOf(run: Run, options: Options, isResumed: boolean): Course {
  const { against, name } = run;
  const pairs = count('pairs', options.pairs ?? (against === null ? '1' : '3'));
  const isWhole = CHANGES_CELLS.every((option) => options[option] === undefined);
  const path = options.out ?? (isWhole ? resultsPath(name, against) : undefined);
  return { pairs, isResumed, path, options };
}

/** Rows that are kept: those of this commit when resuming, and those that `--only` leaves alone. */
function keptRows(run: Run, course: Course, now: Circumstances): Map<string, Row> {
  const kept = new Map<string, Row>();
  const { path, isResumed, options } = course;
  if (path === undefined || !existsSync(path)) return kept;
  for (const row of readResults(path).rows) {
    const cell = run.cells.find(({ name }) => name === row.name);
    if (cell === undefined) continue;
    const isOfThisCommit = row.commit === now.commit && !now.commit.endsWith('-dirty');
    if (isResumed && isOfThisCommit) kept.set(row.name, row);
    else if (!isChosen(run, cell, options)) kept.set(row.name, row);
  }
  return kept;
}

function isChosen(run: Run, cell: Cell, { only }: Options): boolean {
  return only === undefined || `${run.name} ${cell.name}`.includes(only);
}

/** The cells that are still to be measured. */
function cellsToDo(run: Run, course: Course, kept: ReadonlyMap<string, Row>): Cell[] {
  return run.cells.filter(
    (cell) => isChosen(run, cell, course.options) && !(course.isResumed && kept.has(cell.name)),
  );
}

async function runCells(run: Run, course: Course): Promise<Results> {
  const { name, against, cells } = run;
  const { options, pairs, path } = course;
  const other = against === null ? undefined : otherSide(against, options.python);
  const now = circumstances();
  const rows = keptRows(run, course, now);
  const toDo = cellsToDo(run, course, rows);
  await makeModels(toDo);
  const byJob = new Map<Cell['job'], Measured>();
  let seen: Measured | undefined;
  const results = (): Results => ({
    case: name,
    against,
    circumstances: { ...now, cpuCapability: seen?.ours[0]?.cpuCapability ?? '' },
    versions: { ...seen?.theirs[0]?.versions, ...seen?.ours[0]?.versions },
    // In the order of the cells, whenever each was measured.
    rows: cells.flatMap((cell) => rows.get(cell.name) ?? []),
  });
  const measure = async (cell: Cell): Promise<void> => {
    const started = performance.now();
    const measured =
      byJob.get(cell.job) ?? (await measureInTurn(cell, other, { pairs, quiet: options.quiet }));
    byJob.set(cell.job, measured);
    seen = measured;
    const row = rowOf(cell, measured);
    const shares = await sharesOf(cell, row);
    const seconds = Math.round((performance.now() - started) / 1000);
    rows.set(cell.name, { ...row, ...shares, commit: now.commit, seconds });
    if (path !== undefined) writeResults(results(), path);
  };
  for (const cell of toDo) {
    try {
      await measure(cell);
    } catch (error) {
      if (!(error instanceof PosttrainError) || course.failed === undefined) throw error;
      course.failed.push(`${titleOf(run)}, ${cell.name}: ${error.message}`);
    }
  }
  // Nothing to do: what the file says stands.
  if (seen === undefined && path !== undefined && existsSync(path)) return readResults(path);
  if (path !== undefined) process.stderr.write(`Written to ${path}\n`);
  return results();
}

function rowOf(cell: Cell, { ours: reports, theirs }: Measured): Row {
  const { name, quantity, job, axis } = cell;
  const ours = summarise(reports, quantity);
  const tokens = reports[0]?.rounds[TOKENS]?.[0];
  const row = {
    ...{ name, quantity, job, ours },
    ...(axis && { axis }),
    ...(tokens !== undefined && { tokensPerStep: tokens }),
  };
  if (theirs.length === 0) return row;
  const against = summarise(theirs, quantity);
  return { ...row, against, ratio: ratioOf(ours, against, quantity) };
}

/** `npm run bench -- <case>`. */
export async function runCase(name: string, options: Options): Promise<void> {
  const against = options.against ?? null;
  const { against: others, cells } = caseOf(name);
  if (against !== null && !others.includes(against)) {
    throw new UsageError(
      `bench: expected --against ${others.join(' or ') || 'not to be set'}, received --against ${against}.`,
    );
  }
  const run = { name, against, cells: cells(options) };
  const results = await runCells(run, coursesOf(run, options, options.resume));
  console.log(`${markdownTable(results)}\n\n${provenance(results)}`);
  if (options.json) console.log(JSON.stringify(results));
}

/** `npm run bench -- all`: every case, against all that it has where `--against` is given. */
export async function runAll(options: Options): Promise<void> {
  const chosen = Object.entries(CASES).filter(([, { isApart }]) => isApart !== true);
  const runs = chosen.flatMap(([name, { against, cells }]) => {
    const others = options.against === undefined || against.length === 0 ? [null] : against;
    const made = cells(options);
    return others.map((other): Run => ({ name, against: other, cells: made }));
  });
  const now = circumstances();
  let seconds = 0;
  for (const run of runs) {
    const course = coursesOf(run, options, true);
    const kept = keptRows(run, course, now);
    const sides = course.pairs * (run.against === null ? 1 : 2);
    const part = cellsToDo(run, course, kept).map((cell) => expected(cell, sides));
    seconds += part.reduce((sum, each) => sum + each, 0);
    const whole = Math.ceil(part.reduce((sum, each) => sum + each, 0) / 60);
    process.stderr.write(
      `${titleOf(run)}: ${part.length} of ${run.cells.length} cells, about ${whole} min\n`,
    );
  }
  process.stderr.write(`All together about ${Math.ceil(seconds / 60)} min.\n`);
  const failed: string[] = [];
  for (const run of runs) {
    const course = { ...coursesOf(run, options, true), failed };
    if (cellsToDo(run, course, keptRows(run, course, now)).length === 0) continue;
    try {
      const results = await runCells(run, course);
      console.log(`\n${titleOf(run)}\n\n${markdownTable(results)}\n\n${provenance(results)}`);
    } catch (error) {
      // The other side of this case is not installed; those of the others may be.
      if (!(error instanceof UsageError)) throw error;
      failed.push(`${titleOf(run)}: ${error.message} ${error.hint ?? ''}`);
    }
  }
  if (failed.length === 0) return;
  process.stderr.write(`\nNot measured:\n${failed.join('\n')}\n`);
  process.exitCode = 1;
}

function titleOf({ name, against }: Run): string {
  return against === null ? name : `${name} against ${against}`;
}

function expected(cell: Cell, processes: number): number {
  return processes * (cell.expectedSeconds ?? 10);
}

function caseOf(name: string) {
  const found = CASES[name];
  if (found !== undefined) return found;
  throw new UsageError(`bench: expected a case, received ${name}.`);
}

/** `--profile`: where our side's time goes in the cells of a case. */
export async function runProfile(name: string, options: Options): Promise<void> {
  const cells = caseOf(name).cells(options);
  const run = { name, against: null, cells };
  const chosen = cells.filter((cell) => isChosen(run, cell, options));
  await makeModels(chosen);
  for (const cell of chosen) {
    if (cell.job.kind !== 'generate' && cell.job.kind !== 'train') {
      throw new UsageError('bench: expected --profile with a case that generates or trains.');
    }
    const report = await measureOurs(cell.job, { profile: true });
    const speed = summarise([{ ...report, othersShare: null }], cell.quantity);
    console.log(
      `\n${cell.name}: ${speed.median} ${unitOf(cell.quantity)} under the profile, all rounds together`,
    );
    console.log(profileTable(report.profile ?? []));
  }
}

function profileTable(rows: readonly ProfileRow[]): string {
  const whole = rows.reduce((sum, row) => sum + row.milliseconds, 0);
  return rows
    .filter(({ milliseconds }) => milliseconds / whole >= 0.002)
    .map(({ name, calls, milliseconds }) => {
      const share = `${((100 * milliseconds) / whole).toFixed(1)} %`.padStart(7);
      const each = `${((1000 * milliseconds) / calls).toFixed(1)} µs`.padStart(11);
      const total = `${milliseconds.toFixed(1)} ms`.padStart(11);
      const times = `${calls} ×`.padStart(10);
      return name === 'JavaScript'
        ? `${share}${total}  ${name}`
        : `${share}${total}${times}${each}  ${name}`;
    })
    .join('\n');
}
