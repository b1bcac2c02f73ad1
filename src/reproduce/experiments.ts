/** The experiments by the name that the command line knows them by. `methods` has options of its own and stands beside. */
import { reproduceCalculator } from './calculator.js';
import { reproduceComparison } from './comparison.js';
import { reproduceDapoLadder } from './dapoLadder.js';
import type { ReproduceOptions, Reproduction } from './experiment.js';
import { reproduceMajPass } from './majPass.js';
import { reproduceOveroptimisation } from './overoptimisation.js';
import { reproduceFrontier } from './preferenceFrontier.js';
import { reproduceOptimalPolicy } from './optimalPolicy.js';
import { reproducePreferenceMethods } from './preferenceMethods.js';
import { reproducePrmVsOrm } from './prmVsOrm.js';
import { reproduceScst } from './scst.js';
import { reproduceStaleness } from './staleness.js';

/** An experiment for a list of them. */
export interface NamedExperiment {
  readonly name: string;
  /** For help texts. */
  readonly summary: string;
  readonly run: (options: ReproduceOptions) => Promise<Reproduction | NodeJS.Signals>;
}

/** Every experiment that takes `ReproduceOptions`. */
export const EXPERIMENTS: readonly NamedExperiment[] = [
  {
    name: 'dapo-ladder',
    summary: 'GRPO, and DAPO’s techniques added one by one',
    run: (options) => reproduceDapoLadder(options),
  },
  {
    name: 'maj-pass',
    summary: 'Maj@K and Pass@K before and after GRPO',
    run: (options) => reproduceMajPass(options),
  },
  {
    name: 'staleness',
    summary: 'rollouts that are 0, 4 and 16 steps old, with five objectives',
    run: (options) => reproduceStaleness(options),
  },
  {
    name: 'scst',
    summary: 'self-critical training on CIDEr-D after cross-entropy training',
    run: (options) => reproduceScst(options),
  },
  {
    name: 'calculator',
    summary: 'GRPO with a calculator as environment: the model learns to call it',
    run: (options) => reproduceCalculator(options),
  },
  {
    name: 'optimal-policy',
    summary: 'DPO and KL-regularised RL against the optimum in closed form',
    run: (options) => reproduceOptimalPolicy(options),
  },
  {
    name: 'frontier',
    summary: 'reward against KL for DPO, PPO, SFT on the best and best-of-n, beside the frontier',
    run: (options) => reproduceFrontier(options),
  },
  {
    name: 'preference-methods',
    summary: 'DPO, KTO, ORPO, SimPO, CPO and online DPO on the same preferences',
    run: (options) => reproducePreferenceMethods(options),
  },
  {
    name: 'overoptimisation',
    summary: 'the true reward while PPO raises a learned one, with and without a KL',
    run: (options) => reproduceOveroptimisation(options),
  },
  {
    name: 'sft-dpo-ppo-grpo',
    summary: 'four methods from one reference: memory, time, samples, reward and KL',
    run: (options) => reproduceComparison(options),
  },
  {
    name: 'prm-vs-orm',
    summary: 'best-of-n by a process and by an outcome reward model, with votes and pass@n beside',
    run: (options) => reproducePrmVsOrm(options),
  },
];
