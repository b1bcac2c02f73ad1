/** Where the page is: `#/metrics?runs=a,b`. A place can be copied, opened in another tab and gone back to. */
import { computed, signal } from '@preact/signals';

/** The part before the question mark, split at slashes, and the query. */
export interface Place {
  readonly path: readonly string[];
  readonly query: Readonly<Record<string, string>>;
}

const hash = signal(location.hash);
window.addEventListener('hashchange', () => {
  hash.value = location.hash;
});

/** The place that the address names. */
export const place = computed(() => parsePlace(hash.value));

/** Reads the part of an address after `#`. */
export function parsePlace(text: string): Place {
  const [path = '', query = ''] = text.replace(/^#\/?/, '').split('?');
  return {
    path: path
      .split('/')
      .filter((part) => part !== '')
      .map(decoded),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

/** The address of a place. */
export function href(
  path: readonly (string | number)[],
  query: Readonly<Record<string, string | number | undefined>> = {},
): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== '') search.set(name, String(value));
  const text = search.toString();
  const parts = path.map((part) => encodeURIComponent(part)).join('/');
  return `#/${parts}${text === '' ? '' : `?${text}`}`;
}

/** Goes to a place. `replace` leaves no trace in the history: for what changes while somebody types. */
export function go(to: string, { replace = false } = {}): void {
  if (replace) {
    history.replaceState(null, '', to);
    hash.value = location.hash;
  } else location.hash = to;
}

/** The same place with some of the query changed; undefined takes a part away. */
export function withQuery(changes: Readonly<Record<string, string | number | undefined>>): string {
  return href(place.value.path, { ...place.value.query, ...changes });
}
