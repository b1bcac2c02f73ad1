/** Experiments that check what methods promise, on models made on the spot. */
export {
  METHODS,
  methodsReport,
  reproduceMethods,
  type MethodRun,
  type MethodsOptions,
} from './methods.js';
export { curvePlot, type Curves } from './plot.js';
export { reproduceCalculator } from './calculator.js';
