/** The printable spelling of bytes that byte-level vocabularies use: GPT-2's table, in which a space is `Ġ`. */

/** Source: Radford et al. 2019 (GPT-2), `bytes_to_unicode`: printable Latin-1 stays, all else moves above U+0100. */
function isSpelledAsItself(byte: number): boolean {
  return (
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  );
}

/** `BYTE_TO_CHARACTER[byte]` is the one character that spells the byte. */
export const BYTE_TO_CHARACTER: readonly string[] = (() => {
  let moved = 0;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isSpelledAsItself(byte) ? byte : 256 + moved++),
  );
})();

const CHARACTER_TO_BYTE = new Map(BYTE_TO_CHARACTER.map((character, byte) => [character, byte]));

/** Bytes of a token spelled with the byte-level table, or undefined if it has a character outside the table. */
export function bytesOfToken(token: string): Uint8Array | undefined {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = CHARACTER_TO_BYTE.get(character);
    if (byte === undefined) return undefined;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Text of bytes, in which each byte that is not part of a whole UTF-8 character is written `\xHH`. */
export function readableBytes(bytes: Uint8Array): string {
  const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  for (let start = 0; start < bytes.length;) {
    const length = sequenceLength(bytes[start] ?? 0);
    try {
      text += strict.decode(bytes.subarray(start, start + length));
      start += length;
    } catch {
      text += `\\x${(bytes[start] ?? 0).toString(16).toUpperCase().padStart(2, '0')}`;
      start += 1;
    }
  }
  return text;
}

/** Number of bytes of the UTF-8 character that starts with `lead`; 1 where no character can start. */
function sequenceLength(lead: number): number {
  if (lead >= 0xf0) return 4;
  if (lead >= 0xe0) return 3;
  if (lead >= 0xc0) return 2;
  return 1;
}
