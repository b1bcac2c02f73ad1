/** Light, dark, or as the system has it; and the colours of charts, which a canvas cannot take from a style sheet. */
import { effect, signal } from '@preact/signals';

/** What was chosen. */
export type Theme = 'system' | 'light' | 'dark';

const THEMES: readonly Theme[] = ['system', 'light', 'dark'];

/** Kept in the browser, for this address alone. */
export const theme = signal<Theme>(stored());
/** Counts up when colours change, so that charts draw again. */
export const paletteVersion = signal(0);

function stored(): Theme {
  try {
    const value = localStorage.getItem('posttrain-theme');
    return THEMES.find((name) => name === value) ?? 'system';
  } catch {
    return 'system'; // storage is forbidden in some browsers
  }
}

/** Applies the theme now and whenever it changes. */
export function applyTheme(): void {
  effect(() => {
    document.documentElement.dataset['theme'] = theme.value;
    try {
      localStorage.setItem('posttrain-theme', theme.value);
    } catch {
      // It holds until the page is closed.
    }
    paletteVersion.value = paletteVersion.peek() + 1;
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    paletteVersion.value = paletteVersion.peek() + 1;
  });
}

/** The next theme in turn. */
export function nextTheme(): void {
  const index = THEMES.indexOf(theme.value);
  theme.value = THEMES[(index + 1) % THEMES.length] ?? 'system';
}

let probe: HTMLElement | undefined;

/** A custom property of the style sheet as a colour that a canvas understands. */
export function cssColor(name: string): string {
  if (probe === undefined) {
    probe = document.createElement('span');
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

const RUN_COLOURS = 8;
const DASHES = [[], [8, 3], [2, 3], [10, 3, 2, 3]];
/** How many runs can be told apart, by colour and dashes together. */
export const MOST_RUNS = RUN_COLOURS * DASHES.length;

/** Colour of the n-th chosen run; the palette of Okabe and Ito, told apart by colour-blind people. */
export function runColour(index: number): string {
  return `--run-${index % RUN_COLOURS}`;
}

/** Which dashes the n-th chosen run has: others than those of the run that has its colour, too. */
export function dashIndex(index: number): number {
  return (index + Math.floor(index / RUN_COLOURS)) % DASHES.length;
}

/** Dashes of the n-th chosen run, so that colour is not the only difference. */
export function runDash(index: number): number[] {
  return DASHES[dashIndex(index)] ?? [];
}
