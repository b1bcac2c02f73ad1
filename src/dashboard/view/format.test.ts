import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  formatAgo,
  formatBytes,
  formatDuration,
  formatNumber,
  formatValue,
  visibleText,
  visibleToken,
} from './format.js';

describe('numbers', () => {
  test('have some four digits, and no more than they need', () => {
    assert.equal(formatNumber(0.984375), '0.9844');
    assert.equal(formatNumber(0.5), '0.5');
    assert.equal(formatNumber(12_345), '12,345');
    assert.equal(formatNumber(-2.34567), '−2.346');
  });
  test('far from one have an exponent', () => {
    assert.equal(formatNumber(1.2e-5), '1.2e−5');
    assert.equal(formatNumber(3e9), '3e9');
  });
  test('that are missing or not finite are signs', () => {
    assert.equal(formatNumber(null), '—');
    assert.equal(formatNumber(Number.NEGATIVE_INFINITY), '−∞');
  });
  test('come with their units', () => {
    assert.equal(formatValue(0.256, 'share'), '25.6 %');
    assert.equal(formatValue(1.5e9, 'bytes'), '1.5 GB');
    assert.equal(formatValue(0.31, 'nats'), '0.31 nats');
    assert.equal(formatValue(90, 'seconds'), '1 min 30 s');
    assert.equal(formatBytes(999), '999 B');
  });
});

describe('times', () => {
  test('have their two largest units', () => {
    assert.equal(formatDuration(0.2), '0 s');
    assert.equal(formatDuration(200), '3 min 20 s');
    assert.equal(formatDuration(7500), '2 h 5 min');
    assert.equal(formatDuration(86_400), '1 d');
    assert.equal(formatDuration(null), '—');
  });
  test('that have passed are rounded to one unit', () => {
    const now = Date.parse('2026-01-01T01:00:00Z');
    assert.equal(formatAgo('2026-01-01T00:59:58Z', now), 'just now');
    assert.equal(formatAgo('2026-01-01T00:56:40Z', now), '3 min ago');
    assert.equal(formatAgo(null, now), '—');
  });
});

describe('texts of strangers', () => {
  test('cannot turn the direction of what follows, nor hide characters', () => {
    assert.equal(visibleText('a\u202eb\u200bc'), 'a⟨U+202E⟩b⟨U+200B⟩c');
    assert.equal(visibleText('a\u061c\u00ad\u{e0041}b'), 'a⟨U+061C⟩⟨U+00AD⟩⟨U+E0041⟩b');
    assert.equal(visibleText('𝄞 🙂 é'), '𝄞 🙂 é');
  });
  test('show control characters by their pictures, and keep line ends and tabs', () => {
    assert.equal(visibleText('a\u0000\u001b[31m\n\t'), 'a␀␛[31m\n\t');
  });
  test('of one token are never invisible', () => {
    assert.equal(visibleToken(' \n'), '␣↵');
    assert.equal(visibleToken(''), '∅');
    assert.equal(visibleToken(' the'), ' the');
    assert.equal(visibleToken('\u0301'), '◌\u0301');
    assert.equal(visibleToken('\u093fe'), '◌\u093fe');
    assert.equal(visibleToken('e\u0301'), 'e\u0301');
  });
});
