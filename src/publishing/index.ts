/** Models on their way to others: their cards, and their upload to the Hugging Face Hub. */
export { modelCard, type CardFacts, type ModelKind } from './modelCard.js';
export {
  planPush,
  pushPlan,
  pushToHub,
  type PlanOptions,
  type PushedFile,
  type PushOptions,
  type PushPlan,
  type PushResult,
} from './pushToHub.js';
export { type MetricFacts, type RunDataFacts, type RunFacts, type RunInput } from './runFacts.js';
