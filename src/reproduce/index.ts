/** Experiments that check what papers claim, on models made on the spot. */
export { METHODS, reproduceMethods } from './methods.js';
export { reproduceCalculator } from './calculator.js';
export { reproduceDapoLadder } from './dapoLadder.js';
export { reproduceMajPass } from './majPass.js';
export { reproduceOptimalPolicy } from './optimalPolicy.js';
export { reproducePrmVsOrm } from './prmVsOrm.js';
export { reproduceScst } from './scst.js';
export { reproduceStaleness } from './staleness.js';
export { EXPERIMENTS, type NamedExperiment } from './experiments.js';
export type { ReproduceOptions, Reproduction } from './experiment.js';
export type { Seen, Verdict } from './verdict.js';
export { curvePlot, type Curves } from './plot.js';
