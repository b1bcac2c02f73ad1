import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CheckpointError, ValueRangeError } from '../errors/index.js';
import { createModel, makeDecoderConfig, type Decoder } from '../models/index.js';
import { Mlp } from '../nn/index.js';
import {
  createBpeTokenizer,
  createCharacterTokenizer,
  type Tokenizer,
} from '../tokenizers/index.js';
import { noGrad, tensor, tidy } from '../torch/index.js';
import { endTokenIds, generate, type GenerateOptions } from './generate.js';

/**
 * A decoder that says a text by heart: its layers do nothing, and its output layer answers each token of the script with
 * the one after it. No token may occur twice in the script.
 */
function reciting(
  script: readonly number[],
  vocabSize: number,
  eosTokenId: number | null = null,
): Decoder {
  assert.equal(new Set(script).size, script.length, 'a token occurs twice in the script');
  const config = makeDecoderConfig({
    vocabSize,
    hiddenSize: 2 * Math.ceil(vocabSize / 2),
    intermediateSize: 2,
    numLayers: 1,
    numHeads: 1,
    tieWordEmbeddings: false,
    maxPositionEmbeddings: 64,
    eosTokenId,
  });
  const model = createModel(config, { seed: 0 });
  const width = config.hiddenSize;
  const matrix = (ones: readonly (readonly [number, number])[]): Float32Array => {
    const flat = new Float32Array(vocabSize * width);
    for (const [row, column] of ones) flat[row * width + column] = 1;
    return flat;
  };
  noGrad(() =>
    tidy(() => {
      const shape = [vocabSize, width];
      const identity = matrix(Array.from({ length: vocabSize }, (_, id) => [id, id] as const));
      const answers = script.slice(1).map((id, index) => [id, script[index] ?? 0] as const);
      model.embedTokens.weight.copy_(tensor(identity, { shape }));
      model.outputWeight().copy_(tensor(matrix(answers), { shape }));
      for (const layer of model.layers) {
        layer.attention.output.weight.zero_();
        assert.ok(layer.mlp instanceof Mlp, 'a llama has one feed-forward layer');
        layer.mlp.output.weight.zero_();
      }
    }),
  );
  return model;
}

const characters = createCharacterTokenizer({ characters: 'abcdefgh' });
const EOS = characters.eosTokenId ?? -1;

/** Completes 'a' with 'bcdefgh' and the end. */
async function alphabet(options: Partial<GenerateOptions> = {}) {
  const script = [...characters.encode('abcdefgh'), EOS];
  const [completion] = await generate({
    model: reciting(script, characters.vocabSize, EOS),
    tokenizer: characters,
    prompts: ['a'],
    maxNewTokens: 20,
    temperature: 0,
    ...options,
  });
  assert.ok(completion);
  return completion;
}

const bpe = createBpeTokenizer({
  texts: Array.from({ length: 9 }, () => 'hello'),
  vocabSize: 300,
  additionalTokens: ['<|user|>', '<|end|>'],
  chatTemplate:
    '{% for m in messages %}<|user|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|end|>{% endif %}',
});

function recitingBpe(text: string): { model: Decoder; tokenizer: Tokenizer } {
  const script = [...bpe.encode(text), bpe.eosTokenId ?? -1];
  return { model: reciting(script, bpe.vocabSize, bpe.eosTokenId ?? null), tokenizer: bpe };
}

describe('generate', () => {
  test('text is what was drawn, without the end token, which stays among the tokens', async () => {
    const { text, tokenIds, logprobs, finishReason } = await alphabet();
    assert.equal(text, 'bcdefgh');
    assert.deepEqual(tokenIds, [...characters.encode('bcdefgh'), EOS]);
    assert.equal(logprobs.length, tokenIds.length);
    assert.equal(finishReason, 'eos');
  });

  describe('stop texts', () => {
    test('may span tokens: the text ends before, the tokens after', async () => {
      const { text, tokenIds, finishReason } = await alphabet({ stop: ['de'] });
      assert.deepEqual([text, characters.decode(tokenIds), finishReason], ['bc', 'bcde', 'stop']);
    });

    test('may be as long as the whole completion', async () => {
      const { text, finishReason } = await alphabet({ stop: ['bcdefgh'] });
      assert.deepEqual([text, finishReason], ['', 'stop']);
    });

    test('the one that is complete first ends the text, and of those complete together the one that begins first', async () => {
      assert.equal((await alphabet({ stop: ['fg', 'de'] })).text, 'bc');
      assert.equal((await alphabet({ stop: ['d', 'cd'] })).text, 'b');
      assert.equal((await alphabet({ stop: ['cd', 'd'] })).text, 'b');
    });

    test('are not looked for in the prompt', async () => {
      const { text, finishReason } = await alphabet({ prompts: ['ab'], stop: ['b', 'bc'] });
      assert.deepEqual([text, finishReason], ['cdefgh', 'eos']);
    });

    test('a completion cut off in the middle of one keeps its beginning', async () => {
      const { text, finishReason } = await alphabet({ stop: ['cde'], maxNewTokens: 3 });
      assert.deepEqual([text, finishReason], ['bcd', 'length']);
    });

    test('are found inside a single token and inside a character of several tokens', async () => {
      assert.equal(bpe.encode('hello').length, 1);
      const [inside] = await generate({
        ...recitingBpe('1hello2'),
        prompts: ['1'],
        maxNewTokens: 8,
        temperature: 0,
        stop: ['ll'],
      });
      assert.deepEqual([inside?.text, inside?.finishReason], ['he', 'stop']);

      assert.equal(bpe.encode('€').length, 3);
      const [split] = await generate({
        ...recitingBpe('1xé€z'),
        prompts: ['1'],
        maxNewTokens: 12,
        temperature: 0,
        stop: ['€'],
      });
      assert.deepEqual([split?.text, split?.finishReason], ['xé', 'stop']);
    });

    test('may name a special token, which is no part of the text', async () => {
      const script = [...bpe.encode('1x'), ...bpe.encode('<|end|>'), ...bpe.encode('z')];
      const [completion] = await generate({
        model: reciting(script, bpe.vocabSize),
        tokenizer: bpe,
        prompts: ['1'],
        maxNewTokens: 12,
        temperature: 0,
        stop: ['<|end|>'],
      });
      assert.deepEqual([completion?.text, completion?.finishReason], ['x', 'stop']);
      assert.equal(completion?.tokenIds.length, 2);
    });
  });

  test('the tokenizer’s end token ends a completion of a model that names none', async () => {
    const script = [...characters.encode('abc'), EOS, ...characters.encode('d')];
    const model = reciting(script, characters.vocabSize);
    assert.deepEqual(endTokenIds(model, characters), [EOS]);
    const { text, finishReason } = await alphabet({ model });
    assert.deepEqual([text, finishReason], ['bc', 'eos']);
    const further = await alphabet({ model, eosTokenIds: [], maxNewTokens: 4 });
    assert.deepEqual([further.text, further.finishReason], ['bcd', 'length']);
  });

  test('a conversation is rendered by the chat template, with the header of the answer', async () => {
    const { model, tokenizer } = recitingBpe('1<|end|>2');
    const settings = { model, tokenizer, maxNewTokens: 4, temperature: 0 };
    const [chat] = await generate({ ...settings, prompts: [[{ role: 'user', content: '1' }]] });
    const [plain] = await generate({ ...settings, prompts: ['<|user|>1<|end|>'] });
    assert.equal(chat?.text, '2');
    assert.deepEqual(chat, plain);
  });

  test('completions come prompt-major, each with its text', async () => {
    const script = [...characters.encode('abcdefgh'), EOS];
    const completions = await generate({
      model: reciting(script, characters.vocabSize, EOS),
      tokenizer: characters,
      prompts: ['f', 'a', 'abc'],
      maxNewTokens: 20,
      temperature: 0,
      numCompletions: 2,
    });
    assert.deepEqual(
      completions.map(({ promptIndex, completionIndex, text }) => [
        promptIndex,
        completionIndex,
        text,
      ]),
      [
        [0, 0, 'gh'],
        [0, 1, 'gh'],
        [1, 0, 'bcdefgh'],
        [1, 1, 'bcdefgh'],
        [2, 0, 'defgh'],
        [2, 1, 'defgh'],
      ],
    );
  });

  describe('rejects', () => {
    test('an empty stop text', async () => {
      await assert.rejects(alphabet({ stop: ['a', ''] }), ValueRangeError);
    });

    test('a conversation without a chat template', async () => {
      await assert.rejects(
        alphabet({ prompts: [[{ role: 'user', content: 'a' }]] }),
        CheckpointError,
      );
    });
  });
});
