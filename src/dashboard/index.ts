/** The dashboard: a server that shows run folders in the browser, docs/dashboard.md. */
export { startDashboard, type Dashboard, type DashboardOptions } from './server.js';
export type { Rhythm } from './runRegistry.js';
export type {
  CompleteJob,
  Lab,
  LabAnswer,
  LabParts,
  ModelSource,
  RewardJob,
  ScoreJob,
} from './lab.js';
export type { LabCompletion, LabPrompt, LabScore, LabScores, LabToken } from './labProtocol.js';
export type { Failure } from './protocol.js';
