/**
 * Functions that load what they need when they are first called: trainers, runs and uploads are a third of the library’s
 * files, and who imports `posttrain` to sample or to read data does not wait for them. What each takes, does and refuses
 * is told in full where it is written.
 */

/** A function of a module that is imported at the first call. */
function deferred<F extends (...args: never[]) => Promise<unknown>>(load: () => Promise<F>): F {
  const call = async (...args: Parameters<F>): Promise<unknown> => (await load())(...args);
  return call as F; // what a generic function returns is known to its caller alone
}

const runs = () => import('./runs/index.js');
const selection = () => import('./selection/index.js');
const publishing = () => import('./publishing/index.js');

/**
 * A supervised fine-tuning run, ready to `train`. Data and settings are checked before anything is written, here as in
 * every `create…Run`.
 *
 * @throws ConfigError, DataError, CheckpointError or IoError with what was expected and received, as every `create…Run`
 */
export const createSftRun = deferred(async () => (await runs()).createSftRun);

/** A run that trains a reward model from pairs and rankings; what it saves can be a reward at once: `model:<run>/model`. */
export const createRewardRun = deferred(async () => (await runs()).createRewardRun);

/** A run that trains a process reward model, ready for `--reward prm:folder` and `scoreSteps`. */
export const createPrmRun = deferred(async () => (await runs()).createPrmRun);

/** A run of GRPO or of a method of its family. Rewards are checked too. @throws RewardError, and as `createSftRun` */
export const createGrpoRun = deferred(async () => (await runs()).createGrpoRun);

/** A PPO run: policy, frozen reference, rewards, value model. @throws RewardError, and as `createSftRun` */
export const createPpoRun = deferred(async () => (await runs()).createPpoRun);

/** A DPO run, on pairs of completions. */
export const createDpoRun = deferred(async () => (await runs()).createDpoRun);

/** An ORPO run: fine-tuning and preferences at once, without a reference. */
export const createOrpoRun = deferred(async () => (await runs()).createOrpoRun);

/** A SimPO run: mean log-probabilities with a margin, without a reference. */
export const createSimpoRun = deferred(async () => (await runs()).createSimpoRun);

/** A CPO run: DPO with a uniform reference, and likelihood. */
export const createCpoRun = deferred(async () => (await runs()).createCpoRun);

/** A KTO run, on rows `{prompt, completion, label}` or pairs. */
export const createKtoRun = deferred(async () => (await runs()).createKtoRun);

/** An online DPO run: it samples pairs, which rewards or a judge compare. @throws RewardError, and as `createSftRun` */
export const createOnlineDpoRun = deferred(async () => (await runs()).createOnlineDpoRun);

/** A job of rejection sampling. @throws RewardError, and as `createSftRun` */
export const createRejectionRun = deferred(async () => (await runs()).createRejectionRun);

/** The pipeline of fine-tuning, preferences, reward model and reinforcement. @throws RewardError, and as `createSftRun` */
export const createRlhfRun = deferred(async () => (await runs()).createRlhfRun);

/** Writes the model that an adapter and its base amount to. @throws IoError, CheckpointError or HubError */
export const mergeAdapter = deferred(async () => (await runs()).mergeAdapter);

/**
 * Samples n completions of each prompt and takes the one that scores highest. @throws ValueRangeError, RewardError or
 * ConfigError
 */
export const bestOfN = deferred(async () => (await selection()).bestOfN);

/**
 * What `pushToHub` would upload of a run directory, a model folder or an adapter; asks nobody. @throws UsageError or
 * CheckpointError
 */
export const planPush = deferred(async () => (await publishing()).planPush);

/**
 * Uploads a run's result, a model folder or an adapter to `org/name` of the Hub, with a card. @throws as `planPush`, and
 * HubError
 */
export const pushToHub = deferred(async () => (await publishing()).pushToHub);
