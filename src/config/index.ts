/** Settings: which exist, what they may hold, their defaults and where those come from. Knows nothing of training. */
export { METHOD_CONFIGS } from './methods.js';
export { SftConfig, type SftConfigInput } from './sft.js';
export { RewardConfig, type RewardConfigInput } from './reward.js';
export { PrmConfig, type PrmConfigInput } from './prm.js';
export { GrpoConfig, type GrpoConfigInput } from './grpo.js';
export { PpoConfig, type PpoConfigInput } from './ppo.js';
export { RejectionConfig, type RejectionConfigInput } from './rejection.js';
export { REJECTION_PRESETS, rejectionPreset, type RejectionPreset } from './rejectionPresets.js';
export {
  CpoConfig,
  DpoConfig,
  OrpoConfig,
  SimpoConfig,
  type CpoConfigInput,
  type DpoConfigInput,
  type OrpoConfigInput,
  type SimpoConfigInput,
} from './preferences.js';
export { RlhfConfig, type RlhfConfigInput } from './rlhf.js';
export { KtoConfig, type KtoConfigInput } from './kto.js';
export { OnlineDpoConfig, type OnlineDpoConfigInput } from './onlineDpo.js';
export {
  GRPO_PRESETS,
  grpoPreset,
  mergedSettings,
  overPreset,
  type GrpoPreset,
  type Preset,
} from './presets.js';
export { parseConfig } from './parseConfig.js';
export {
  applyOverrides,
  configFromObject,
  readConfigFile,
  type ConfigSource,
} from './configSource.js';
export { describeConfig, type SettingRow } from './describeConfig.js';
export { nearestName } from './nearestName.js';
