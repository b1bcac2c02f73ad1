import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { ROOT } from '../../test/root.js';
import { CheckpointError, ConfigError, ValueRangeError } from '../errors/index.js';
import {
  memory,
  noGrad,
  readSafetensors,
  tensor,
  writeSafetensors,
  type Tensor,
} from '../torch/index.js';
import { adapterConfigJson, parseAdapterConfig, type AdapterConfig } from './adapterConfig.js';
import {
  addLora,
  adaptedNames,
  loadModel,
  loadScalarModel,
  shareWeights,
  type LoraOptions,
} from './index.js';

const GOLDEN = join(ROOT, 'test/golden');
const LLAMA = join(GOLDEN, 'models/llama-tied');
const QWEN = join(GOLDEN, 'models/qwen2');
const root = mkdtempSync(join(tmpdir(), 'posttrain-adapters-'));
after(() => rmSync(root, { recursive: true }));
let folders = 0;

const PLAIN: LoraOptions = {
  ...{ rank: 2, alpha: 4, dropout: 0, rsLora: false, dora: false },
  ...{ targetModules: 'all-linear', modulesToSave: [] },
};
const options = (more: Partial<LoraOptions> = {}) => ({
  ...PLAIN,
  ...more,
  seed: 1,
  baseModel: LLAMA,
});

/** A copy of PEFT's adapter of the tied Llama, with other fields. */
function adapterFolder(fields: Record<string, unknown> = {}, name = 'lora', base = LLAMA): string {
  const folder = join(root, `adapter${folders++}`);
  cpSync(join(GOLDEN, 'adapters', name), folder, { recursive: true });
  const path = join(folder, 'adapter_config.json');
  const before = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  const config = { ...before, base_model_name_or_path: base, ...fields };
  writeFileSync(path, JSON.stringify(config));
  return folder;
}

async function rewritten(
  folder: string,
  change: (tensors: Map<string, Tensor>) => void,
): Promise<string> {
  const path = join(folder, 'adapter_model.safetensors');
  const file = readSafetensors(path);
  const tensors = new Map(file.names.map((name) => [name, file.tensor(name).clone()]));
  file.dispose();
  change(tensors);
  await writeSafetensors(path, tensors);
  return folder;
}

const refusedAs =
  (kind: new (message: string) => Error, message: RegExp) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, message);
    return true;
  };

describe('addLora', () => {
  test('trains A and B of every linear layer but the output layer, and nothing of the base', async () => {
    const model = await loadModel(QWEN);
    addLora(model, options());
    const trained = [...model.namedParameters()].filter(([, { requiresGrad }]) => requiresGrad);
    assert.equal(trained.length, 2 * 2 * 7);
    assert.deepEqual(
      trained.map(([name]) => name),
      [...model.trainedParameters().keys()],
    );
    assert.ok(
      trained.every(([name]) => /_proj\.lora_[AB]\.weight$/.test(name)),
      'by name',
    );
    model.dispose();
  });

  test('gives every layer an A of its own, and names the layers as PEFT does', async () => {
    const model = await loadModel(LLAMA);
    addLora(model, options());
    const [first, second] = [0, 1].map((layer) =>
      model.namedParameters().get(`model.layers.${layer}.mlp.up_proj.lora_A.weight`)?.toArray(),
    );
    assert.notDeepEqual(first, second);
    assert.deepEqual(model.adapter?.config.targetModules, [
      ...['down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj'],
    ]);
    model.dispose();
  });

  test('trains magnitudes and saved layers too; without an adapter all there is', async () => {
    const model = await loadModel(LLAMA);
    assert.equal(model.trainedParameters().size, model.namedParameters().size);
    addLora(
      model,
      options({ dora: true, targetModules: ['up_proj'], modulesToSave: ['model.norm'] }),
    );
    const parts = ['lora_A.weight', 'lora_B.weight', 'lora_magnitude_vector'];
    const names = [0, 1].flatMap((layer) =>
      parts.map((part) => `model.layers.${layer}.mlp.up_proj.${part}`),
    );
    assert.deepEqual([...model.trainedParameters().keys()].sort(), [...names, 'model.norm.weight']);
    model.dispose();
  });

  test('leaves the router of a mixture of experts as it is', async () => {
    const model = await loadModel(join(GOLDEN, 'families/qwen3-moe'));
    addLora(model, options());
    const adapted = [...model.trainedParameters().keys()];
    assert.ok(
      adapted.some((name) => name.includes('.experts.')),
      'experts have adapters',
    );
    assert.deepEqual(
      adapted.filter((name) => name.includes('.gate.')),
      [],
    );
    model.dispose();
  });

  test('changes no output, also with DoRA', async () => {
    const ids = tensor([[5, 8, 13]], { dtype: 'int64' });
    for (const dora of [false, true]) {
      const model = await loadModel(LLAMA);
      const before = noGrad(() => model.forward({ inputIds: ids }).logits);
      addLora(model, options({ dora }));
      expectClose(
        noGrad(() => model.forward({ inputIds: ids }).logits),
        before,
        { atol: 1e-5, rtol: 1e-5 },
      );
      model.dispose();
    }
  });

  test('names are whole, or what stands after a dot, or a regular expression for all of it', async () => {
    const model = await loadModel(LLAMA);
    const layersOf = (targetModules: LoraOptions['targetModules']): string[] =>
      adaptedNames(model, { targetModules, modulesToSave: [] }).layers;
    assert.deepEqual(layersOf(['mlp.up_proj']), [
      'model.layers.0.mlp.up_proj',
      'model.layers.1.mlp.up_proj',
    ]);
    assert.deepEqual(layersOf(['model.layers.1.self_attn.q_proj']), [
      'model.layers.1.self_attn.q_proj',
    ]);
    assert.deepEqual(layersOf('.*\\.0\\.self_attn\\.[qv]_proj'), [
      'model.layers.0.self_attn.q_proj',
      'model.layers.0.self_attn.v_proj',
    ]);
    assert.deepEqual(adaptedNames(model, { ...PLAIN, modulesToSave: ['input_layernorm'] }).saved, [
      'model.layers.0.input_layernorm.weight',
      'model.layers.1.input_layernorm.weight',
    ]);
    model.dispose();
  });

  describe('rejects', () => {
    const cases: [string, Partial<LoraOptions>, RegExp][] = [
      [
        'a name that no layer has, and tells those there are',
        { targetModules: ['q_proj', 'wq'] },
        /^addLora: expected targetModules to name layers of the model, received "wq"\. It has k_proj, o_proj, q_proj, v_proj, up_proj, down_proj, gate_proj\.$/,
      ],
      [
        'a name with a slip, and tells the nearest first, whatever stands before its dot',
        { targetModules: ['self_attn.Q_prj'] },
        /received "self_attn\.Q_prj"\. It has q_proj, k_proj, o_proj, v_proj, up_proj, /,
      ],
      ['a part of a name', { targetModules: ['proj'] }, /received "proj"/],
      [
        'an expression for a part of names',
        { targetModules: 'q_proj' },
        /received "q_proj", which names none/,
      ],
      [
        'what is no expression',
        { targetModules: '(' },
        /expected targetModules to be a regular expression, received "\("/,
      ],
      ['a layer that is not linear', { targetModules: ['norm'] }, /but model\.norm is none/],
      [
        'a saved layer that there is not',
        { modulesToSave: ['head'] },
        /expected modulesToSave to name layers of the model, received "head"\. It has 0, 1, mlp, norm, k_proj/,
      ],
      [
        'the embedding of a tied output layer',
        { modulesToSave: ['embed_tokens'] },
        /expected modulesToSave without model\.embed_tokens/,
      ],
    ];
    for (const [claim, more, message] of cases)
      test(claim, async () => {
        const model = await loadModel(LLAMA);
        assert.throws(() => addLora(model, options(more)), refusedAs(ConfigError, message));
        assert.equal(model.adapter, null);
        model.dispose();
      });
    test('a model that has an adapter', async () => {
      const model = await loadModel(LLAMA);
      addLora(model, options());
      assert.throws(
        () => addLora(model, options()),
        refusedAs(
          ValueRangeError,
          /^addLora: expected a model without an adapter, received one\.$/,
        ),
      );
      model.dispose();
    });
  });
});

describe('shareWeights', () => {
  test('copies nothing but the layers that are saved, and either lives without the other', async () => {
    const model = await loadModel(QWEN);
    const before = memory().liveBytes;
    const other = shareWeights(model, ['lm_head']);
    const copied = memory().liveBytes - before;
    assert.ok(copied >= 96 * 48 * 4 && copied < 96 * 48 * 4 + 200, `${copied} bytes`);
    const ids = tensor([[5, 8, 13]], { dtype: 'int64' });
    const logits = noGrad(() => model.forward({ inputIds: ids }).logits).toArray();
    model.dispose();
    assert.deepEqual(noGrad(() => other.forward({ inputIds: ids }).logits).toArray(), logits);
    other.dispose();
  });
});

describe('the folder of an adapter', () => {
  test('finds its base as it is written, from its own folder, or where it is told', async () => {
    for (const [base, given] of [
      [LLAMA, undefined],
      ['../../models/llama-tied', undefined],
      ['/nowhere', LLAMA],
    ] as const) {
      const folder = base.startsWith('..')
        ? join(GOLDEN, 'adapters/lora')
        : adapterFolder({}, 'lora', base);
      const model = await loadModel(folder, { base: given });
      assert.equal(model.adapter?.config.baseModel, LLAMA);
      model.dispose();
    }
  });

  const refused = (
    claim: string,
    folder: () => string | Promise<string>,
    message: RegExp,
  ): void => {
    test(claim, async () => {
      await assert.rejects(loadModel(await folder()), refusedAs(CheckpointError, message));
    });
  };
  refused(
    'without its base is refused',
    () => adapterFolder({}, 'lora', '/nowhere/base'),
    /^loadModel: expected the base model of the adapter .*, but there is no folder \/nowhere\/base\.$/,
  );
  refused(
    'that names no base is refused',
    () => adapterFolder({ base_model_name_or_path: null }),
    /adapter_config\.json names none\.$/,
  );
  refused(
    'on an adapter is refused',
    () => adapterFolder({}, 'lora', adapterFolder()),
    /is an adapter itself\.$/,
  );
  refused(
    'with another rank than its tensors is refused',
    () => adapterFolder({ r: 4 }),
    /\d+ of another shape than adapter_config\.json says: base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight \[3, 48\] instead of \[4, 48\]/,
  );
  refused(
    'with a tensor missing, and one too many, is refused',
    () =>
      rewritten(adapterFolder(), (tensors) => {
        const name = 'base_model.model.model.layers.1.mlp.up_proj.lora_B.weight';
        tensors.set('base_model.model.lm_head.weight', tensors.get(name) as Tensor);
        tensors.delete(name);
      }),
    /1 missing: base_model\.model\.model\.layers\.1\.mlp\.up_proj\.lora_B\.weight; 1 not part of this model: base_model\.model\.lm_head\.weight/,
  );
  refused(
    'without tensors is refused',
    () => {
      const folder = join(root, `adapter${folders++}`);
      mkdirSync(folder);
      cpSync(join(adapterFolder(), 'adapter_config.json'), join(folder, 'adapter_config.json'));
      return folder;
    },
    /expected adapter_model\.safetensors in .*, there is none\.$/,
  );
  refused(
    'of a reward model is refused as a language model',
    () => adapterFolder({}, 'scalar', QWEN),
    /expected task_type CAUSAL_LM in .*, received SEQ_CLS\.$/,
  );

  test('with the output layer of another model is refused', async () => {
    const folder = adapterFolder({}, 'head', QWEN);
    await rewritten(folder, (tensors) => {
      tensors.get('base_model.model.lm_head.base_layer.weight')?.mul_(2);
    });
    await assert.rejects(
      loadModel(folder),
      refusedAs(CheckpointError, /to be the base model's lm_head, received other values\.$/),
    );
  });

  test('of a language model is refused as a reward model', async () => {
    await assert.rejects(
      loadScalarModel(adapterFolder()),
      refusedAs(
        CheckpointError,
        /expected a scalar head in the adapter .*, there is no tensor score\.weight\.$/,
      ),
    );
  });

  test('a base beside a model that is no adapter is refused', async () => {
    await assert.rejects(
      loadModel(LLAMA, { base: QWEN }),
      refusedAs(CheckpointError, /expected the folder of an adapter beside the base model/),
    );
  });

  test('of a reward model keeps the constant of its scores and the padding token', async () => {
    const model = await loadScalarModel(adapterFolder({}, 'scalar', QWEN));
    model.shiftScores(-1.25);
    const folder = join(root, 'shifted');
    await model.save(folder);
    const again = await loadScalarModel(folder);
    assert.equal(again.scoreShift, -1.25);
    assert.equal(again.config.padTokenId, 2);
    for (const one of [model, again]) one.dispose();
  });
});

describe('parseAdapterConfig', () => {
  const parse = (fields: Record<string, unknown>): unknown =>
    parseAdapterConfig({ peft_type: 'LORA', target_modules: ['q_proj'], ...fields }, 'a.json');
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ peft_type: 'IA3' }, /^a\.json: expected peft_type to be "LORA", received "IA3"\.$/],
    [{ bias: 'all' }, /^a\.json: expected bias to be "none", received "all"\.$/],
    [
      { use_qalora: true },
      /^a\.json: expected use_qalora to be off, received true, which posttrain does not have\.$/,
    ],
    [{ layers_to_transform: [1] }, /expected layers_to_transform to be off, received \[1\]/],
    [{ trainable_token_indices: [5] }, /expected trainable_token_indices to be off/],
    [{ init_lora_weights: 'pissa' }, /expected init_lora_weights to be true, false/],
    [
      { task_type: 'SEQ_2_SEQ_LM' },
      /expected task_type to be one of CAUSAL_LM, SEQ_CLS, TOKEN_CLS/,
    ],
    [{ r: 0 }, /expected r to be a positive integer, received 0/],
    [{ lora_alpha: -1 }, /expected lora_alpha to be a positive number/],
    [{ target_modules: 3 }, /expected target_modules to be a list of names or a text/],
    [{ modules_to_save: [1] }, /expected modules_to_save to be a list of names/],
    [{ rank_pattern: { q: 0 } }, /expected rank_pattern to be an object of positive integers/],
    [{ rank_pattern: { q: 2.5 } }, /expected rank_pattern to be an object of positive integers/],
    [{ alpha_pattern: { q: -1 } }, /expected alpha_pattern to be an object of positive numbers/],
    [
      { rank_pattern: { '(': 2 } },
      /^a\.json: expected rank_pattern to be an object whose keys are regular expressions, received \{"\(":2\}\.$/,
    ],
    [
      { alpha_pattern: { q: 2.5, '[': 2 } },
      /expected alpha_pattern to be an object whose keys are regular expressions/,
    ],
  ];
  for (const [fields, message] of cases)
    test(`refuses ${JSON.stringify(fields)}`, () => {
      assert.throws(() => parse(fields), refusedAs(CheckpointError, message));
    });
  test('reads what adapterConfigJson writes, with everything set; first values of EVA are taken', () => {
    const config: AdapterConfig = {
      ...{ baseModel: 'lab/base', revision: 'main', task: 'SEQ_CLS', rank: 3, alpha: 5 },
      ...{ dropout: 0.25, rsLora: true, dora: true, targetModules: ['q_proj'] },
      ...{ modulesToSave: ['norm'], rankPattern: { q: 2 }, alphaPattern: { k: 7 } },
    };
    const json = adapterConfigJson(config, true);
    assert.deepEqual(parseAdapterConfig({ ...json, init_lora_weights: 'eva' }, 'a.json'), config);
    assert.equal(json['fan_in_fan_out'], true);
    assert.equal(
      adapterConfigJson({ ...config, modulesToSave: [] }, false)['modules_to_save'],
      null,
    );
  });
  test('takes what is off, and the defaults of PEFT', () => {
    const off = {
      use_qalora: false,
      layer_replication: null,
      loftq_config: {},
      target_parameters: [],
    };
    assert.deepEqual(parse(off), {
      ...{
        baseModel: null,
        revision: null,
        task: null,
        rank: 8,
        alpha: 8,
        dropout: 0,
        rsLora: false,
        dora: false,
      },
      ...{ targetModules: ['q_proj'], modulesToSave: [], rankPattern: {}, alphaPattern: {} },
    });
  });
});
