/**
 * Gradient checkpointing: a part of a computation keeps its inputs only, and is computed again when its gradient is asked
 * for. It works without a hook into libtorch's engine, on every device: what a part returns is a leaf of the graph, and
 * `Tensor.backward` goes on from that leaf's gradient.
 */
import { ValueRangeError } from '../errors/index.js';
import { enableGrad, isGradEnabled, noGrad } from './autograd.js';
import { keep, onScopeEnd, tidy } from './scope.js';
import { onBackward, type Tensor } from './tensor.js';

interface Segment {
  readonly compute: (...inputs: Tensor[]) => Tensor;
  /** Cut off from the graph. */
  readonly inputs: readonly Tensor[];
  /** Where gradients go on to; null for an input that requires none. */
  readonly sources: readonly (Tensor | null)[];
  readonly leaf: Tensor;
}

let segments: Segment[] = [];

/**
 * `compute(...inputs)`, of whose inside nothing is kept for the backward pass.
 *
 * Gradients reach `inputs` and every other tensor that `compute` reads and that requires one: the same as without, since
 * the same operators run on the same numbers. Called where nothing is recorded it is `compute` itself. Forward and backward
 * belong into one outermost `tidy`; `grad`, and a second `backward` through the same part, are refused or see no path.
 *
 * Source: Chen et al. 2016, arXiv:1604.06174, §3, as torch.utils.checkpoint has it (reentrant).
 *
 * @param compute gives the same numbers whenever it is called; draws nothing at random
 */
export function checkpoint(
  compute: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
): Tensor {
  if (!isGradEnabled()) return compute(...inputs);
  const leaf = keep(noGrad(() => tidy(() => compute(...inputs).detach())));
  leaf.requiresGrad = true;
  segments.push({
    compute,
    leaf,
    inputs: inputs.map((input) => keep(tidy(() => input.detach()))),
    // A view, because the caller may free the tensor itself; the graph behind it stays.
    sources: inputs.map((input) =>
      input.requiresGrad ? keep(tidy(() => input.view(input.shape))) : null,
    ),
  });
  return leaf.view(leaf.shape);
}

/** Parts that wait for their backward pass. */
export function pendingCheckpoints(): number {
  return segments.length;
}

/** From the last part to the first: a part's gradient is whole when all that came after it are done. */
function continueBackward(): void {
  for (let index = segments.length - 1; index >= 0; index--) {
    const segment = segments[index] as Segment;
    const gradient = segment.leaf.grad;
    if (gradient === null) continue;
    segments.splice(index, 1);
    try {
      tidy(() => enableGrad(() => backwardThrough(segment, gradient)));
    } finally {
      gradient.dispose();
      release(segment);
    }
  }
}

function backwardThrough({ compute, inputs, sources }: Segment, gradient: Tensor): void {
  inputs.forEach((input, at) => {
    if (sources[at] !== null) input.requiresGrad = true;
  });
  compute(...inputs).backward(gradient);
  inputs.forEach((input, at) => {
    const source = sources[at] ?? null;
    const found = input.grad;
    if (source !== null && found !== null) source.backward(found);
  });
}

function release({ inputs, sources, leaf }: Segment): void {
  for (const tensor of [...inputs, ...sources, leaf]) tensor?.dispose();
}

let isContinuing = false;
onBackward((options) => {
  if (segments.length === 0 || isContinuing) return;
  if (options.retainGraph || options.createGraph)
    throw new ValueRangeError(
      'backward: expected neither retainGraph nor createGraph after checkpoint, received one of them.',
    );
  isContinuing = true;
  try {
    continueBackward();
  } finally {
    isContinuing = false;
  }
});

// What was computed and never taken back: a scope that returns nothing with a graph has ended, so nobody can ask for it.
onScopeEnd((returned) => {
  if (segments.length === 0 || [...returned].some(({ requiresGrad }) => requiresGrad)) return;
  for (const segment of segments) release(segment);
  segments = [];
});
