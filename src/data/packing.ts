/** Puts sequences of different length side by side into lines of one length. Plain numbers. */
import { ValueRangeError } from '../errors/index.js';

/**
 * Bins of indices whose lengths add up to at most `capacity`: longest first, each into the fullest bin that still has
 * room for it. Equal lengths keep their order. Every index is in exactly one bin.
 *
 * Source: best-fit decreasing, Johnson 1974, "Fast algorithms for bin packing": at most 11/9 of the fewest bins, and one
 * more. TRL calls it `bfd`; unlike there a sequence is never cut to fill a bin.
 *
 * @throws ValueRangeError if a length is not a positive integer of at most `capacity`
 */
export function packBestFit(lengths: readonly number[], capacity: number): number[][] {
  lengths.forEach((length, index) => {
    if (!Number.isInteger(length) || length < 1 || length > capacity) {
      throw new ValueRangeError(
        `packBestFit: expected lengths[${index}] to be an integer from 1 to ${capacity}, received ${length}.`,
      );
    }
  });
  const longestFirst = lengths
    .map((length, index) => ({ length, index }))
    .sort((a, b) => b.length - a.length || a.index - b.index);
  const bins: number[][] = [];
  /** Bins by the room that they have left, those that came to it last at the end. */
  const byRoom = new Map<number, number[][]>();
  for (const { length, index } of longestFirst) {
    let room = length;
    while (room < capacity && (byRoom.get(room)?.length ?? 0) === 0) room++;
    let bin = byRoom.get(room)?.pop();
    if (bin === undefined) {
      bin = [];
      bins.push(bin);
      room = capacity;
    }
    bin.push(index);
    const left = byRoom.get(room - length);
    if (left === undefined) byRoom.set(room - length, [bin]);
    else left.push(bin);
  }
  return bins;
}
