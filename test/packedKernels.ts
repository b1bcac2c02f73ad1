/** What multiplies packed weights on this machine. */
import { usePackedKernel, type PackedKernel } from '../src/torch/index.js';

/** All that the processor has, the best one first. */
export function packedKernels(): PackedKernel[] {
  const all: PackedKernel[] = ['avx512', 'avx2', 'oneDnn'];
  const best = usePackedKernel('oneDnn');
  usePackedKernel(best);
  return all.slice(all.indexOf(best));
}
