/**
 * Whether a frozen weight in 8 or 4 bits makes the forward pass of one linear layer faster on a CPU:
 * `npm run bench -- quantized`. All ways are timed in turn in one process, so that whatever else the machine does falls on
 * all of them.
 */
import { cat, Generator, noGrad, randn, tidy, type Tensor } from '../src/torch/index.js';
import { bind } from '../src/torch/bind.js';
import { native, type Slot } from '../src/torch/native.js';
import { wrap } from '../src/torch/tensor.js';
import { median } from './statistics.js';

/** One way to multiply by one weight. */
export interface QuantizedRow {
  /** [out, in] of the weight. */
  readonly weight: readonly [number, number];
  /** Rows that are multiplied. */
  readonly rows: number;
  readonly dtype: 'float32' | 'bfloat16';
  readonly way: string;
  readonly milliseconds: number;
  /** Against the plain product of the same dtype: above 1 is faster. */
  readonly speed: number;
  /** ‖y − y₀‖ / ‖y₀‖, y₀ the product in float32. */
  readonly error: number;
  /** Of the weight, scales included. */
  readonly bytes: number;
}

const WEIGHTS = [
  [1536, 576],
  [8192, 2048],
] as const;
const ROWS = [1, 64, 1024];
/** Columns that share one scale in 4 bits. */
const GROUP = 64;
/** Timed repetitions: at least so many, and for at least so long. */
const ROUNDS = 3;
const SECONDS = 0.2;

interface Way {
  readonly way: string;
  readonly bytes: number;
  readonly forward: (x: Tensor) => Tensor;
}

/**
 * Times every way of every case and prints a table.
 *
 * @param only part of the names of cases, as "8192x2048 bfloat16"
 */
export function benchQuantized(only = ''): QuantizedRow[] {
  const rows: QuantizedRow[] = [];
  for (const weight of WEIGHTS)
    for (const dtype of ['float32', 'bfloat16'] as const) {
      if (!`${weight.join('x')} ${dtype}`.includes(only)) continue;
      tidy(() => {
        const exact = randn([...weight], { generator: new Generator(1) }).mul(weight[1] ** -0.5);
        const ways = waysOf(exact, dtype);
        for (const count of ROWS) {
          const found = measure(ways, { weight, rows: count, dtype }, exact);
          process.stderr.write(`${found.map(lineOf).join('\n')}\n`);
          rows.push(...found);
        }
      });
    }
  console.log(table(rows));
  return rows;
}

function waysOf(exact: Tensor, dtype: 'float32' | 'bfloat16'): Way[] {
  const addon = native();
  const asInt8 = bind<(self: Slot, nonBlocking: boolean) => Slot>(
    addon,
    'aten::_cast_Char',
    'Tensor self, bool non_blocking=False',
  );
  const int8Product = bind<(x: Slot, weight: Slot, scales: Slot) => Slot>(
    addon,
    'aten::_weight_int8pack_mm',
    'Tensor self, Tensor mat2, Tensor scales',
  );
  const multiply = bind<(self: Slot, other: Slot) => Slot>(
    addon,
    'aten::mul.Tensor',
    'Tensor self, Tensor other',
  );
  const packInt4 = bind<(weight: Slot, innerKTiles: number) => Slot>(
    addon,
    'aten::_convert_weight_to_int4pack_for_cpu',
    'Tensor self, int innerKTiles',
  );
  const int4Product = bind<(x: Slot, weight: Slot, group: number, scales: Slot) => Slot>(
    addon,
    'aten::_weight_int4pack_mm_for_cpu',
    'Tensor self, Tensor mat2, int qGroupSize, Tensor qScaleAndZeros',
  );
  const [outputs = 0, inputs = 0] = exact.shape;
  const plain = exact.to(dtype);

  // 8 bits: one scale for each row of the weight. Tensors of int8 have no name here: a slot, as long as the process lives.
  const scales = exact.abs().amax(1, { keepDim: true }).div(127);
  const eight = asInt8(exact.div(scales).round().slot, false);
  const rowScales = scales.squeeze(1).to(dtype);

  // 4 bits: w = (q − 8)·scale, one scale for each group of columns.
  const groups = exact.reshape([outputs, inputs / GROUP, GROUP]);
  const groupScales = groups.abs().amax(2, { keepDim: true }).div(7);
  const levels = groups.div(groupScales).round().add(8).reshape([outputs, inputs]).to('int32');
  const four = wrap(packInt4(levels.slot, 2));
  const zeros = groupScales.mul(0);
  const scalesAndZeros = cat([groupScales, zeros], 2).transpose(0, 1).contiguous().to(dtype);

  const size = outputs * inputs;
  const bytesOf = dtype === 'float32' ? 4 : 2;
  return [
    { way: 'plain', bytes: size * bytesOf, forward: (x) => x.linear(plain) },
    {
      way: 'int8, fused',
      bytes: size + outputs * bytesOf,
      forward: (x) => wrap(int8Product(x.slot, eight, rowScales.slot)),
    },
    {
      way: 'int8, dequantised',
      bytes: size + outputs * bytesOf,
      forward: (x) => x.linear(wrap(multiply(eight, rowScales.unsqueeze(1).slot))),
    },
    {
      way: 'int4, fused',
      bytes: size / 2 + (2 * size * bytesOf) / GROUP,
      forward: (x) => wrap(int4Product(x.slot, four.slot, GROUP, scalesAndZeros.slot)),
    },
  ];
}

function measure(
  ways: readonly Way[],
  { weight, rows, dtype }: Pick<QuantizedRow, 'weight' | 'rows' | 'dtype'>,
  exact: Tensor,
): QuantizedRow[] {
  const x32 = randn([rows, weight[1]], { generator: new Generator(2) });
  const x = x32.to(dtype);
  const expected = noGrad(() => x.to('float32').linear(exact));
  const times = ways.map((): number[] => []);
  const once = (way: Way): number =>
    noGrad(() =>
      tidy(() => {
        const started = performance.now();
        way.forward(x);
        return performance.now() - started;
      }),
    );
  // The first call is not counted, except of what takes long.
  const isSlow = ways.map((way, index) => {
    const first = once(way);
    if (first > 1000) times[index]?.push(first);
    return first > 1000;
  });
  const until = performance.now() + 1000 * SECONDS * ways.length;
  for (let round = 0; round < ROUNDS || performance.now() < until; round++)
    for (const [index, way] of ways.entries())
      if (isSlow[index] !== true) times[index]?.push(once(way));
  const medians = times.map(median);
  return ways.map(({ way, bytes, forward }, index) => {
    const milliseconds = medians[index] ?? NaN;
    const error = noGrad(() =>
      tidy(() => {
        const off = forward(x).to('float32').sub(expected);
        return Number(off.norm().div(expected.norm()).item());
      }),
    );
    const speed = (medians[0] ?? NaN) / milliseconds;
    return { weight, rows, dtype, way, milliseconds, speed, error, bytes };
  });
}

function lineOf(row: QuantizedRow): string {
  const { weight, rows, dtype, way, milliseconds, speed, error, bytes } = row;
  const numbers = [milliseconds.toPrecision(3), speed.toFixed(2), error.toExponential(1)];
  const cells = [weight.join(' × '), rows, dtype, way, ...numbers, (bytes / 2 ** 20).toFixed(2)];
  return `| ${cells.join(' | ')} |`;
}

function table(rows: readonly QuantizedRow[]): string {
  return [
    '| weight | rows | dtype | way | ms | speed | error | MiB |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...rows.map(lineOf),
  ].join('\n');
}
