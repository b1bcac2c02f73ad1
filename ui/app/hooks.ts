/** What components share beside markup. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { ask, ServerError } from './api.js';

/** An answer on its way. */
export interface Resource<Answer> {
  readonly data: Answer | undefined;
  readonly error: ServerError | undefined;
  readonly loading: boolean;
}

/**
 * An answer of the server. It is asked for again when `refresh` changes, meanwhile the last one stays; with another path
 * the last one goes.
 *
 * @param path null asks for nothing
 */
export function useAnswer<Answer>(path: string | null, refresh: unknown = 0): Resource<Answer> {
  const [state, setState] = useState<Resource<Answer> & { readonly path: string | null }>({
    path: null,
    data: undefined,
    error: undefined,
    loading: false,
  });
  const latest = useRef(refresh);
  latest.current = refresh;
  const again = useRef<() => void>(() => undefined);
  useEffect(() => {
    if (path === null) return undefined;
    const abort = new AbortController();
    let isAsking = false;
    const keep = (what: Pick<Resource<Answer>, 'error' | 'loading'>): void =>
      setState(({ path: last, data }) => ({
        ...{ path, data: last === path ? data : undefined, ...what },
      }));
    again.current = (): void => {
      // A question on its way is waited for: on a slow line it would be asked anew again and again.
      if (isAsking) return;
      isAsking = true;
      const asked = latest.current;
      keep({ error: undefined, loading: true });
      const answered = (): void => {
        isAsking = false;
        if (latest.current !== asked) again.current();
      };
      ask<Answer>(path, abort.signal).then(
        (data) => {
          if (abort.signal.aborted) return;
          setState({ path, data, error: undefined, loading: false });
          answered();
        },
        (error: unknown) => {
          if (abort.signal.aborted) return;
          keep({ error: asServerError(error), loading: false });
          answered();
        },
      );
    };
    return () => {
      abort.abort();
      again.current = () => undefined;
    };
  }, [path]);
  useEffect(() => again.current(), [path, refresh]);
  if (state.path !== path) return { data: undefined, error: undefined, loading: path !== null };
  return state;
}

/** Whatever was thrown, as what can be shown. */
export function asServerError(error: unknown): ServerError {
  if (error instanceof ServerError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ServerError(0, { code: 'E_PAGE', message });
}

/** A value that follows another one at most every `milliseconds`. */
export function useThrottled<Value>(value: Value, milliseconds: number): Value {
  const [shown, setShown] = useState(value);
  const last = useRef(0);
  useEffect(() => {
    const wait = Math.max(0, last.current + milliseconds - performance.now());
    const timer = setTimeout(() => {
      last.current = performance.now();
      setShown(value);
    }, wait);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return shown;
}

/** A value that follows another one once it has stood still for `milliseconds`. */
export function useSettled<Value>(value: Value, milliseconds: number): Value {
  const [shown, setShown] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setShown(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return shown;
}
