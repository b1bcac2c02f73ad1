/** Tasks that are made on the spot, as text with right answers. */
export {
  additionAnswer,
  additionPrompt,
  additionTask,
  additionWithoutCarry,
  assertDisjoint,
  type AdditionDemonstration,
  type AdditionProblem,
  type AdditionTask,
  type AdditionTaskOptions,
} from './addition.js';
export {
  calculatorTask,
  type CalculatorDemonstration,
  type CalculatorProblem,
  type CalculatorTask,
  type CalculatorTaskOptions,
} from './calculator.js';
export {
  runningSumReward,
  runningSumTask,
  type RunningSumDemonstration,
  type RunningSumProblem,
  type RunningSumTask,
  type RunningSumTaskOptions,
} from './runningSum.js';
export {
  sentimentReward,
  sentimentScore,
  sentimentTask,
  type SentimentDemonstration,
  type SentimentPrompt,
  type SentimentTask,
  type SentimentTaskOptions,
} from './sentiment.js';
export {
  translationTask,
  type TranslationDemonstration,
  type TranslationProblem,
  type TranslationTask,
  type TranslationTaskOptions,
} from './translation.js';
export {
  WORKED_SUM_SEPARATOR,
  workedSumReward,
  workedSumSteps,
  workedSumTask,
  type WorkedSumDemonstration,
  type WorkedSumProblem,
  type WorkedSumSteps,
  type WorkedSumTask,
  type WorkedSumTaskOptions,
} from './workedSum.js';
