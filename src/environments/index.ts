/** `posttrain/environments`: what an environment is, a built-in one, and loading others. Text only. */
export type { Environment, EnvironmentStep, EpisodeStart, ModelTurn } from './environment.js';
export { calculatorEnvironment, type CalculatorState } from './calculator.js';
export {
  BUILTIN_ENVIRONMENTS,
  loadEnvironment,
  type LoadEnvironmentOptions,
} from './loadEnvironment.js';
