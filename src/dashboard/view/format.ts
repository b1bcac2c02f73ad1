/** Numbers, times and untrusted texts as a reader sees them. Plain TypeScript: it runs in the browser. */

/** A number with some four digits: `0.9844`, `1.2e-5`, `12,345`; an em dash where there is none. */
export function formatNumber(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || Number.isNaN(value)) return '—';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (value === 0) return '0';
  const size = Math.abs(value);
  let text: string;
  if (size >= 1e6 || size < 1e-3) text = shortExponent(value.toExponential(digits - 2));
  else if (Number.isInteger(value) && size >= 1000) text = value.toLocaleString('en-US');
  else if (Number.isInteger(value)) text = String(value);
  else text = String(Number(value.toPrecision(digits)));
  return text.replace(/^-/, '−');
}

/** `1.20e-5` as `1.2e-5`. */
function shortExponent(text: string): string {
  const [mantissa = '', exponent = ''] = text.split('e');
  return `${Number(mantissa)}e${exponent.replace('+', '')}`.replace('e-', 'e−');
}

/** A number with its unit: shares as per cent, bytes in MB. */
export function formatValue(value: number | null | undefined, unit: string | null): string {
  if (value === null || value === undefined) return '—';
  if (unit === 'share') return `${formatNumber(value * 100, 3)} %`;
  if (unit === 'bytes') return formatBytes(value);
  if (unit === 'seconds') return value < 60 ? `${formatNumber(value, 3)} s` : formatDuration(value);
  return unit === null ? formatNumber(value) : `${formatNumber(value)} ${unit}`;
}

/** `1.5 GB`, decimal. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let size = bytes;
  let unit = 0;
  while (Math.abs(size) >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${formatNumber(size, 3)} ${units[unit] ?? ''}`;
}

/** `4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function formatDuration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '—';
  const whole = Math.max(0, Math.round(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first === -1) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

/** `just now`, `5 min ago`. */
export function formatAgo(time: string | null, now: number): string {
  if (time === null) return '—';
  const seconds = (now - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return '—';
  if (seconds < 10) return 'just now';
  return `${formatDuration(seconds).replace(/ (\d+ (s|min|h))$/, '')} ago`;
}

/** Control characters, soft hyphens, marks of direction, spaces without width, and tags (a text that no font shows). */
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/**
 * A text with what cannot be seen made visible: control characters as their pictures, and characters that turn the
 * direction of what follows, with which a completion could hide what it says, by their code point.
 */
export function visibleText(text: string): string {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return '␡';
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, '0')}⟩`;
  });
}

/**
 * A token as one visible thing: spaces, tabs and line ends by their signs where the token is nothing else, and an accent
 * that belongs to the token before on a circle in its place.
 */
export function visibleToken(token: string): string {
  const shown = visibleText(token);
  if (shown === '') return '∅';
  if (/^\p{M}/u.test(shown)) return `◌${shown}`;
  return /^\s+$/.test(shown)
    ? shown.replaceAll(' ', '␣').replaceAll('\t', '⇥').replaceAll('\n', '↵')
    : shown;
}
