/** The Hugging Face Hub: repositories as local folders, in the cache that Python uses too. */
export { giveBase, givenBase } from './givenBase.js';
export { atRevision, hubIdOf, isCommit, parseHubId, type HubId, type RepoKind } from './hubId.js';
export { hubSettings, type HubSettings } from './hubSettings.js';
export {
  hubFetch,
  reasonOf,
  secondsAsked,
  type HubAccess,
  type HubOptions,
  type HubStream,
  type HubSubject,
} from './hubFetch.js';
export { makeFolder } from './makeFolder.js';
export { hubAccess, openSnapshot, type Snapshot } from './snapshot.js';
export { modelFolder, modelOnBase, type ModelOnBase, type ModelParts } from './modelFolder.js';
export { openHubDataSet, type HubDataSet } from './dataSet.js';
export { lastingName, openedFolder } from './openOnce.js';
