/** What keeps a chat equal to its session, with a chat and a session that do only as they are told. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createSync, type SyncedChat, type SyncedMessage } from "../../js-adapter/src/react-sync.js";
import type { SessionView } from "../../js-adapter/src/session.js";

interface Said extends SyncedMessage {
  text: string;
}
const user = (id: string, text = id): Said => ({ id, role: "user", text });
const reply = (id: string, text = id): Said => ({ id, role: "assistant", text });
const copy = (message: Said): Said => ({ ...message });

/** A chat that renders at once: `update` is called after every change, as an effect would. */
class Page {
  status: SyncedChat["status"] = "ready";
  messages: Said[] = [];
  view: SessionView = view([], [], null);
  /** What was put in place, in order. */
  readonly puts: string[][] = [];
  /** Ends of the streams that were resumed and are open. */
  readonly resumed: (() => void)[] = [];
  resumes = 0;
  stops = 0;
  readonly sync = createSync<Said>(() => this.render());

  readonly chat = (): SyncedChat<Said> => {
    const page = this;
    return {
      id: "s1",
      status: this.status,
      messages: this.messages,
      setMessages(next) {
        page.messages = typeof next === "function" ? next(page.messages) : [...next];
        page.puts.push(page.messages.map(({ id }) => id));
        page.render();
      },
      resumeStream() {
        page.resumes++;
        return new Promise((resolve) => page.resumed.push(() => resolve()));
      },
      async stop() {
        page.stops++;
        for (const end of page.resumed.splice(0)) end();
      },
    };
  };

  render(): void {
    if (this.puts.length > 50) throw new Error("it never comes to rest");
    this.sync.update(this.chat(), this.view);
  }

  /** The session has changed. */
  see(messages: Said[], writing: string[] = [], pending: string[] = []): void {
    this.view = view(messages, writing, "c1", pending);
    this.render();
  }

  get ids(): string[] {
    return this.messages.map(({ id }) => id);
  }
}

function view(
  messages: Said[],
  writing: string[],
  cursor: string | null,
  pending: string[] = [],
): SessionView {
  const activeRuns = writing.map((messageId) => ({ id: `run-${messageId}`, messageId, status: "running" }));
  const marked = messages.map((one) => (pending.includes(one.id) ? { ...one, pending: true } : one));
  // What is being written is part of the session from its first moment.
  const known = new Set(messages.map(({ id }) => id));
  for (const id of writing) if (!known.has(id)) marked.push(reply(id, ""));
  return {
    id: "s1",
    status: "live",
    messages: marked,
    activeRuns,
    decisions: [],
    cursor,
  } as unknown as SessionView;
}

const settle = async () => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};

let page: Page;
beforeEach(() => {
  page = new Page();
});
afterEach(() => void vi.useRealTimers());

describe("a chat that streams nothing", () => {
  test("is left alone before the session is known", () => {
    page.messages = [user("u1")];
    page.render();
    expect(page.puts).toEqual([]);
  });

  test("is made equal to the session, once", () => {
    const messages = [user("u1"), reply("m1")];
    page.see(messages);
    expect(page.messages).toEqual(messages);
    page.render();
    page.see([...messages]);
    expect(page.puts.length).toBe(1);
  });

  test.each(["approval-responded", "output-available", "output-error"])(
    "keeps what its user has just answered (%s) until the session has an answer",
    (state) => {
      const part = (now: string) => ({
        ...reply("m1"),
        parts: [{ type: "tool-x", toolCallId: "k", state: now }],
      });
      const asked = [user("u1"), part("approval-requested")];
      page.see(asked);
      page.view = {
        ...page.view,
        decisions: [{ messageId: "m1", toolCallId: "k" }],
      } as unknown as SessionView;
      page.render();
      const mine = part(state);
      page.messages = [user("u1"), mine];
      page.render();
      expect(page.messages[1]).toBe(mine);
      page.see([user("u1"), part("output-denied")]);
      expect(page.messages[1]).toMatchObject({ parts: [{ state: "output-denied" }] });
    },
  );

  test("takes the session's words for its own when they differ", () => {
    page.messages = [user("u1"), reply("m1", "half")];
    page.see([user("u1"), reply("m1", "half of it")]);
    expect(page.messages[1]?.text).toBe("half of it");
  });

  test("loses what was deleted, edited away or regenerated elsewhere", () => {
    page.see([user("u1"), reply("m1"), user("u2"), reply("m2")]);
    page.see([user("u1"), reply("m1"), user("u2"), reply("m3")]);
    expect(page.ids).toEqual(["u1", "m1", "u2", "m3"]);
    page.see([user("u1"), reply("m1")]);
    expect(page.ids).toEqual(["u1", "m1"]);
    page.see([]);
    expect(page.ids).toEqual([]);
  });

  test("keeps a message that was never accepted, in its place", () => {
    const first = [user("u1"), reply("m1")];
    page.see(first);
    page.messages = [...first, user("lost")];
    page.status = "error";
    page.render();
    expect(page.ids).toEqual(["u1", "m1", "lost"]);
    expect(page.sync.unsent(page.chat(), page.view).map(({ id }) => id)).toEqual(["lost"]);
    page.see([...first, user("u2"), reply("m2")]);
    expect(page.ids).toEqual(["u1", "m1", "lost", "u2", "m2"]);
  });

  test("does not keep a message that the session shows while it is on its way, once that has failed", () => {
    page.see([user("u1")], [], ["u1"]);
    page.see([]);
    // It was never accepted, so it is the user's to send again.
    expect(page.ids).toEqual(["u1"]);
    page.see([user("u1")]);
    page.see([]);
    expect(page.ids).toEqual([]);
  });

  test("loses the pages before that of the session, which it may load again", () => {
    page.messages = [user("u0"), reply("m0"), user("u1")];
    page.see([user("u1"), reply("m1")]);
    expect(page.ids).toEqual(["u1", "m1"]);
  });
});

describe("a reply that is written elsewhere", () => {
  test("is resumed once, without what is there of it", async () => {
    page.messages = [user("u1"), reply("m1", "half")];
    page.see([user("u1"), reply("m1", "half o")], ["m1"]);
    expect(page.ids).toEqual(["u1"]);
    page.render();
    page.see([user("u1"), reply("m1", "half of")], ["m1"]);
    expect(page.resumes).toBe(1);
  });

  test("is not touched while the stream writes it", () => {
    page.see([user("u1")], ["m1"]);
    page.status = "streaming";
    page.messages = [...page.messages, reply("m1", "ha")];
    const { length } = page.puts;
    page.see([user("u1"), reply("m1", "half")], ["m1"]);
    page.see([user("u1"), reply("m1", "half.")], []);
    expect(page.messages[1]?.text).toBe("ha");
    expect(page.puts.length).toBeLessThanOrEqual(length + 1);
    page.status = "ready";
    for (const end of page.resumed.splice(0)) end();
    page.render();
  });

  test("is the session's when its stream has ended", async () => {
    page.see([user("u1")], ["m1"]);
    page.messages = [...page.messages, reply("m1", "half")];
    page.see([user("u1"), reply("m1", "half.")]);
    for (const end of page.resumed.splice(0)) end();
    await settle();
    expect(page.messages[1]?.text).toBe("half.");
    expect(page.resumes).toBe(1);
  });

  test("that cannot be read is shown as the session has it", async () => {
    vi.useFakeTimers();
    page.see([user("u1"), reply("m1", "a")], ["m1"]);
    for (let i = 0; i < 10; i++) {
      for (const end of page.resumed.splice(0)) end();
      await vi.advanceTimersByTimeAsync(10_000);
    }
    expect(page.resumes).toBe(4);
    page.see([user("u1"), reply("m1", "ab")], ["m1"]);
    expect(page.messages[1]?.text).toBe("ab");
    // The next reply is read as ever.
    page.see([user("u1"), reply("m1", "abc"), user("u2")], ["m2"]);
    expect(page.resumes).toBe(5);
  });

  test("is on the screen while the next attempt is waited for", async () => {
    vi.useFakeTimers();
    page.see([user("u1"), reply("m1", "a")], ["m1"]);
    for (let i = 0; i < 2; i++) {
      for (const end of page.resumed.splice(0)) end();
      await settle();
    }
    expect(page.resumes).toBe(2);
    expect(page.ids).toEqual(["u1", "m1"]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(page.resumes).toBe(3);
    expect(page.ids).toEqual(["u1"]);
  });
});

describe("a request of this device", () => {
  test("lets go of what is read, and is not disturbed", async () => {
    page.see([user("u1")], ["m1"]);
    expect(page.resumes).toBe(1);
    let finish = () => {};
    const done = page.sync.request(async () => {
      expect(page.stops).toBe(1);
      page.status = "streaming";
      page.messages = [...page.messages, user("u2")];
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
    await settle();
    page.see([user("u1"), reply("m1"), user("u2")], ["m2"]);
    expect(page.resumes).toBe(1);
    expect(page.ids).toEqual(["u1", "u2"]);
    page.status = "ready";
    page.see([user("u1"), reply("m1"), user("u2"), reply("m2")]);
    finish();
    await done;
    expect(page.ids).toEqual(["u1", "m1", "u2", "m2"]);
    expect(page.stops).toBe(1);
  });

  test("does not wait for a chat that reads nothing", async () => {
    page.see([]);
    await page.sync.request(async () => {});
    expect(page.stops).toBe(0);
  });

  test("leaves its message unsent when it fails", async () => {
    page.see([]);
    const failed = page.sync.request(async () => {
      page.messages = [user("u1")];
      page.status = "error";
      throw new Error("no");
    });
    expect(page.sync.unsent(page.chat(), page.view)).toEqual([]);
    await expect(failed).rejects.toThrow("no");
    expect(page.sync.unsent(page.chat(), page.view).map(({ id }) => id)).toEqual(["u1"]);
  });

  test("mends the reply that it interrupted, and nothing else", async () => {
    page.see([user("u1")], ["m1"]);
    page.messages = [...page.messages, reply("m1", "half")];
    let finish = () => {};
    const done = page.sync.request(async () => {
      page.status = "streaming";
      page.messages = [...page.messages, user("u2", "edited"), reply("m2", "own")];
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
    await settle();
    page.see([user("u1"), reply("m1", "half."), user("u2"), reply("m2", "ow")], []);
    expect(page.messages.map(({ text }) => text)).toEqual(["u1", "half.", "edited", "own"]);
    finish();
    await done;
  });
});

describe("what is on the screen", () => {
  const shown = () => page.sync.shown(page.chat(), page.view);
  const texts = () => shown().map(({ text }) => text);

  test("is the chat's own before the session is known", () => {
    page.messages = [user("u1")];
    page.render();
    expect(shown()).toBe(page.messages);
  });

  test("is what the session has while the chat resumes, with what waits behind it", () => {
    page.see([user("u1"), reply("m1", "half"), user("u2")], ["m1"]);
    expect(page.resumes).toBe(1);
    expect(page.ids).not.toContain("m1");
    expect(texts()).toEqual(["u1", "half", "u2"]);
    page.see([user("u1"), reply("m1", "half of"), user("u2")], ["m1"]);
    expect(texts()).toEqual(["u1", "half of", "u2"]);
  });

  test("has no reply that has not begun", () => {
    page.see([user("u1"), { ...reply("m1"), parts: [] } as Said], ["m1"]);
    expect(texts()).toEqual(["u1"]);
    page.see([user("u1"), { ...reply("m1"), parts: [{}] } as Said], ["m1"]);
    expect(texts()).toEqual(["u1", "m1"]);
  });

  test("of a request of this device is what its chat says, without what was deleted, with what came after", async () => {
    page.see([user("u1"), reply("m1")]);
    let finish = () => {};
    const done = page.sync.request(async () => {
      page.status = "streaming";
      page.messages = [...page.messages, user("u2"), reply("m2", "own")];
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
    page.see([user("u1", "corrected"), reply("m1"), user("u2"), reply("m2", "ow"), user("u3")], ["m2"]);
    expect(texts()).toEqual(["corrected", "m1", "u2", "own", "u3"]);
    page.see([user("u2"), reply("m2", "ow"), user("u3")], ["m2"]);
    expect(texts()).toEqual(["u2", "own", "u3"]);
    finish();
    await done;
  });

  test("is the same array until something changes", () => {
    page.see([user("u1")]);
    const before = shown();
    expect(shown()).toBe(before);
    page.see([...page.messages, reply("m1")]);
    expect(shown()).not.toBe(before);
  });
});

test("letting go and taking up again resumes", async () => {
  page.see([user("u1")], ["m1"]);
  page.sync.detach();
  expect(page.stops).toBe(1);
  await settle();
  expect(page.resumes).toBe(2);
});

test("the objects of the session are compared by identity only", () => {
  const messages = [user("u1"), reply("m1")];
  page.see(messages);
  page.see(messages.map(copy));
  expect(page.puts.length).toBe(2);
});
