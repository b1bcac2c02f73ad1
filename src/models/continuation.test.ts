import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { arange, autocast, memory, noGrad, tensor, tidy, type Tensor } from '../torch/index.js';
import { planContinuation, continuedPlaces } from './continuation.js';
import {
  addLora,
  backwardTokenLogprobs,
  createModel,
  parseDecoderConfig,
  tokenLogprobs,
  type Decoder,
  type TokenLogprobsInput,
} from './index.js';

const SIZES = {
  vocab_size: 31,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  initializer_range: 0.3,
};
/** One of every kind of difference that attention, positions and layers have. */
const FAMILIES: Readonly<Record<string, Record<string, unknown>>> = {
  llama: { model_type: 'llama', ...SIZES },
  'mistral, a window of 4': { model_type: 'mistral', ...SIZES, sliding_window: 4 },
  'mistral, a window of one less than a prompt': {
    ...{ model_type: 'mistral', ...SIZES, sliding_window: 5 },
  },
  'qwen3, normalised heads': { model_type: 'qwen3', ...SIZES, head_dim: 8 },
  'gemma2, capped scores, two kinds of layers': {
    ...{ model_type: 'gemma2', ...SIZES, head_dim: 8, sliding_window: 3 },
    ...{ query_pre_attn_scalar: 8, attn_logit_softcapping: 5, final_logit_softcapping: 7 },
  },
  'gemma3, two rotations': {
    ...{ model_type: 'gemma3_text', ...SIZES, head_dim: 8, sliding_window: 3 },
    ...{ query_pre_attn_scalar: 8, layer_types: ['sliding_attention', 'full_attention'] },
  },
  'phi3, one projection': { model_type: 'phi3', ...SIZES },
  'gpt2, learned positions': {
    ...{ model_type: 'gpt2', vocab_size: 31, n_embd: 16, n_layer: 2, n_head: 4 },
    ...{ n_positions: 64, initializer_range: 0.3 },
  },
  'qwen3_moe, experts': {
    ...{ model_type: 'qwen3_moe', ...SIZES, head_dim: 8, num_experts: 4 },
    ...{ num_experts_per_tok: 2, moe_intermediate_size: 12, norm_topk_prob: true },
  },
};
const modelOf = (family: string): Decoder =>
  createModel(parseDecoderConfig(FAMILIES[family] ?? {}), { seed: 3, dtype: 'float64' });

const A = [5, 9, 2, 7, 11, 6];
const B = [8, 3];
/** Prompt and completion of each row: two prompts of different length, completions of 0 to 9 tokens. */
const ROWS: readonly (readonly [readonly number[], readonly number[]])[] = [
  [A, [4, 12, 1]],
  [B, [3, 11, 6, 2, 9, 14, 7, 8, 1]],
  [A, [10]],
  [A, [14, 13, 20, 21, 22, 23, 24, 25]],
  [B, []],
  [A, [7, 9, 2]],
  [B, [29, 28]],
];
const SHARED = [0, 1, 0, 0, 1, 0, 1];
const ADAPTER = {
  ...{ seed: 1, baseModel: 'base', rank: 3, alpha: 6, dropout: 0, rsLora: false, dora: true },
  ...{ modulesToSave: [], targetModules: 'all-linear' as const },
};

function inputOf(
  rows: typeof ROWS,
  options: Partial<TokenLogprobsInput> & { junk?: number } = {},
): TokenLogprobsInput {
  const { junk = 30, ...rest } = options;
  const length = Math.max(...rows.map(([prompt, drawn]) => prompt.length + drawn.length));
  const ids = rows.map(([prompt, drawn]) => [...prompt, ...drawn]);
  return {
    inputIds: tensor(
      ids.map((row) => [...row, ...Array<number>(length - row.length).fill(junk)]),
      { dtype: 'int64' },
    ),
    promptLengths: rows.map(([prompt]) => prompt.length),
    lengths: ids.map((row) => row.length),
    ...rest,
  };
}

/** Loss, log-probabilities and gradients of an uneven loss on log-probabilities and entropies. */
function passOf(model: Decoder, input: TokenLogprobsInput) {
  const found = backwardTokenLogprobs(model, { ...input, withEntropy: true }, (scored) => {
    const weights = tensor(
      Array.from({ length: scored.logprobs.numel }, (_, at) => Math.sin(at + 1)),
      { shape: scored.logprobs.shape, dtype: 'float64' },
    );
    const loss = scored.logprobs
      .square()
      .mul(weights)
      .sum()
      .add((scored.entropy ?? weights).mul(weights).sum());
    return { loss, logprobs: scored.logprobs.detach() };
  });
  const gradients = [...model.namedParameters()].map(([name, parameter]) => {
    const values = parameter.grad?.toArray() ?? null;
    parameter.grad = null;
    return [name, values] as const;
  });
  return { logprobs: found.logprobs.toArray(), loss: found.loss.item(), gradients };
}

describe('rows that share prompts', () => {
  for (const family of Object.keys(FAMILIES))
    for (const gradientCheckpointing of [false, true])
      test(`have the values and gradients of rows by themselves: ${family}${gradientCheckpointing ? ', computed again in the backward pass' : ''}`, () => {
        const model = modelOf(family);
        model.compute = { ...model.compute, gradientCheckpointing };
        tidy(() => {
          const apart = passOf(model, inputOf(ROWS));
          const shared = passOf(model, inputOf(ROWS, { sharedPrompts: SHARED }));
          expectClose(tensor(shared.logprobs, { dtype: 'float64' }), apart.logprobs, {
            rtol: 1e-11,
            atol: 1e-12,
          });
          assert.ok(Math.abs(shared.loss - apart.loss) < 1e-10 * Math.abs(apart.loss));
          shared.gradients.forEach(([name, gradient], index) => {
            const expected = apart.gradients[index]?.[1] ?? null;
            assert.equal(gradient === null, expected === null, name);
            if (gradient !== null && expected !== null)
              expectClose(tensor(gradient, { dtype: 'float64' }), expected, {
                rtol: 1e-9,
                atol: 1e-10,
              });
          });
        });
        model.dispose();
      });

  for (const family of [
    ...Object.keys(FAMILIES),
    'llama, biases',
    'qwen2, biases of projections alone',
  ] as const)
    for (const lora of [false, true])
      test(`in float32, where less is kept, are as in float64: ${family}${lora ? ', with an adapter' : ''}`, () => {
        const raw = FAMILIES[family] ?? {
          ...SIZES,
          ...(family.startsWith('llama')
            ? { model_type: 'llama', attention_bias: true, mlp_bias: true }
            : { model_type: 'qwen2' }),
        };
        const passes = (['float64', 'float32'] as const).map((dtype) => {
          const model = createModel(parseDecoderConfig(raw), { seed: 3, dtype });
          if (lora) addLora(model, ADAPTER);
          noGrad(() =>
            tidy(() => {
              for (const [name, parameter] of model.namedParameters())
                if (/bias$|lora_B/.test(name))
                  parameter.copy_(arange(parameter.numel).sin().view(parameter.shape));
            }),
          );
          const input = inputOf(ROWS, { sharedPrompts: SHARED });
          const found = tidy(() => passOf(model, input));
          model.dispose();
          return found;
        });
        const [exact, found] = passes as [(typeof passes)[0], (typeof passes)[0]];
        assert.ok(Math.abs(found.loss - exact.loss) < 1e-4 * Math.abs(exact.loss));
        tidy(() => {
          found.gradients.forEach(([name, gradient], index) => {
            const expected = exact.gradients[index]?.[1] ?? null;
            assert.equal(gradient === null, expected === null, name);
            if (gradient === null || expected === null) return;
            const [own, other] = [gradient, expected].map((each) =>
              tensor(each, { dtype: 'float64' }),
            ) as [Tensor, Tensor];
            const distance = own.sub(other).norm().item();
            assert.ok(distance < 2e-4 * other.norm().item() + 1e-5, `${name}: ${distance}`);
          });
        });
      });

  test('compute each prompt once', () => {
    const model = modelOf('llama');
    const read = model.continuedStates.bind(model);
    let tokens = 0;
    model.continuedStates = (input) => {
      tokens += input.inputIds.numel;
      return read(input);
    };
    tidy(() => noGrad(() => tokenLogprobs(model, inputOf(ROWS, { sharedPrompts: SHARED }))));
    // 2 prompts of 6 columns; completions less their last tokens: 8 and 7, two rows of 2, one of 1.
    assert.equal(tokens, 12 + 2 * 8 + 2 * 2 + 1);
    model.dispose();
  });

  test('under an autocast of the caller are computed in bfloat16', () => {
    const model = createModel(parseDecoderConfig(FAMILIES['llama'] ?? {}), { seed: 3 });
    tidy(() => {
      const run = (): Tensor =>
        noGrad(() => tokenLogprobs(model, inputOf(ROWS, { sharedPrompts: SHARED })).logprobs);
      const exact = run();
      const found = autocast({ device: 'cpu', dtype: 'bfloat16' }, run);
      const distance = found.sub(exact).norm().item();
      assert.ok(distance > 0 && distance < 0.03 * exact.norm().item(), `${distance}`);
    });
    model.dispose();
  });

  test('do not read their padding', () => {
    const model = modelOf('llama');
    tidy(() => {
      const run = (junk: number) =>
        tokenLogprobs(model, inputOf(ROWS, { sharedPrompts: SHARED, junk })).logprobs.toArray();
      assert.deepEqual(run(30), run(17));
    });
    model.dispose();
  });

  test('leave no tensor behind', () => {
    const model = modelOf('gemma2, capped scores, two kinds of layers');
    tidy(() => passOf(model, inputOf(ROWS, { sharedPrompts: SHARED })));
    const { liveTensors } = memory();
    tidy(() => passOf(model, inputOf(ROWS, { sharedPrompts: SHARED })));
    assert.equal(memory().liveTensors, liveTensors);
    model.dispose();
  });

  test('are refused with another number of numbers', () => {
    const model = modelOf('llama');
    assert.throws(
      () => tidy(() => tokenLogprobs(model, inputOf(ROWS, { sharedPrompts: [0, 1] }))),
      /expected 7 sharedPrompts, one per row, and no packed rows, received 2/,
    );
    model.dispose();
  });

  test('are refused where they cannot be the same', () => {
    const model = modelOf('llama');
    const sharedPrompts = [0, 0, 0, 0, 1, 0, 1];
    assert.throws(
      () => tidy(() => tokenLogprobs(model, inputOf(ROWS, { sharedPrompts }))),
      /rows with sharedPrompts 0 to begin with the same prompt of 6 tokens, received promptLengths\[1\] of 2/,
    );
    model.dispose();
  });

  test('are computed by themselves where frequencies depend on the length of a row', () => {
    const scaled = {
      rope_scaling: { rope_type: 'dynamic', factor: 2 },
      max_position_embeddings: 8,
    };
    const config = parseDecoderConfig({ ...FAMILIES['llama'], ...scaled });
    const model = createModel(config, { seed: 3, dtype: 'float64' });
    tidy(() => {
      const apart = passOf(model, inputOf(ROWS));
      const shared = passOf(model, inputOf(ROWS, { sharedPrompts: SHARED }));
      assert.deepEqual(shared, apart);
      assert.throws(
        () =>
          model.continuedStates({
            inputIds: tensor([1, 2], { dtype: 'int64' }),
            prompts: { columns: 1, lengths: [1] },
            parts: [{ columns: 1, promptOf: [0] }],
          }),
        /do not depend on the length of a row/,
      );
    });
    model.dispose();
  });
});

describe('planContinuation', () => {
  const plan = (rows: readonly (readonly [prompt: number, length: number, shared: number])[]) =>
    planContinuation({
      promptLengths: rows.map(([prompt]) => prompt),
      lengths: rows.map(([, length]) => length),
      sharedPrompts: rows.map(([, , shared]) => shared),
    });

  test('there is none where no prompt is shared, or too little is saved', () => {
    assert.equal(
      plan([
        [9, 12, 0],
        [9, 12, 1],
      ]),
      null,
    );
    // 1 + 2·19 of 2·20 tokens
    assert.equal(
      plan([
        [1, 21, 0],
        [1, 21, 0],
      ]),
      null,
    );
  });

  test('rows of nearly the same length stand in one part, the longest first', () => {
    const found = plan([
      [8, 8 + 7, 4],
      [8, 8 + 11, 4],
      [8, 8 + 9, 4],
      [8, 8 + 1, 4],
      [8, 8 + 8, 4],
    ]);
    assert.ok(found);
    // Own tokens 6, 10, 8, 0 and 7: 8 is 0.8 of 10, 7 is not.
    assert.deepEqual(found.partRows, [
      [1, 2],
      [4, 0],
    ]);
    assert.deepEqual(found.parts, [
      { columns: 10, promptOf: [0, 0] },
      { columns: 7, promptOf: [0, 0] },
    ]);
    assert.equal(found.tokens, 8 + 20 + 14);
  });

  test('rows of one prompt stand beside each other in a part, whichever is the longest', () => {
    const found = plan([
      [8, 8 + 10, 4],
      [8, 8 + 11, 9],
      [8, 8 + 10, 4],
      [8, 8 + 10, 9],
    ]);
    assert.ok(found);
    assert.deepEqual(found.partRows, [[0, 2, 1, 3]]);
    assert.deepEqual(found.parts, [{ columns: 10, promptOf: [0, 0, 1, 1] }]);
  });

  test('says where tokens come from and which state is before each', () => {
    // Prompts of 3 and 2 tokens; completions of 3, 1 and 2.
    const rows = { promptLengths: [3, 2, 3], lengths: [6, 3, 5] };
    const found = planContinuation({ ...rows, sharedPrompts: [0, 1, 0] });
    assert.ok(found);
    const { sources, predictors } = continuedPlaces(found, rows, 6);
    // Row r begins at 6r. The second prompt is padded with its last token, the third row with its last one.
    assert.deepEqual(sources, [0, 1, 2, 6, 7, 7, 3, 4, 15]);
    assert.deepEqual(found.partRows, [[0], [2]]);
    assert.deepEqual(predictors, [2, 6, 7, 4, 2, 8]);
  });

  test('takes padding from the row itself, also at the end of all rows', () => {
    // Own tokens 10 and 8 in one part; the second row ends where the rows end, and its part goes on.
    const rows = { promptLengths: [3, 5, 5], lengths: [14, 7, 14] };
    const found = planContinuation({ ...rows, sharedPrompts: [0, 1, 1] });
    assert.ok(found);
    assert.deepEqual(found.partRows, [[0, 2], [1]]);
    const { sources } = continuedPlaces(found, rows, 14);
    assert.equal(Math.max(...sources), 3 * 14 - 1);
    assert.deepEqual(sources.slice(20, 30), [33, 34, 35, 36, 37, 38, 39, 40, 41, 41]);
  });
});
