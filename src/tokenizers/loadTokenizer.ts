import { modelFolder } from '../hub/index.js';
import { readTokenizerFiles } from './files.js';
import { JsonTokenizer } from './jsonTokenizer.js';
import type { Tokenizer } from './tokenizer.js';

/**
 * Opens the tokenizer of a model folder, or of `org/name[@revision]` on the Hugging Face Hub: `tokenizer.json`, and where present `tokenizer_config.json`,
 * `special_tokens_map.json` and `chat_template.jinja`.
 *
 * @throws CheckpointError if the folder or `tokenizer.json` is missing, a file is malformed, the tokenizer is of an
 *   unknown kind, or a special token is not in the vocabulary
 * @throws IoError if a file exists but cannot be read; HubError as `modelFolder`
 */
export async function loadTokenizer(folderOrHubId: string): Promise<Tokenizer> {
  return new JsonTokenizer(await readTokenizerFiles(await modelFolder(folderOrHubId, 'tokenizer')));
}
