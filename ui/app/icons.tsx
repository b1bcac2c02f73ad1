/** The few signs that the page needs, drawn here so that none is fetched. */
import type { JSX } from 'preact';

const PATHS = {
  logo: 'M3 17l5-7 4 4 8-11 M20 3h.01',
  list: 'M8 6h12 M8 12h12 M8 18h12 M4 6h.01 M4 12h.01 M4 18h.01',
  chart: 'M4 4v16h16 M8 15l4-5 3 3 5-7',
  text: 'M4 5h16 M4 10h16 M4 15h10 M4 20h6',
  sliders: 'M4 8h10 M18 8h2 M4 16h2 M10 16h10 M16 6v4 M8 14v4',
  sun: 'M12 8a4 4 0 100 8 4 4 0 000-8z M12 3v1 M12 20v1 M3 12h1 M20 12h1 M5.6 5.6l.7.7 M17.7 17.7l.7.7 M5.6 18.4l.7-.7 M17.7 6.3l.7-.7',
  moon: 'M20 14.5A8 8 0 119.5 4a6.5 6.5 0 0010.5 10.5z',
  contrast: 'M12 4a8 8 0 100 16 8 8 0 000-16z M12 4v16 M12 8l5-1 M12 12h8 M12 16l5 1',
  check: 'M5 13l4 4L19 7',
  play: 'M8 5l11 7-11 7z',
  pause: 'M8 5v14 M16 5v14',
  cross: 'M6 6l12 12 M18 6L6 18',
  clock: 'M12 4a8 8 0 100 16 8 8 0 000-16z M12 8v4l3 2',
  warning: 'M12 4L2.5 20h19z M12 10v4 M12 17h.01',
  question: 'M9 9a3 3 0 116 0c0 2-3 2-3 4.5 M12 17.5h.01',
  download: 'M12 4v11 M7 11l5 5 5-5 M4 20h16',
  up: 'M12 20V5 M6 11l6-6 6 6',
  down: 'M12 4v15 M6 13l6 6 6-6',
  steady: 'M4 12h16 M15 7l5 5-5 5',
  left: 'M15 5l-7 7 7 7',
  right: 'M9 5l7 7-7 7',
  search: 'M11 4a7 7 0 100 14 7 7 0 000-14z M16 16l5 5',
  flask: 'M9 3h6 M10 3v6l-5.5 9.5A1.6 1.6 0 006 21h12a1.6 1.6 0 001.5-2.5L14 9V3 M7.5 15h9',
  expand: 'M9 4H4v5 M15 4h5v5 M9 20H4v-5 M15 20h5v-5',
} as const;

/** The name of a sign. */
export type IconName = keyof typeof PATHS;

/** A sign of the size of the text around it; it says nothing to a screen reader. */
export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
