/** The stream that the chat reads: it outlives every connection that fills it. */

export interface Outlet<T> {
  readonly stream: ReadableStream<T>;
  push(items: readonly T[]): void;
  /** Ends the stream after everything that was pushed has been read, with an error if one is given. */
  end(error?: unknown): void;
  /** Ends the stream with an error at once; what has not been read is dropped. */
  fail(error: unknown): void;
  /** Resolves when the reader has caught up enough to be given more. Undefined when it has. */
  ready(): Promise<void> | undefined;
  /** Resolves when the reader has seen the end, or has left. */
  readonly ended: Promise<void>;
}

/** A reader that is this many chunks behind makes us stop reading from the server, which then slows down or drops us. */
const MOST_WAITING = 1024;

/**
 * Chunks are handed over one per read and the end comes last, because `controller.error()` throws away what a stream
 * holds: the words before a stop would be lost.
 */
export function createOutlet<T>(onCancel: () => void): Outlet<T> {
  let waiting: T[] = [];
  let next = 0;
  let wanted = false;
  let ending: { error?: unknown } | undefined;
  let caughtUp: (() => void) | undefined;
  let markEnded: () => void = () => {};
  let open = true;
  let controller!: ReadableStreamDefaultController<T>;

  const settle = (finish?: () => void) => {
    if (!open) return;
    open = false;
    waiting = [];
    finish?.();
    caughtUp?.();
    markEnded();
  };

  const pump = () => {
    if (!open) return;
    if (next < waiting.length) {
      if (!wanted) return;
      wanted = false;
      controller.enqueue(waiting[next++] as T);
    }
    if (next < waiting.length) return;
    waiting = [];
    next = 0;
    caughtUp?.();
    if (ending === undefined) return;
    const { error } = ending;
    // The last chunk went to a read that was given up, and is still in the stream: the next read comes for it.
    if (error !== undefined && controller.desiredSize !== 0) return;
    settle(() => (error === undefined ? controller.close() : controller.error(error)));
  };

  const stream = new ReadableStream<T>(
    {
      start(started) {
        controller = started;
      },
      pull() {
        wanted = true;
        pump();
      },
      cancel() {
        settle();
        onCancel();
      },
    },
    { highWaterMark: 0 },
  );

  return {
    stream,
    push(items) {
      if (!open || ending !== undefined) return;
      for (const item of items) waiting.push(item);
      pump();
    },
    end(error) {
      if (ending !== undefined) return;
      ending = { error };
      pump();
    },
    fail: (error) => settle(() => controller.error(error)),
    ready() {
      if (!open || waiting.length - next < MOST_WAITING) return undefined;
      return new Promise((resolve) => {
        caughtUp = resolve;
      });
    },
    ended: new Promise((resolve) => {
      markEnded = resolve;
    }),
  };
}
