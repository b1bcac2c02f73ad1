import { ValueRangeError } from '../errors/index.js';
import { noGrad, stack, tidy, type Dtype, type Tensor } from '../torch/index.js';
import { foreachMul_, foreachNorm } from '../torch/foreach.js';

/** torch.nn.utils.clip_grad_norm_ adds it to the norm that it divides by. */
const EPSILON = 1e-6;

/**
 * Scales all gradients together so that their joint Euclidean norm is at most `maxNorm`.
 *
 *     g ← g · min(1, maxNorm / (‖g‖ + 1e-6))
 *
 * Source: Pascanu et al. 2013, arXiv:1211.5063, Algorithm 1, in the form of torch.nn.utils.clip_grad_norm_. Norms of
 * bfloat16 and float16 gradients are computed in float32. Gradients are left as they are when the norm is not finite:
 * the caller must not step then. Waits for a GPU once.
 *
 * @param parameters those without a gradient are passed over
 * @param maxNorm above 0; Infinity only measures
 * @returns ‖g‖ before clipping; 0 without any gradient
 * @throws ValueRangeError unless maxNorm is above 0
 */
export function clipGradNorm(parameters: readonly Tensor[], maxNorm: number): number {
  if (!(maxNorm > 0))
    throw new ValueRangeError(
      `clipGradNorm: expected maxNorm to be above 0 or Infinity, received ${maxNorm}.`,
    );
  return noGrad(() =>
    tidy(() => {
      const gradients = parameters.flatMap(({ grad }) => (grad === null ? [] : [grad]));
      const norm = jointNorm(gradients);
      const factor = maxNorm / (norm + EPSILON);
      if (Number.isFinite(norm) && factor < 1) foreachMul_(gradients, factor);
      return norm;
    }),
  );
}

function jointNorm(gradients: readonly Tensor[]): number {
  const device = gradients[0]?.device;
  if (device === undefined) return 0;
  const isWide = ({ dtype }: Tensor): boolean => dtype === 'float64';
  const wide = gradients.filter(isWide);
  const rest = gradients.filter((gradient) => !isWide(gradient));
  const dtype: Dtype = wide.length > 0 ? 'float64' : 'float32';
  const norms = [
    ...(wide.length > 0 ? foreachNorm(wide) : []),
    ...(rest.length > 0 ? foreachNorm(rest, 'float32') : []),
  ];
  return stack(norms.map((norm) => norm.to({ dtype, device })))
    .norm()
    .item();
}
