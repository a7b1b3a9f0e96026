/**
 * A POST that is repeated until it is answered. Every one that this package sends is idempotent: a message by its key,
 * a stop by what it is. It is never aborted: the browser cannot take back what a server may have read already, so a
 * POST that was given up on would be one whose fate is unknown.
 */
import {
  type Clock,
  createBackoff,
  type Failure,
  isTransient,
  type RetryOptions,
  retryAfter,
  type Wait,
} from "./backoff.js";
import { discard } from "./connection.js";
import { httpError } from "./errors.js";

export interface PostOptions {
  clock: Clock;
  retry: RetryOptions;
  /** After this long without headers it is sent again, while the first one stays: whichever is answered first counts. */
  stallAfterMs: number;
  send(): Promise<Response>;
  /** It only reads, so it costs nothing to repeat: 429 and 500 are waited out, however often they come. */
  isRead?: boolean;
  onAttempt?(): void;
  onWait?(wait: Wait): void;
}

export interface Post {
  /** The first answer that a repetition could not change: 2xx. Rejects for 4xx, and when it is time to give up. */
  readonly answer: Promise<Response>;
  /** Not repeated any more when this much time has passed. */
  limit(ms: number): void;
  /** Not repeated any more, and answered with an error. What is under way arrives or does not. */
  cancel(error: unknown): void;
}

/** A server that crashes this often over the same request would do so for ever. */
const MOST_CRASHES = 4;

export function postUntilAnswered(options: PostOptions): Post {
  const { clock, stallAfterMs, send } = options;
  const life = new AbortController();
  const backoff = createBackoff(clock, options.retry, life.signal, (wait) => options.onWait?.(wait));
  let crashes = 0;
  let settle: (
    end: (resolve: (response: Response) => void, reject: (error: unknown) => void) => void,
  ) => void;

  const answer = new Promise<Response>((resolve, reject) => {
    settle = (end) => {
      if (life.signal.aborted) return;
      life.abort();
      end(resolve, reject);
    };
  });
  repeat().catch((error) => settle((_, reject) => reject(error)));

  return {
    answer,
    limit: (ms) => backoff.limit(ms),
    cancel: (error) => settle((_, reject) => reject(error)),
  };

  async function repeat(): Promise<void> {
    while (!life.signal.aborted) {
      options.onAttempt?.();
      const failure = await patiently(attempt());
      if (failure === undefined) return;
      await backoff.pause(failure);
    }
  }

  /** Undefined when there is nothing left to do. */
  async function attempt(): Promise<Failure | undefined> {
    let response: Response;
    try {
      response = await send();
    } catch (cause) {
      return { cause };
    }
    if (life.signal.aborted) {
      discard(response); // An earlier or later one was answered before.
      return undefined;
    }
    if (response.ok) {
      settle((resolve) => resolve(response));
      return undefined;
    }
    const failure = { cause: await httpError(response), retryAfterMs: retryAfter(response) };
    const isPassing = options.isRead
      ? isTransient(response) || response.status === 429
      : isTransient(response) && !(response.status === 500 && ++crashes >= MOST_CRASHES);
    if (isPassing) return failure;
    settle((_, reject) => reject(failure.cause));
    return undefined;
  }

  function patiently(work: Promise<Failure | undefined>): Promise<Failure | undefined> {
    return new Promise((resolve) => {
      const end = (failure?: Failure) => {
        clock.clearTimeout(timer);
        life.signal.removeEventListener("abort", answered);
        resolve(failure);
      };
      const answered = () => end();
      const timer = clock.setTimeout(() => end({ cause: "stalled" }), stallAfterMs);
      life.signal.addEventListener("abort", answered);
      void work.then(end);
    });
  }
}
