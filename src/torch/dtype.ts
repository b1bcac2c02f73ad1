/** Element types: PyTorch's names and the numbers that libtorch's schemas carry for them. */
import { DtypeError } from '../errors/index.js';

/** The element types of `posttrain/torch`, named as in PyTorch. `complex64` and `complex128` occur inside rope only. */
export type Dtype =
  | 'float64'
  | 'float32'
  | 'bfloat16'
  | 'float16'
  | 'int64'
  | 'int32'
  | 'uint8'
  | 'bool'
  | 'complex64'
  | 'complex128';

const CODES: Record<Dtype, number> = {
  uint8: 0,
  int32: 3,
  int64: 4,
  float16: 5,
  float32: 6,
  float64: 7,
  complex64: 9,
  complex128: 10,
  bool: 11,
  bfloat16: 15,
};

const NAMES = new Map<number, Dtype>(
  (Object.entries(CODES) as [Dtype, number][]).map(([name, code]) => [code, name]),
);

/** Bytes of one element. */
export const DTYPE_BYTES: Record<Dtype, number> = {
  uint8: 1,
  bool: 1,
  float16: 2,
  bfloat16: 2,
  int32: 4,
  float32: 4,
  int64: 8,
  float64: 8,
  complex64: 8,
  complex128: 16,
};

/** libtorch's number for a dtype. @throws DtypeError for a name that is not a dtype. */
export function dtypeCode(dtype: Dtype): number {
  if (!Object.hasOwn(CODES, dtype)) {
    throw new DtypeError(
      `tensor: expected a dtype of ${Object.keys(CODES).join(', ')}, received ${JSON.stringify(dtype)}.`,
    );
  }
  return CODES[dtype];
}

/** The dtype of libtorch's number. @throws DtypeError for a type that posttrain has no name for. */
export function dtypeName(code: number): Dtype {
  const name = NAMES.get(code);
  if (name === undefined) {
    throw new DtypeError(
      `tensor: libtorch returned scalar type ${code}, which posttrain does not name.`,
    );
  }
  return name;
}

/** True for float64, float32, bfloat16 and float16. */
export function isFloatingPoint(dtype: Dtype): boolean {
  return dtype === 'float32' || dtype === 'float64' || dtype === 'bfloat16' || dtype === 'float16';
}
