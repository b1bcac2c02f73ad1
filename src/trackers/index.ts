/** Trackers: what follows a run beside its directory. */
export type { TrackedEnd, TrackedRun, TrackedStep, Tracker } from './tracker.js';
export { Follower, type FollowerOptions } from './follower.js';
export { MlflowTracker, type MlflowOptions } from './mlflow.js';
export { mlflowAccess, mlflowCall, type MlflowAccess, type MlflowCall } from './mlflowServer.js';
