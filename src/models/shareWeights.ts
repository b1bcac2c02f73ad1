import { noGrad, tidy, type Tensor } from '../torch/index.js';
import { isLoraName, tiedEmbedding } from './adapter.js';
import { savedParameters } from './adapterTargets.js';
import { Decoder } from './decoder.js';

/**
 * Another decoder over the weights of a given one, which it leaves as it is: no number is copied but those of the layers
 * of `modulesToSave`.
 * Either can be disposed of while the other goes on. What is written into shared weights is seen by both, so they are for
 * models whose shared part is frozen: a policy and its reference, which differ in their adapters.
 *
 * @returns without an adapter, whatever the given one has; every parameter requires a gradient
 * @throws ConfigError for an ending in `modulesToSave` that no layer has
 */
export function shareWeights(model: Decoder, modulesToSave: readonly string[] = []): Decoder {
  const copied = savedParameters('shareWeights', model.namedModules(), {
    modulesToSave,
    tiedEmbedding: tiedEmbedding(model),
  });
  const own = [...model.namedParameters()].filter(([name]) => !isLoraName(name));
  const weights = tidy(
    () =>
      new Map<string, Tensor>(
        noGrad(() =>
          own.map(([name, weight]) => [
            name,
            copied.has(name) ? weight.detach().clone() : weight.detach(),
          ]),
        ),
      ),
  );
  const shared = new Decoder(model.config, weights, model.generationConfig);
  shared.compute = model.compute;
  return shared;
}
