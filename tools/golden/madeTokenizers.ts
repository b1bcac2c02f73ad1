/**
 * Writes the tokenizers that posttrain itself makes into test/golden/tokenizers, where tools/golden/text_tokenizers.py opens
 * them with transformers. The tests compare what posttrain makes with these files byte for byte.
 *
 *     npx tsx tools/golden/madeTokenizers.ts
 */
import { readFileSync } from 'node:fs';
import { createBpeTokenizer, createCharacterTokenizer } from '../../src/tokenizers/index.js';

const folder = 'test/golden/tokenizers';
await createCharacterTokenizer({ characters: '0123456789+= é日🙂', bosToken: '<bos>' }).save(
  `${folder}/characters`,
);
await createBpeTokenizer({
  texts: [readFileSync(`${folder}/corpus.txt`, 'utf8')],
  vocabSize: 480,
  additionalTokens: ['<|im_start|>', '<|im_end|>'],
}).save(`${folder}/trained`);
