/**
 * A number with the word for what is counted: `1 row`, `2 rows`.
 *
 * @param plural where it is not the word with an s
 */
export function counted(count: number, word: string, plural = `${word}s`): string {
  return `${count} ${count === 1 ? word : plural}`;
}
