/** The conversation of a thread as it is loaded (PROTOCOL §11.8, §11.11): when, how much of it, and again. */
import type { Hydrated } from "./ag-ui.js";
import type { Clock, RetryOptions } from "./backoff.js";
import type { StrandlineError } from "./errors.js";
import { type Post, postUntilAnswered } from "./post.js";
import { type OnStatus, reportWait } from "./status.js";

export interface ConversationOptions<BEGUN> {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  onStatus: OnStatus;
  /** `GET`: the newest `limit` messages, or all. */
  load(limit: number | undefined): Promise<Response>;
  /** How many messages the chat shows. */
  shown(): number;
  /** Whether it is asked for until it comes. */
  isPatient(): boolean;
  /** What was so when it was asked for comes back with the answer. */
  onBegin(): BEGUN;
  /** As much of it as the chat shows. */
  onFound(found: Hydrated, begun: BEGUN): void;
  onRefused(error: StrandlineError): void;
}

export interface Conversation {
  readonly isLoading: boolean;
  /** For the chat, which decides how much it shows. The answer is also told, a moment later. */
  hydrate(limit: number | undefined): Promise<Hydrated>;
  /** The chat was given older messages. */
  prepend(found: Hydrated): void;
  /** Loads it after this long. */
  later(ms: number): void;
  /** Loads it at once, but ever later as long as nothing comes of it. */
  again(): void;
  /** Something came of it. */
  progress(): void;
  stop(): void;
}

/** How many more messages than are shown are loaded again, when the chat shows a part of the conversation. */
const MARGIN = 50;

export function createConversation<BEGUN>(options: ConversationOptions<BEGUN>): Conversation {
  const { clock, retry, stallAfterMs, onStatus } = options;
  let loading: { post: Post; limit: number | undefined; found: Promise<Hydrated> } | undefined;
  let timer: unknown;
  let fruitless = 0;
  /** Oldest message that the chat shows, when there are older ones. */
  let oldest: string | undefined;

  const conversation: Conversation = {
    get isLoading() {
      return loading !== undefined;
    },
    hydrate(limit) {
      // Two that ask at the same moment are told the same, in whatever order they hear it.
      return loading !== undefined && loading.limit === limit ? loading.found : load(limit, true);
    },
    prepend({ messages, page }) {
      oldest = page.truncated ? messages[0]?.id : undefined;
    },
    later(ms) {
      clock.clearTimeout(timer);
      timer = clock.setTimeout(() => {
        const limit = oldest === undefined ? undefined : options.shown() + MARGIN;
        void load(limit, false).catch(() => {}); // Told to `onRefused`.
      }, ms);
    },
    again() {
      const bound = Math.min(retry.maxDelayMs, retry.minDelayMs * 2 ** fruitless);
      conversation.later(fruitless++ === 0 ? 0 : bound * clock.random());
    },
    progress() {
      fruitless = 0;
    },
    stop() {
      clock.clearTimeout(timer);
      loading?.post.limit(0);
      loading = undefined;
    },
  };
  return conversation;

  /** The newest one counts. */
  function load(limit: number | undefined, isAsked: boolean): Promise<Hydrated> {
    clock.clearTimeout(timer);
    const begun = options.onBegin();
    const giveUpAfterMs = options.isPatient() ? Number.POSITIVE_INFINITY : retry.giveUpAfterMs;
    const post = postUntilAnswered({
      clock,
      retry: { ...retry, giveUpAfterMs },
      stallAfterMs,
      isRead: true,
      onAttempt: () => onStatus("connecting", {}),
      onWait: reportWait(onStatus, () => undefined),
      send: () => options.load(limit),
    });
    const found = post.answer.then((response) => response.json() as Promise<Hydrated>);
    const mine = { post, limit, found };
    loading = mine;
    found.then(
      (answer) => {
        if (loading !== mine) return;
        if (isAsked) conversation.prepend(answer);
        // A moment later: first the chat takes what it has asked for.
        timer = clock.setTimeout(() => {
          if (loading !== mine) return;
          loading = undefined;
          options.onFound(isAsked ? answer : inView(answer), begun);
        }, 0);
      },
      (error: StrandlineError) => {
        if (loading !== mine) return;
        loading = undefined;
        options.onRefused(error);
      },
    );
    return found;
  }

  function inView(found: Hydrated): Hydrated {
    const from = found.messages.findIndex(({ id }) => id === oldest);
    return from > 0 ? { ...found, messages: found.messages.slice(from) } : found;
  }
}
