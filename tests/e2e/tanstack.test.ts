/** The stock TanStack AI client against the server: every send, cut, reload and failure ends with the exact reply. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CuttingProxy, type Fault, type ProxiedRequest } from "./proxy.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause, pool, range, trial } from "./support.js";
import { hydrated, plainOf, TanStackPage } from "./tanstack.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const begin = (name: string, url = server.url) => new TanStackPage({ url, thread: fresh(name) });

async function through<T>(
  plan: (request: ProxiedRequest) => Fault | undefined,
  work: (proxy: CuttingProxy) => Promise<T>,
): Promise<T> {
  const proxy = await CuttingProxy.begin(server.port, plan);
  try {
    return await work(proxy);
  } finally {
    await proxy.close();
  }
}

/** What the page shows is what the server has, and what a page that is loaded now shows. */
async function agrees(page: TanStackPage) {
  const { thread } = page.options;
  await server.settled(thread);
  const { messages, activeRun } = await hydrated(server.url, thread);
  expect(activeRun).toBeNull();
  expect(plainOf(page.messages)).toEqual(plainOf(messages));
  const again = TanStackPage.opened({ url: server.url, thread });
  await eventually("the page has loaded", () => again.messages.length === messages.length);
  expect(plainOf(again.messages)).toEqual(plainOf(messages));
  again.close();
}

describe("a reply", () => {
  test("send, stream, finish", async () => {
    const page = begin("send");
    await page.chat.sendMessage("count to 40 every 1 ms");
    expect(page.text).toBe(counted(40));
    expect(page.statuses).toEqual(["submitted", "streaming", "ready"]);
    expect(page.errors).toEqual([]);
    expect(page.events[0]).toBe("RUN_STARTED");
    await agrees(page);
    expect((await server.calls(page.options.thread)).called).toBe(1);
  });

  test.each(["think 3", "call weather Lisbon", "say nothing", "help", "count to 3 every 1 ms"])(
    "%s: history shows what the stream showed",
    async (text) => {
      const page = begin("demo");
      await page.chat.sendMessage(text);
      expect(page.errors).toEqual([]);
      expect(page.chat.getStatus()).toBe("ready");
      await agrees(page);
      expect((await server.calls(page.options.thread)).called).toBe(1);
    },
  );

  test("a tool has its input and its output", async () => {
    const page = begin("tool");
    await page.chat.sendMessage("call weather Lisbon");
    expect(page.replies[0]?.parts).toMatchObject([
      {
        type: "tool-call",
        name: "weather",
        state: "complete",
        input: { city: "Lisbon" },
        output: { city: "Lisbon" },
      },
      { type: "tool-result", state: "complete" },
      { type: "text" },
    ]);
    expect(page.text).toMatch(/^In Lisbon it is \d+ °C, /);
    expect((await server.calls(page.options.thread)).called).toBe(1);
  });

  test("a conversation of three turns", async () => {
    const page = begin("turns");
    for (const to of [3, 5, 7]) await page.chat.sendMessage(`count to ${to} every 1 ms`);
    expect(page.messages.map(({ role }) => role).join(" ")).toBe(
      "user assistant user assistant user assistant",
    );
    expect(page.text).toBe(counted(7));
    await agrees(page);
    expect((await server.calls(page.options.thread)).called).toBe(3);
  });

  test("reload() answers the last message again, after a reply and in the middle of one", async () => {
    const page = begin("again");
    await page.chat.sendMessage("count to 5 every 1 ms");
    const first = page.replies[0]?.id;
    await page.chat.reload();
    expect(page.replies.length).toBe(1);
    expect(page.replies[0]?.id).not.toBe(first);
    expect(page.text).toBe(counted(5));
    await agrees(page);

    const sent = page.chat.sendMessage("count to 30 every 5 ms");
    await page.begun(5);
    await page.chat.reload();
    await sent;
    expect(page.text).toBe(counted(30));
    await agrees(page);
    expect((await server.calls(page.options.thread)).called).toBe(4);
  });

  test("what is sent while a reply is written is answered after it", async () => {
    const page = begin("queue");
    const first = page.chat.sendMessage("count to 20 every 5 ms");
    await page.begun(5);
    await page.chat.sendMessage("count to 3 every 1 ms");
    await first;
    await page.shows(counted(3));
    expect(page.replies.length).toBe(2);
    await agrees(page);
  });

  test("a run that fails says what may be said and keeps what was said; the next message is answered", async () => {
    const page = begin("fail");
    await page.chat.sendMessage("fail after 3");
    expect(page.text).toBe(counted(3));
    expect(page.chat.getStatus()).toBe("error");
    expect(page.errors.map(({ message }) => message)).toEqual(["The reply failed. Please try again."]);
    await page.chat.sendMessage("count to 2 every 1 ms");
    expect(page.chat.getStatus()).toBe("ready");
    expect(page.text).toBe(counted(2));
    await agrees(page);
  });

  test("a server that answers 500 is an error; the message is answered once it is sent again", async () => {
    let faulty = true;
    await through(
      () => (faulty ? { status: 500 } : undefined),
      async (proxy) => {
        const page = begin("error-500", proxy.url);
        await page.chat.sendMessage("count to 5 every 1 ms");
        expect(page.chat.getStatus()).toBe("error");
        expect(page.errors.length).toBeGreaterThan(0);
        faulty = false;
        await page.chat.reload();
        expect(page.text).toBe(counted(5));
        await agrees(page);
        expect((await server.calls(page.options.thread)).called).toBe(1);
      },
    );
  });
});

describe("a connection that is cut", () => {
  /** Sends through a proxy; exact if anything had come, else a clear error and exact after a reload. */
  async function survives(
    text: string,
    expected: string,
    plan: (request: ProxiedRequest) => Fault | undefined,
  ) {
    return through(plan, async (proxy) => {
      const page = begin("cut", proxy.url);
      await page.chat.sendMessage(text);
      // Without the first frame the stock client reports an end of its own making, and does not try again.
      if (page.events[0] === "RUN_STARTED") {
        expect(page.errors).toEqual([]);
        expect(page.chat.getStatus()).toBe("ready");
        expect(page.text).toBe(expected);
        await agrees(page);
        return { thread: page.options.thread, resumed: proxy.requests.length > 1 };
      }
      // It says so, unless the response looked like a complete one of no content: to undici that is one without a body
      // on a connection that was announced to close.
      if (page.errors.length === 0) expect(page.events).toEqual(["RUN_FINISHED"]);
      else expect(page.chat.getStatus()).toBe("error");
      expect(page.replies.flatMap(({ parts }) => parts)).toEqual([]);
      const again = page.reloaded({ url: server.url });
      await again.shows(expected);
      await agrees(again);
      return { thread: page.options.thread, resumed: false };
    });
  }

  test("at every byte of the answer", async () => {
    const text = "count to 6 every 4 ms";
    const size = await through(
      () => undefined,
      async (proxy) => {
        await begin("size", proxy.url).chat.sendMessage(text);
        return proxy.bytes[0] ?? 0;
      },
    );
    expect(size).toBeGreaterThan(800);
    const threads: string[] = [];
    let resumed = 0;
    await pool(range(size + 1), 12, (byte) =>
      trial(`byte ${byte}`, 0, async () => {
        const done = await survives(text, counted(6), ({ number }) =>
          number === 0 ? { cutAfter: byte } : undefined,
        );
        threads.push(done.thread);
        if (done.resumed) resumed += 1;
      }),
    );
    const calls = await server.allCalls();
    expect(threads.map((thread) => calls[thread]?.called)).toEqual(threads.map(() => 1));
    expect(resumed).toBeGreaterThan(size * 0.5);
    console.info(`tanstack: cut at ${size + 1} places, resumed at ${resumed}`);
  });

  test("again and again", async () => {
    let resumed = 0;
    await pool(range(30), 10, (number) =>
      trial("cuts", number, async (chance) => {
        const done = await survives("count to 40 every 2 ms", counted(40), (request) =>
          // A cut that lets less than one new frame through is no progress, and the stock client counts those.
          request.number < 12 ? { cutAfter: 900 + Math.floor(chance() * 900) } : undefined,
        );
        if (done.resumed) resumed += 1;
      }),
    );
    expect(resumed).toBe(30);
  });

  test("in the middle of a tool call, of reasoning", async () => {
    for (const text of ["call weather Lisbon", "think 3"]) {
      const whole = begin("whole");
      await whole.chat.sendMessage(text);
      await pool(range(40), 10, (number) =>
        trial(`parts of ${text}`, number, async () => {
          await survives(text, whole.text, (request) =>
            request.number === 0 ? { cutAfter: 300 + number * 90 } : undefined,
          );
        }),
      );
    }
  });
});

describe("a page that is loaded again", () => {
  test("at a random moment, once or more often", async () => {
    await pool(range(30), 6, (number) =>
      trial("reload", number, async (chance) => {
        const page = begin("reload");
        page.chat.sendMessage("count to 40 every 5 ms").catch(() => {});
        await server.knows(page.options.thread);
        await pause(chance() * 280);
        let shown = page;
        for (let left = Math.floor(chance() * 3); left > 0; left--) {
          shown = shown.reloaded();
          await pause(chance() * 60);
        }
        shown = shown.reloaded();
        await shown.shows(counted(40));
        expect(shown.errors).toEqual([]);
        expect(shown.replies.length).toBe(1);
        // Never a word too many on the way, either.
        expect(shown.texts.filter((text) => !counted(40).startsWith(text))).toEqual([]);
        await agrees(shown);
        expect((await server.calls(page.options.thread)).called).toBe(1);
      }),
    );
  });

  test("with its connection cut while it joins", async () => {
    await pool(range(30), 10, (number) =>
      trial("join", number, async (chance) => {
        const page = begin("join");
        page.chat.sendMessage("count to 30 every 4 ms").catch(() => {});
        await page.begun(10);
        await through(
          // 0 is the history, 1 the join. Cut before its first frame, the stock client shows nothing until a reload.
          (request) => (request.number === 1 ? { cutAfter: 700 + Math.floor(chance() * 2000) } : undefined),
          async (proxy) => {
            const again = page.reloaded({ url: proxy.url });
            await again.shows(counted(30));
            await agrees(again);
          },
        );
      }),
    );
  });

  test("is sent older messages by the page", async () => {
    const page = begin("pages");
    for (const to of range(6)) await page.chat.sendMessage(`count to ${to + 1} every 1 ms`);
    const { messages } = await hydrated(server.url, page.options.thread);
    const again = TanStackPage.opened({ url: server.url, thread: page.options.thread, pageSize: 5 });
    await eventually("the newest are there", () => again.messages.length === 5);
    while (again.chat.getHasOlderMessages()) await again.chat.loadOlderMessages();
    expect(plainOf(again.messages)).toEqual(plainOf(messages));
    await again.chat.sendMessage("count to 9 every 1 ms");
    expect(again.text).toBe(counted(9));
    await again.chat.reload();
    expect(again.text).toBe(counted(9));
    await agrees(again);
  });
});

describe("two pages on one thread", () => {
  const open = (thread: string) => TanStackPage.opened({ url: server.url, thread });

  test("the second joins the reply; what either says next is there when the other is loaded again", async () => {
    const first = begin("two");
    const { thread } = first.options;
    const sent = first.chat.sendMessage("count to 60 every 5 ms");
    await first.begun(20);
    const second = open(thread);
    await second.shows(counted(60));
    await sent;
    expect(plainOf(second.messages)).toEqual(plainOf(first.messages));
    await second.chat.sendMessage("count to 3 every 1 ms");
    const again = first.reloaded();
    await eventually("the page has loaded", () => again.messages.length === 4);
    await again.chat.sendMessage("count to 4 every 1 ms");
    await agrees(again);
    expect((await server.calls(thread)).called).toBe(3);
    second.close();
  });

  test("a message from one ends the reply that the other reads", async () => {
    const first = begin("interrupted");
    const sent = first.chat.sendMessage("count to 1000 every 5 ms");
    await first.begun(20);
    const second = open(first.options.thread);
    await second.begun(20);
    second.chat.stop(); // It hangs up.
    await second.chat.sendMessage("count to 3 every 1 ms");
    await sent;
    expect(first.chat.getStatus()).toBe("ready");
    expect(first.errors).toEqual([]);
    expect(second.text).toBe(counted(3));
    const again = second.reloaded();
    await eventually("the page has loaded", () => again.messages.length === 4);
    expect(plainOf(again.messages.slice(0, 2))).toEqual(plainOf(first.messages));
    await agrees(again);
  });

  test.each(["the one that sent it", "the other"])("a stop by %s ends the reply on both", async (who) => {
    const first = begin("stop");
    const { thread } = first.options;
    const sent = first.chat.sendMessage("count to 1000 every 5 ms");
    await first.begun(20);
    const second = open(thread);
    await second.begun(20);
    const runId = (who === "the other" ? second : first).chat.getCurrentRunId();
    const answer = await server.post("/api/tanstack/stop", { threadId: thread, runId });
    expect(await answer.json()).toMatchObject({ run: runId, status: "stopped", stopped: true });
    await sent;
    for (const page of [first, second]) {
      await eventually("it has ended", () => !page.chat.getIsLoading());
      expect(page.chat.getStatus()).toBe("ready");
      expect(page.errors).toEqual([]);
    }
    expect(plainOf(second.messages)).toEqual(plainOf(first.messages));
    await agrees(first);
    second.close();
  });

  test("stop() alone hangs up: the reply goes on, and is there when the page is loaded again", async () => {
    const page = begin("hung-up");
    const sent = page.chat.sendMessage("count to 60 every 5 ms");
    await page.begun(20);
    page.chat.stop();
    await sent;
    expect(page.text.length).toBeLessThan(counted(60).length);
    const again = page.reloaded();
    await again.shows(counted(60));
    await agrees(again);
  });
});

describe("the server goes away", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)("%s in the middle of a reply", async (signal) => {
    const own = await TestServer.begin({ STRANDLINE_SHUTDOWN_GRACE: "0" });
    try {
      const page = new TanStackPage({ url: own.url, thread: fresh("restart") });
      const sent = page.chat.sendMessage("count to 1000 every 5 ms");
      await page.begun(20);
      await own.restart(signal);
      await sent;
      expect(page.chat.getStatus()).toBe("error");
      expect(page.errors.length).toBeGreaterThan(0);
      const { messages } = await hydrated(own.url, page.options.thread);
      const again = page.reloaded();
      await eventually("the page has loaded", () => again.messages.length === 2);
      // What was shown is kept, and nobody waits for the dead.
      expect(again.text.startsWith(page.text)).toBe(true);
      expect(plainOf(again.messages)).toEqual(plainOf(messages));
      expect(again.chat.getIsLoading()).toBe(false);
      await again.chat.sendMessage("count to 3 every 1 ms");
      expect(again.text).toBe(counted(3));
      again.close();
    } finally {
      await own.close();
    }
  });
});
