/** The settings of every method by the name of its command. */
import { GrpoConfig } from './grpo.js';
import { KtoConfig } from './kto.js';
import { OnlineDpoConfig } from './onlineDpo.js';
import { PpoConfig } from './ppo.js';
import { PrmConfig } from './prm.js';
import { CpoConfig, DpoConfig, OrpoConfig, SimpoConfig } from './preferences.js';
import { RejectionConfig } from './rejection.js';
import { RewardConfig } from './reward.js';
import { RlhfConfig } from './rlhf.js';
import { SftConfig } from './sft.js';

/** What `posttrain config <method>` lists. */
export const METHOD_CONFIGS = {
  sft: SftConfig,
  reward: RewardConfig,
  prm: PrmConfig,
  dpo: DpoConfig,
  kto: KtoConfig,
  orpo: OrpoConfig,
  simpo: SimpoConfig,
  cpo: CpoConfig,
  'online-dpo': OnlineDpoConfig,
  ppo: PpoConfig,
  grpo: GrpoConfig,
  rejection: RejectionConfig,
  rlhf: RlhfConfig,
} as const;
