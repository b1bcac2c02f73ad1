import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DownloadProgress } from './downloadProgress.js';

describe('DownloadProgress', () => {
  const told = (total: number, isTTY: boolean): string => {
    const lines: string[] = [];
    const stream = { isTTY, write: (text: string) => lines.push(text) };
    const progress = new DownloadProgress(stream, 'org/name: file', total);
    progress.start(0);
    progress.update(total / 4);
    progress.finish();
    return lines.join('');
  };
  test('a large file tells how far it is, a small one does not', () => {
    assert.match(
      told(4e6, false),
      /^org\/name: file 25 % of 4\.0 MB, .*\/s\norg\/name: file, 4\.0 MB downloaded\n$/,
    );
    assert.equal(told(1000, false), '');
  });
  test('on a terminal it is one line that changes', () => {
    assert.ok(told(4e9, true).startsWith('\r\x1b[2Korg/name: file 25 % of 4.00 GB'), 'drawn over');
  });
});
