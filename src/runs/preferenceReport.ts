/** What is told of rows of judged completions when a run begins. */
import type { PreferenceFault, PreferenceReport, UnpairedReport } from '../data/index.js';
import { counted } from '../errors/index.js';

const FAULTS: Readonly<Record<PreferenceFault, string>> = {
  equal: 'with equal completions',
  empty: 'with an empty completion',
  tooLong: 'too long',
  margin: 'with a margin that is no number',
  noPrompt: 'without anything to begin with',
  comparison: 'that do not fit their comparison',
  unreadable: 'that cannot be read',
};

/** `120 pairs, 4,096 tokens, 3 left out too long`. */
export function describePreferences(report: PreferenceReport | UnpairedReport): string {
  const { examples, tokens, boundaryMerges, withoutEos, faults } = report;
  const kind =
    'desirable' in report
      ? `${counted(examples, 'completion')} (${report.desirable} desirable)`
      : `${counted(examples, 'pair')} of ${counted(report.comparisons, 'comparison')}`;
  const remarks: [number, string][] = [
    [boundaryMerges, 'tokenized apart at the end of the prompt'],
    [withoutEos, 'without an end token'],
    ...(Object.entries(faults) as [PreferenceFault, number][]).map(
      ([fault, count]): [number, string] => [count, `left out ${FAULTS[fault]}`],
    ),
  ];
  const found = remarks.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  const circles = 'circles' in report ? circleRemark(report) : [];
  return [kind, counted(tokens, 'token'), ...found, ...circles].join(', ');
}

/** What is told of comparisons that no ranking agrees with; nothing where there are none. */
export function circleRemark({ circles }: PreferenceReport): string[] {
  const [first] = circles;
  return first === undefined
    ? []
    : [`${counted(circles.length, 'comparison')} of preferences in a circle (the first: ${first})`];
}
