/** By what the weights of a model folder are recognised: for provenance, and to see that a job goes on with its model. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, type BigIntStats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CheckpointError, IoError } from '../errors/index.js';
import { modelFolder } from '../hub/index.js';
import {
  ADAPTER_WEIGHTS_FILE,
  describeAdapter,
  isAdapterFolder,
  readAdapterFolder,
  type AdapterFolder,
} from './adapterFolder.js';
import { assertModelFolder, openWeights, SHARD_NAME, WEIGHTS_FILE } from './checkpoint.js';

/**
 * SHA-256 of a model folder's weights, as hexadecimal digits. Of one file it is what `sha256sum model.safetensors`
 * prints; of shards it is the SHA-256 of what `sha256sum model-*.safetensors` prints, names included; of an
 * adapter it is the SHA-256 of such a listing of its own file and of its base model's fingerprint. Loads nothing.
 *
 * @param where what asks for it, for messages
 * @throws CheckpointError if the folder holds no model; IoError if a file cannot be read
 */
export async function weightsSha256(
  folderOrHubId: string,
  where = 'weightsSha256',
): Promise<string> {
  const folder = await modelFolder(folderOrHubId);
  if (isAdapterFolder(folder)) {
    const { base } = readAdapterFolder(where, folder);
    const own = await sha256OfFile(join(folder, ADAPTER_WEIGHTS_FILE));
    const listing = `${own}  ${ADAPTER_WEIGHTS_FILE}\n${await weightsSha256(base, where)}  base\n`;
    return createHash('sha256').update(listing).digest('hex');
  }
  assertModelFolder(folder, where);
  if (existsSync(join(folder, WEIGHTS_FILE))) return sha256OfFile(join(folder, WEIGHTS_FILE));
  const shards = readdirSync(folder)
    .filter((name) => SHARD_NAME.test(name))
    .sort();
  if (shards.length === 0) {
    openWeights(folder, where).dispose(); // Says what is there in their place.
    throw new CheckpointError(
      `${where}: expected shards with names such as model-00001-of-00002.safetensors in ${folder}, there are none.`,
      { hint: 'Save the model again with transformers.' },
    );
  }
  const listing = createHash('sha256');
  for (const name of shards) listing.update(`${await sha256OfFile(join(folder, name))}  ${name}\n`);
  return listing.digest('hex');
}

/**
 * Refuses a base model whose weights are others than those that the adapter was trained on, where the adapter tells: those
 * that posttrain has saved do. A matrix of the same shape would be taken in silence.
 *
 * @throws CheckpointError
 */
export async function requireSameBase(
  where: string,
  { folder, base, isPinned }: AdapterFolder,
): Promise<void> {
  const { baseSha256: expected } = describeAdapter(where, folder);
  if (expected === undefined || isPinned) return;
  const received = await weightsSha256(base, where);
  if (received === expected) return;
  throw new CheckpointError(
    `${where}: expected the base model that the adapter ${folder} was trained on, whose weights have the SHA-256 ${expected}, received ${base}, whose weights have ${received}.`,
    { hint: 'Name the folder of that model with --base; in code, with the option base.' },
  );
}

/** What is known of files that have not changed since: a run asks for its model several times. */
const digests = new Map<string, string>();
/** A file that was changed within this time before it was read may change again without another time of change. */
const CLOCK_SECONDS = 2;

async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    const startedAt = Date.now();
    const key = stateOf(await stat(path, { bigint: true }));
    const known = digests.get(key);
    if (known !== undefined) return known;
    // In pieces: weights may be larger than what one buffer holds.
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 }))
      hash.update(piece as Uint8Array);
    const digest = hash.digest('hex');
    const after = await stat(path, { bigint: true });
    const isSettled = startedAt - Number(after.ctimeMs) > CLOCK_SECONDS * 1000;
    if (isSettled && stateOf(after) === key) digests.set(key, digest);
    return digest;
  } catch (error) {
    throw new IoError(
      `weightsSha256: expected to read ${path}, but ${error instanceof Error ? error.message : String(error)}.`,
      { cause: error },
    );
  }
}

/** Changes with every write: the time of change cannot be set. */
function stateOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
}
