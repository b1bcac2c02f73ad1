import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { expectClose } from '../../test/expect.js';
import { tinyModel, tinyPrompts, tinyTokenizer } from '../../test/tinyRun.js';
import { rowsFromObjects, tokenizePrompts } from '../data/index.js';
import type { Environment, EpisodeStart, ModelTurn } from '../environments/index.js';
import { createModel, makeDecoderConfig, tokenLogprobs, type Decoder } from '../models/index.js';
import { createBpeTokenizer } from '../tokenizers/index.js';
import { deriveSeed, memory, noGrad, tensor, tidy } from '../torch/index.js';
import { sample } from './index.js';
import { sampleEpisodes, type Episode, type EpisodeOptions } from './episodes.js';

const tokenizer = tinyTokenizer();
const EOS = tokenizer.eosTokenId ?? -1;

/** Answers every turn with its number of letters, and lets the model go on. */
const counting: Environment<number> = {
  name: 'counting',
  stop: [':'],
  reset: () => 0,
  step(turns, { text }) {
    const observation = `${'abcd'[turns] ?? 'd'}${'z'.repeat(text.length)}:`;
    return { state: turns + 1, observation, done: false };
  },
};

function options(changes: Partial<EpisodeOptions> = {}): EpisodeOptions {
  return {
    policy: tinyModel(),
    tokenizer,
    prompts: tinyPrompts().slice(0, 3),
    numCompletions: 4,
    sampling: { maxNewTokens: 4, temperature: 0.7 },
    seed: 9,
    environment: counting,
    maxTurns: 3,
    timeoutSeconds: 5,
    concurrency: 4,
    ...changes,
  };
}

/** An environment that never ends an episode, with other parts. */
function environment(changes: Partial<Environment>): Environment {
  return { ...(counting as Environment), ...changes };
}

/** The tokens of an episode cut where the speaker changes. */
function parts({ tokenIds, completionMask }: Episode): { mask: number; ids: number[] }[] {
  const found: { mask: number; ids: number[] }[] = [];
  tokenIds.forEach((id, index) => {
    const mask = completionMask[index] ?? NaN;
    if (found.at(-1)?.mask !== mask) found.push({ mask, ids: [] });
    found.at(-1)?.ids.push(id);
  });
  return found;
}

/** Log-probabilities of an episode's tokens as the trainer computes them: one pass over all of it, no cache. */
function recomputed(
  policy: Decoder,
  promptIds: readonly number[],
  { tokenIds, supports }: Episode,
  temperature: number,
): number[] {
  const ids = [...promptIds, ...tokenIds];
  return noGrad(() =>
    tidy(() => {
      const inputIds = tensor(Int32Array.from(ids), { shape: [1, ids.length], dtype: 'int64' });
      const { logprobs } = tokenLogprobs(policy, {
        inputIds,
        promptLengths: [promptIds.length],
        lengths: [ids.length],
        temperature,
        ...(supports && { supports: [supports] }),
      });
      return Array.from(logprobs.toTypedArray());
    }),
  );
}

/** Compares what the sampler reported with one pass over the whole episode, at the model's tokens. */
function expectRatioOne(given: EpisodeOptions, episodes: readonly Episode[]): void {
  for (const episode of episodes) {
    const promptIds = given.prompts[episode.promptIndex]?.inputIds ?? [];
    const again = recomputed(given.policy, promptIds, episode, given.sampling.temperature);
    const counted = (values: readonly number[]): number[] =>
      values.filter((_, index) => episode.completionMask[index] === 1);
    expectClose(counted(episode.logprobs), counted(again), { rtol: 0, atol: 1e-5 });
  }
}

describe('without an environment', () => {
  test('is what one call of sample draws', async () => {
    const given = options({ environment: undefined });
    const { episodes, failures } = await sampleEpisodes(given);
    const drawn = await sample({
      model: given.policy,
      promptIds: given.prompts.map(({ inputIds }) => inputIds),
      numCompletions: 4,
      ...given.sampling,
      seed: 9,
    });
    assert.deepEqual(failures, []);
    assert.deepEqual(
      episodes,
      drawn.map((completion) => ({
        ...completion,
        completionMask: completion.tokenIds.map(() => 1),
        turns: [
          {
            role: 'model',
            text: tokenizer.decode(completion.tokenIds, { skipSpecialTokens: true }),
          },
        ],
        failed: false,
      })),
    );
  });

  test('the tokenizer’s end token ends an episode of a model that names none', async () => {
    const policy = createModel({ ...tinyModel().config, eosTokenIds: [] }, { seed: 1 });
    const { episodes } = await sampleEpisodes(
      options({ policy, environment: undefined, numCompletions: 16 }),
    );
    const ended = episodes.filter(({ finishReason }) => finishReason === 'eos');
    assert.ok(ended.length > 0);
    assert.ok(ended.every(({ tokenIds }) => tokenIds.at(-1) === EOS));
  });
});

describe('with an environment', () => {
  test('episodes come prompt-major, and know their places', async () => {
    const { episodes } = await sampleEpisodes(options());
    assert.deepEqual(
      episodes.map(({ promptIndex, completionIndex }) => [promptIndex, completionIndex]),
      [0, 1, 2].flatMap((prompt) => [0, 1, 2, 3].map((completion) => [prompt, completion])),
    );
  });

  test('the first turn is that of an episode without one, up to the stop text', async () => {
    const { episodes } = await sampleEpisodes(options());
    const { episodes: alone } = await sampleEpisodes(options({ environment: undefined }));
    episodes.forEach((episode, index) => {
      const first = parts(episode)[0]?.ids ?? [];
      assert.deepEqual(first, alone[index]?.tokenIds.slice(0, first.length));
    });
  });

  test('the mask is 1 at what the model drew and 0 at observations, whose log-probabilities are 0', async () => {
    const { episodes, failures } = await sampleEpisodes(options());
    assert.deepEqual(failures, []);
    assert.ok(episodes.some(({ turns }) => turns.length === 5));
    for (const episode of episodes) {
      const { tokenIds, logprobs, completionMask, turns } = episode;
      assert.equal(logprobs.length, tokenIds.length);
      assert.equal(completionMask.length, tokenIds.length);
      assert.deepEqual(
        parts(episode).map(({ mask, ids }) => ({
          role: mask === 1 ? 'model' : 'environment',
          text: tokenizer.decode(ids, { skipSpecialTokens: true }),
        })),
        turns,
      );
      logprobs.forEach((value, index) => {
        assert.ok(completionMask[index] === 1 ? value < 0 : value === 0);
      });
      turns.forEach(({ role, text }, index) => {
        if (role === 'model') return;
        const letter = 'abcd'[(index - 1) / 2];
        assert.equal(text, `${letter}${'z'.repeat(turns[index - 1]?.text.length ?? -1)}:`);
      });
    }
  });

  test('over three turns the sampler’s log-probabilities are those of one pass over the episode', async () => {
    const given = options();
    const { episodes } = await sampleEpisodes(given);
    expectRatioOne(given, episodes);
  });

  test('the same with truncated sampling and the kept supports', async () => {
    const given = options({
      sampling: { maxNewTokens: 4, temperature: 0.7, topP: 0.7, topK: 6, minP: 0.02 },
      keepSupport: true,
    });
    const { episodes } = await sampleEpisodes(given);
    for (const { supports, completionMask } of episodes) {
      assert.deepEqual(
        supports?.map((support) => (support === null ? 0 : 1)),
        completionMask,
      );
    }
    assert.ok(episodes.some(({ completionMask }) => completionMask.includes(0)));
    expectRatioOne(given, episodes);
    const { episodes: without } = await sampleEpisodes({ ...given, keepSupport: false });
    assert.ok(without.every((episode) => !('supports' in episode)));
    assert.deepEqual(
      without.map(({ tokenIds }) => tokenIds),
      episodes.map(({ tokenIds }) => tokenIds),
    );
  });

  test('each later turn is drawn after all tokens so far, with a seed of its turn and place', async () => {
    const given = options();
    const { episodes } = await sampleEpisodes(given);
    let compared = 0;
    for (const [index, episode] of episodes.entries()) {
      let soFar = given.prompts[episode.promptIndex]?.inputIds ?? [];
      let turn = 0;
      for (const { mask, ids } of parts(episode)) {
        if (mask === 1 && turn > 0) {
          const [drawn] = await sample({
            ...given.sampling,
            model: given.policy,
            promptIds: [soFar],
            rowSeeds: [deriveSeed(9, 'turn', turn, index)],
            shouldStop: (drawnIds) => tokenizer.decode([drawnIds.at(-1) ?? 0]) === ':',
          });
          assert.deepEqual(ids, drawn?.tokenIds);
          compared++;
        }
        turn += mask;
        soFar = [...soFar, ...ids];
      }
    }
    assert.ok(compared > 12);
  });

  test('what an episode draws does not depend on which others are still running', async () => {
    const picky = environment({
      reset: ({ prompt }) => prompt,
      step: (prompt) => ({ state: prompt, observation: 'z:', done: prompt !== 'bc:' }),
    });
    const all = environment({
      reset: () => 0,
      step: () => ({ state: 0, observation: 'z:', done: false }),
    });
    const { episodes } = await sampleEpisodes(options({ environment: picky }));
    const { episodes: beside } = await sampleEpisodes(options({ environment: all }));
    assert.ok(episodes.slice(4, 8).some(({ turns }) => turns.length === 5));
    const drawn = (given: readonly Episode[]) => given.slice(4, 8).map(({ tokenIds }) => tokenIds);
    assert.deepEqual(drawn(episodes), drawn(beside));
  });

  test('the seed decides everything', async () => {
    const { episodes } = await sampleEpisodes(options());
    assert.deepEqual((await sampleEpisodes(options())).episodes, episodes);
    assert.notDeepEqual((await sampleEpisodes(options({ seed: 10 }))).episodes, episodes);
  });

  test('sampled ids stay as they were drawn where their text would be cut into others', async () => {
    const bpe = createBpeTokenizer({ texts: ['hello hello hello'], vocabSize: 280 });
    const policy = createModel(
      makeDecoderConfig({
        vocabSize: bpe.vocabSize,
        hiddenSize: 16,
        intermediateSize: 24,
        numLayers: 1,
        numHeads: 2,
        tieWordEmbeddings: true,
        maxPositionEmbeddings: 64,
        initializerRange: 0.3,
        eosTokenId: bpe.eosTokenId ?? null,
      }),
      { seed: 3 },
    );
    const rows = rowsFromObjects([{ prompt: 'hello' }, { prompt: ' hell' }]);
    const { prompts } = tokenizePrompts(rows, bpe, { maxPromptLength: 8 });
    const given = options({
      policy,
      tokenizer: bpe,
      prompts,
      sampling: { maxNewTokens: 8, temperature: 0.9 },
      environment: environment({
        stop: ['#'],
        step: () => ({ state: 0, observation: 'hello', done: false }),
      }),
    });
    const { episodes } = await sampleEpisodes(given);
    const differing = episodes.filter(({ tokenIds }) => {
      const again = bpe.encode(bpe.decode(tokenIds), { addSpecialTokens: false });
      return again.join() !== tokenIds.join();
    });
    assert.ok(differing.length > 0);
    const { episodes: alone } = await sampleEpisodes({ ...given, environment: undefined });
    episodes.forEach((episode, index) => {
      const [first, observed] = parts(episode);
      assert.deepEqual(first?.ids, alone[index]?.tokenIds.slice(0, first?.ids.length));
      if (observed) assert.deepEqual(observed.ids, bpe.encode('hello'));
    });
    expectRatioOne(given, episodes);
  });

  test('no BOS is put before an observation', async () => {
    const withBos = createBpeTokenizer({ texts: ['ab'], vocabSize: 260, bosToken: '<bos>' });
    const policy = createModel({ ...tinyModel().config, vocabSize: 260 }, { seed: 1 });
    const { prompts } = tokenizePrompts(rowsFromObjects([{ prompt: 'a' }]), withBos, {
      maxPromptLength: 8,
    });
    const { episodes } = await sampleEpisodes(
      options({
        policy,
        tokenizer: withBos,
        prompts,
        maxTurns: 2,
        environment: environment({ step: () => ({ state: 0, observation: 'b', done: false }) }),
      }),
    );
    const observed = episodes.flatMap((episode) => parts(episode).filter(({ mask }) => mask === 0));
    assert.ok(observed.length > 0);
    for (const { ids } of observed) assert.deepEqual(ids, [withBos.tokenToId('b')]);
  });

  test('leaves no tensor behind', async () => {
    const given = options();
    const before = memory().liveTensors;
    await sampleEpisodes(given);
    assert.equal(memory().liveTensors, before);
  });
});

describe('what the environment sees', () => {
  test('reset gets the prompt and its row once per episode, step every turn in order with the state so far', async () => {
    const starts: EpisodeStart[] = [];
    const seen = new Map<number, { turn: ModelTurn; before: number }[]>();
    const spy: Environment<{ id: number; turns: number }> = {
      name: 'spy',
      stop: [':'],
      async reset(start) {
        starts.push(start);
        return { id: starts.length - 1, turns: 0 };
      },
      async step({ id, turns }, turn) {
        seen.set(id, [...(seen.get(id) ?? []), { turn, before: turns }]);
        return { state: { id, turns: turns + 1 }, observation: 'x:', done: false };
      },
    };
    const { episodes } = await sampleEpisodes(options({ environment: spy }));
    assert.deepEqual(
      starts.map(({ prompt, row }) => [prompt, row['answer']]),
      ['a:', 'bc:', 'cad:'].flatMap((prompt) => Array<unknown>(4).fill([prompt, prompt[0]])),
    );
    const reasons = new Set<string>();
    episodes.forEach((episode, id) => {
      const texts = episode.turns.filter(({ role }) => role === 'model').map(({ text }) => text);
      const steps = seen.get(id) ?? [];
      assert.deepEqual(
        steps.map(({ turn }) => turn.text),
        texts,
      );
      const own = parts(episode).filter(({ mask }) => mask === 1);
      steps.forEach(({ turn, before }, index) => {
        assert.equal(turn.index, index);
        assert.equal(before, index);
        const last = own[index]?.ids.at(-1);
        const expected = last === EOS ? 'eos' : turn.text.endsWith(':') ? 'stop' : 'length';
        assert.equal(turn.finishReason, expected);
        reasons.add(turn.finishReason);
      });
    });
    assert.deepEqual([...reasons].sort(), ['eos', 'length', 'stop']);
  });
});

describe('how an episode ends', () => {
  test('when the environment says so; its last observation is not appended', async () => {
    const ending = environment({
      reset: () => 0,
      step: (_, { index }) => ({ state: 0, observation: 'x', done: index === 1 }),
    });
    const { episodes } = await sampleEpisodes(options({ environment: ending }));
    const full = episodes.filter(({ turns }) => turns.length > 1);
    assert.ok(full.length > 0);
    for (const { turns, completionMask } of full) {
      assert.deepEqual(
        turns.map(({ role }) => role),
        ['model', 'environment', 'model'],
      );
      assert.equal(completionMask.at(-1), 1);
    }
    assert.ok(full.some(({ finishReason }) => finishReason === 'stop'));
  });

  test('at EOS, whatever the environment says', async () => {
    const { episodes } = await sampleEpisodes(options({ numCompletions: 16 }));
    const ended = episodes.filter(({ tokenIds }) => tokenIds.includes(EOS));
    assert.ok(ended.some(({ turns }) => turns.length === 1));
    for (const { tokenIds, finishReason } of ended) {
      assert.equal(tokenIds.indexOf(EOS), tokenIds.length - 1);
      assert.equal(finishReason, 'eos');
    }
  });

  test('an EOS that is among the stop texts ends the turn and not the episode', async () => {
    const chatty = environment({
      stop: [':', '<eos>'],
      step: () => ({ state: 0, observation: 'x', done: false }),
    });
    const given = options({ environment: chatty, numCompletions: 16 });
    const { episodes } = await sampleEpisodes(given);
    const through = episodes.filter(
      ({ tokenIds }) => tokenIds.includes(EOS) && tokenIds.indexOf(EOS) < tokenIds.length - 1,
    );
    assert.ok(through.length > 0);
    for (const { tokenIds } of through) {
      assert.equal(tokenIds[tokenIds.indexOf(EOS) + 1], tokenizer.tokenToId('x'));
    }
    assert.ok(episodes.every(({ finishReason }) => finishReason !== 'eos'));
    expectRatioOne(given, episodes);
  });

  test('after maxTurns turns it is cut off, with the reason length', async () => {
    for (const maxTurns of [1, 2]) {
      const { episodes } = await sampleEpisodes(options({ maxTurns }));
      const cut = episodes.filter(({ finishReason }) => finishReason !== 'eos');
      assert.ok(cut.length > 0);
      for (const { turns, finishReason, completionMask } of cut) {
        assert.equal(turns.length, 2 * maxTurns - 1);
        assert.equal(finishReason, 'length');
        assert.equal(completionMask.at(-1), 1);
      }
    }
  });

  test('before an observation and a turn that would not fit the positions, by hand', async () => {
    // Prompt 2 + first turn n + observation 3 + turn 4 ≤ positions: 9 + n, and n is 4 unless ':' or EOS came earlier.
    const positions = 12;
    const small = createModel(
      { ...tinyModel().config, maxPositionEmbeddings: positions },
      { seed: 1 },
    );
    const given = options({
      policy: small,
      prompts: tinyPrompts().slice(0, 1),
      numCompletions: 32,
      maxTurns: 5,
      environment: environment({ step: () => ({ state: 0, observation: 'abc', done: false }) }),
    });
    const { episodes } = await sampleEpisodes(given);
    const lengths = new Set<number>();
    for (const episode of episodes) {
      const [first, observed] = parts(episode).map(({ ids }) => ids);
      assert.ok(first);
      assert.ok(2 + episode.tokenIds.length <= positions);
      if (first.at(-1) === EOS) continue;
      lengths.add(first.length);
      if (first.length <= 3) {
        assert.deepEqual(observed, tokenizer.encode('abc'));
      } else {
        assert.equal(observed, undefined);
        assert.equal(episode.finishReason, 'length');
        assert.equal(episode.turns.length, 1);
      }
    }
    assert.ok(lengths.has(3) && lengths.has(4), [...lengths].join());
  });

  test('an empty observation lets the model go on without one', async () => {
    const silent = environment({ step: () => ({ state: 0, observation: '', done: false }) });
    const { episodes } = await sampleEpisodes(options({ environment: silent, maxTurns: 2 }));
    assert.ok(episodes.every(({ completionMask }) => completionMask.every((mask) => mask === 1)));
    assert.ok(episodes.some(({ turns }) => turns.length === 3));
  });
});

describe('an environment that fails ends its own episode only', () => {
  /** Episodes of an environment that does something to the prompt `bc:` (row 2) and ends the others. */
  async function failing(
    misbehave: (call: 'reset' | 'step') => unknown,
    changes: Partial<EpisodeOptions> = {},
  ): Promise<readonly string[]> {
    const faulty = environment({
      name: 'faulty',
      reset: async ({ prompt }) => {
        if (prompt === 'bc:') await misbehave('reset');
        return prompt;
      },
      step: (prompt) => {
        const ended = { state: prompt, observation: '', done: true };
        return (prompt === 'bc:' ? (misbehave('step') ?? ended) : ended) as typeof ended;
      },
    });
    const given = options({ numCompletions: 2, environment: faulty, ...changes });
    const { episodes, failures } = await sampleEpisodes(given);
    assert.deepEqual(
      episodes.map(({ failed }) => failed),
      [false, false, true, true, false, false],
    );
    assert.ok(episodes.every(({ tokenIds }) => tokenIds.length > 0));
    assert.ok(episodes.every(({ turns }) => turns.length === 1 && turns[0]?.role === 'model'));
    for (const { tokenIds, finishReason } of episodes) {
      const last = tokenIds.at(-1);
      const isStop = last === tokenizer.tokenToId(':');
      assert.equal(finishReason, last === EOS ? 'eos' : isStop ? 'stop' : 'length');
    }
    assert.equal(failures.length, 2);
    assert.equal(failures[0], failures[1]);
    return failures;
  }
  const fails = (during: 'reset' | 'step', act: () => unknown) => (call: string) =>
    call === during ? act() : undefined;
  const throwing = (): never => {
    throw new RangeError('not today');
  };

  test('by throwing in step', async () => {
    const [failure] = await failing(fails('step', throwing));
    assert.equal(failure, 'environment faulty for tiny:2: step threw RangeError: not today');
  });
  test('by rejecting in reset', async () => {
    const [failure] = await failing(fails('reset', throwing));
    assert.equal(
      failure,
      'environment faulty for tiny:2: reset rejected with RangeError: not today',
    );
  });
  test('after a failed reset its step is not called', async () => {
    let steps = 0;
    const step = () => ({ state: ++steps, observation: '', done: true });
    const { episodes } = await sampleEpisodes(
      options({ environment: environment({ reset: throwing, step }) }),
    );
    assert.equal(steps, 0);
    assert.ok(episodes.every(({ failed, turns }) => failed && turns.length === 1));
  });
  test('by answering too late', async () => {
    const never = (): Promise<never> => new Promise(() => {});
    for (const during of ['reset', 'step'] as const) {
      const [failure] = await failing(fails(during, never), { timeoutSeconds: 0.02 });
      assert.equal(
        failure,
        `environment faulty for tiny:2: ${during} did not answer within 0.02 s`,
      );
    }
  });
  test('by answering something else', async () => {
    const wrong = [
      7,
      { done: true },
      { observation: 'x', done: 1 },
      { observation: 3, done: false },
    ];
    for (const answer of wrong) {
      const [failure] = await failing(fails('step', () => answer));
      assert.equal(
        failure,
        'environment faulty for tiny:2: step returned something other than { state, observation, done }',
      );
    }
  });
  test('by a text that the tokenizer refuses', async () => {
    const foreign = fails('step', () => ({ state: 0, observation: '8', done: false }));
    const eosFree = { ...tinyModel().config, eosTokenIds: [] };
    const [failure] = await failing(foreign, {
      policy: createModel(eosFree, { seed: 1 }),
      // Without an EOS no turn can end an episode before its observation is read.
      tokenizer: Object.defineProperty(tinyTokenizer(), 'eosTokenId', { value: undefined }),
    });
    assert.match(
      failure ?? '',
      /^environment faulty for tiny:2: step gave a text that the tokenizer refuses: .*"8"/,
    );
  });
});

describe('rejects', () => {
  const cases: [changes: Partial<EpisodeOptions>, message: string][] = [
    [{ maxTurns: 0 }, 'sampleEpisodes: expected maxTurns to be a positive integer, received 0.'],
    [
      { maxTurns: 1.5 },
      'sampleEpisodes: expected maxTurns to be a positive integer, received 1.5.',
    ],
    [{ timeoutSeconds: 0 }, 'sampleEpisodes: expected timeoutSeconds to be positive, received 0.'],
    [{ concurrency: NaN }, 'sampleEpisodes: expected concurrency to be positive, received NaN.'],
    [
      { environment: environment({ name: 'mine', stop: ['='].concat('') }) },
      'environment mine: expected stop texts with at least one character, received an empty one.',
    ],
  ];
  for (const [changes, message] of cases) {
    test(message, async () => {
      await assert.rejects(sampleEpisodes(options(changes)), { code: 'E_RANGE', message });
    });
  }
});
