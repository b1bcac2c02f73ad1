/** How SentencePiece-style vocabularies spell a byte that has no token of its own: `<0x0A>`. */

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/** The byte that a token such as `<0x0A>` spells, or undefined for other tokens. */
export function byteOfToken(token: string): number | undefined {
  const digits = BYTE_TOKEN.exec(token)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/** The token that spells a byte. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

/**
 * Tokens with each run of byte tokens replaced by its text. A run that is not UTF-8 as a whole becomes one U+FFFD per
 * byte, as in the Rust `tokenizers` library.
 */
export function joinByteTokens(tokens: readonly string[]): string[] {
  const joined: string[] = [];
  let run: number[] = [];
  const closeRun = (): void => {
    if (run.length > 0) joined.push(textOfRun(run));
    run = [];
  };
  for (const token of tokens) {
    const byte = byteOfToken(token);
    if (byte === undefined) {
      closeRun();
      joined.push(token);
    } else {
      run.push(byte);
    }
  }
  closeRun();
  return joined;
}

function textOfRun(bytes: readonly number[]): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      Uint8Array.from(bytes),
    );
  } catch {
    return '\uFFFD'.repeat(bytes.length);
  }
}
