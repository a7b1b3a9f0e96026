/** TanStack AI chats with our connection: whatever the network does, every page ends with what the server has. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CuttingProxy, type Fault, type ProxiedRequest } from "./proxy.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause, pool, range, trial } from "./support.js";
import { agrees, hydrated, idle, plainOf, TanStackPage, textOf } from "./tanstack.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const live = (thread: string, url = server.url) => TanStackPage.live({ url, thread });

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

const isFeed = ({ path }: ProxiedRequest) => path.includes("/events");
const isLoad = ({ method, path }: ProxiedRequest) => method === "GET" && !path.includes("/events");

/** The nth request of a kind meets the fault, and no other. */
function nth(which: (request: ProxiedRequest) => boolean, fault: Fault, n = 0) {
  let seen = 0;
  return (request: ProxiedRequest) => (which(request) && seen++ === n ? fault : undefined);
}

describe("a reply", () => {
  test.each(["count to 40 every 1 ms", "think 3", "call weather Lisbon", "say nothing", "help"])(
    "%s: the page shows what history shows",
    async (text) => {
      const page = live(fresh("demo"));
      await page.chat.sendMessage(text);
      expect(page.errors).toEqual([]);
      // A short reply may be over before the page has loaded the thread that its first message begins.
      const isLong = text === "help";
      expect(page.statuses.filter((status) => isLong || status !== "streaming")).toEqual(
        isLong ? ["submitted", "streaming", "ready"] : ["submitted", "ready"],
      );
      expect(page.chat.getIsLoading()).toBe(false);
      await agrees(server, page);
      expect((await server.calls(page.options.thread)).called).toBe(1);
      page.close();
    },
  );

  test("what came after a reply that was started over is there when that has ended", async () => {
    const thread = fresh("behind");
    const say = (text: string) =>
      server.post(`/api/sessions/${thread}/messages`, {
        message: { id: fresh("u"), role: "user", parts: [{ type: "text", text }] },
        submit: "concurrent",
      });
    await say("restart after 600 ms");
    await say("count to 3 every 1 ms");
    const said = async () =>
      JSON.stringify(await (await fetch(`${server.url}/api/sessions/${thread}`)).json());
    await eventually("it was started over", async () => /new words/.test(await said()));
    expect(await said()).toContain(counted(3));
    const page = live(thread);
    await agrees(server, page);
    expect(page.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
    page.close();
  });

  test("what another device says is shown, also where its id begins like one that is there", async () => {
    const thread = fresh("alike");
    const say = (id: string) =>
      server.post(`/api/sessions/${thread}/messages`, {
        message: { id, role: "user", parts: [{ type: "text", text: "count to 3 every 1 ms" }] },
      });
    await say(`${thread}-1`);
    await server.settled(thread);
    const page = live(thread);
    await agrees(server, page);
    await eventually("it follows", () => page.network.at(-1) === "live");
    await say(`${thread}-10`);
    await server.settled(thread);
    await agrees(server, page);
    const shown = page.messages.filter(({ id }) => id === `${thread}-10`);
    expect(shown.map(textOf)).toEqual(["count to 3 every 1 ms"]);
    page.close();
  });

  test("a conversation, a reload() after a reply and in the middle of one", async () => {
    const page = live(fresh("turns"));
    for (const to of [3, 5, 7]) await page.chat.sendMessage(`count to ${to} every 1 ms`);
    expect(page.text).toBe(counted(7));
    const first = page.replies.at(-1)?.id;
    await page.chat.reload();
    expect(page.replies.length).toBe(3);
    expect(page.replies.at(-1)?.id).not.toBe(first);
    expect(page.text).toBe(counted(7));
    const sent = page.chat.sendMessage("count to 30 every 5 ms");
    await page.begun(5);
    await page.chat.reload();
    await sent;
    expect(page.text).toBe(counted(30));
    expect(page.errors).toEqual([]);
    await agrees(server, page);
    expect((await server.calls(page.options.thread)).called).toBe(6);
    page.close();
  });

  test("what is sent while a reply is written is answered after it, or instead of it", async () => {
    const page = live(fresh("queue"));
    const first = page.chat.sendMessage("count to 20 every 5 ms");
    await page.begun(5);
    await page.chat.sendMessage("count to 3 every 1 ms");
    await first;
    await page.shows(counted(3));
    const long = page.chat.sendMessage("count to 500 every 5 ms");
    await page.begun(5);
    await page.chat.sendMessage("count to 4 every 1 ms", undefined, { whenBusy: "interrupt" });
    await long;
    await page.shows(counted(4));
    expect(page.replies.length).toBe(4);
    expect(page.errors).toEqual([]);
    await agrees(server, page);
    page.close();
  });

  test("a run that fails says what may be said; the next message is answered", async () => {
    const thread = fresh("fail");
    const [page, other] = [live(thread), live(thread)];
    await page.chat.sendMessage("fail after 3");
    expect(page.text).toBe(counted(3));
    expect(page.chat.getStatus()).toBe("error");
    expect(page.errors.map(({ message }) => message)).toEqual(["The reply failed. Please try again."]);
    await page.chat.sendMessage("count to 2 every 1 ms");
    expect(page.chat.getStatus()).toBe("ready");
    await other.shows(counted(2));
    await agrees(server, page, other);
    page.close();
    other.close();
  });

  test("a message with a file is the same on both pages", async () => {
    const thread = fresh("file");
    const [page, other] = [live(thread), live(thread)];
    await page.chat.sendMessage("count to 2 every 1 ms");
    await other.shows(counted(2));
    const source = { type: "data" as const, value: "iVBORw0KGgo=", mimeType: "image/png" };
    await page.chat.sendMessage({
      content: [
        { type: "text", content: "count to 3 every 1 ms" },
        { type: "image", source },
      ],
    });
    await other.shows(counted(3));
    expect(page.messages[2]?.parts.length).toBe(2);
    await agrees(server, page, other);
    page.close();
    other.close();
  });

  test("a message that is refused is an error, and stays until it is sent again", async () => {
    const page = live(fresh("refused"));
    await page.chat.sendMessage("count to 2 every 1 ms");
    await page.chat.sendMessage({ content: "count to 3 every 1 ms", id: "a b" });
    expect(page.chat.getStatus()).toBe("error");
    expect(page.errors.at(-1)).toMatchObject({ code: "http", status: 422 });
    expect(page.messages.length).toBe(3);
    expect(page.ours?.drop()).toBe(true);
    await eventually("it reads again", () => page.network.at(-1) === "live");
    expect(page.messages.length).toBe(3);
    page.close();
  });
});

describe("a connection that is cut", () => {
  async function survives(plan: (request: ProxiedRequest) => Fault | undefined, text: string, said: string) {
    return through(plan, async (proxy) => {
      const page = live(fresh("cut"), proxy.url);
      await page.chat.sendMessage(text);
      expect(page.errors).toEqual([]);
      expect(page.chat.getStatus()).toBe("ready");
      expect(page.text).toBe(said);
      await agrees(server, page);
      page.close();
      return page.options.thread;
    });
  }

  /** How large the largest answer of this kind is while a page sends this. */
  async function size(which: (request: ProxiedRequest) => boolean, text: string): Promise<number> {
    return through(
      () => undefined,
      async (proxy) => {
        const page = live(fresh("size"), proxy.url);
        await page.chat.sendMessage(text);
        page.close();
        return Math.max(...proxy.requests.filter(which).map(({ number }) => proxy.bytes[number] ?? 0));
      },
    );
  }

  test.each([
    ["the live thread", isFeed, 0, 800],
    ["the answer to the message", ({ method }: ProxiedRequest) => method === "POST", 0, 100],
    ["the conversation that is loaded", isLoad, 1, 200],
  ] as const)("at every byte of %s", async (_, which, n, least) => {
    const text = "count to 3 every 3 ms";
    // On a busy machine the reply may be over before the page has loaded the thread.
    const bytes = await eventually(
      "a page has seen all of it",
      async () => {
        const found = await size(which, text);
        return found > least && found;
      },
      30_000,
    );
    const threads: string[] = [];
    await pool(range(bytes + 1), 12, (byte) =>
      trial(`byte ${byte}`, 0, async () => {
        threads.push(await survives(nth(which, { cutAfter: byte }, n), text, counted(3)));
      }),
    );
    const calls = await server.allCalls();
    expect(threads.map((thread) => calls[thread]?.called)).toEqual(threads.map(() => 1));
  });

  test("again and again, also in the middle of a tool call and of reasoning", async () => {
    for (const [text, most] of [
      ["count to 40 every 2 ms", 900],
      ["call weather Lisbon", 700],
      ["think 3", 700],
    ] as const) {
      const whole = live(fresh("whole"));
      await whole.chat.sendMessage(text);
      whole.close();
      await pool(range(20), 10, (number) =>
        trial(`cuts of ${text}`, number, async (chance) => {
          await survives(
            (request) => (request.number < 25 ? { cutAfter: Math.floor(chance() * most) } : undefined),
            text,
            whole.text,
          );
        }),
      );
    }
  });

  test.each([500, 503, 429])("a server that answers %i for a while is asked again", async (status) => {
    let faulty = true;
    await through(
      ({ method }) => (faulty && (method === "GET" || status === 503) ? { status } : undefined),
      async (proxy) => {
        const page = live(fresh("busy"), proxy.url);
        const sent = page.chat.sendMessage("count to 5 every 1 ms");
        await eventually("it was asked a few times", () => proxy.requests.length > 5);
        faulty = false;
        await sent;
        expect(page.text).toBe(counted(5));
        expect(page.errors).toEqual([]);
        await agrees(server, page);
        page.close();
      },
    );
  });

  test("a server that refuses ends the subscription with its reason", async () => {
    await through(
      (request) => (isLoad(request) ? { status: 401 } : undefined),
      async (proxy) => {
        const page = live(fresh("stranger"), proxy.url);
        await eventually("it says so", () => page.chat.getConnectionStatus() === "error");
        expect(page.errors[0]).toMatchObject({ code: "http", status: 401 });
        page.close();
      },
    );
  });
});

describe("two pages", () => {
  test("a message shows at once on the other, with its reply while it is written", async () => {
    const thread = fresh("two");
    const [a, b] = [live(thread), live(thread)];
    await a.chat.sendMessage("count to 2 every 1 ms");
    await b.shows(counted(2));
    const sent = a.chat.sendMessage("count to 60 every 5 ms");
    await b.begun(20);
    expect(b.messages.map(({ role }) => role).join(" ")).toBe("user assistant user assistant");
    expect(b.chat.getSessionGenerating()).toBe(true);
    expect(a.chat.getIsLoading()).toBe(true);
    await sent;
    await b.shows(counted(60));
    expect(b.texts.filter((text) => !counted(60).startsWith(text))).toEqual([]);
    await agrees(server, a, b);
    expect(a.errors).toEqual([]);
    expect(b.errors).toEqual([]);
    a.close();
    b.close();
  });

  test("turn by turn, reload() and a message into the other's reply: both end with the same", async () => {
    await pool(range(12), 4, (number) =>
      trial("turns", number, async (chance) => {
        const thread = fresh("turns");
        const pages = [live(thread), live(thread)];
        const busy: Promise<unknown>[] = [];
        for (const turn of range(6)) {
          const page = pages[Math.floor(chance() * 2)] as TanStackPage;
          const work =
            chance() < 0.3 && page.messages.length > 1
              ? page.chat.reload()
              : page.chat.sendMessage(`count to ${turn + 20} every 3 ms`);
          if (chance() < 0.5) await work;
          else {
            busy.push(work);
            await pause(chance() * 80);
          }
          if (chance() < 0.2) page.ours?.drop();
        }
        await Promise.all(busy);
        await agrees(server, ...pages);
        for (const page of pages) {
          expect(page.errors).toEqual([]);
          expect(page.chat.getStatus()).toBe("ready");
          page.close();
        }
      }),
    );
  });

  test("every reply of the other is seen to end", async () => {
    const thread = fresh("status");
    const [a, b] = [live(thread), live(thread)];
    for (const to of [2, 3, 4]) {
      await a.chat.sendMessage(`count to ${to} every 1 ms`);
      await b.shows(counted(to));
      await idle(b);
      expect(b.chat.getStatus()).toBe("ready");
      expect(b.chat.getSessionGenerating()).toBe(false);
    }
    a.close();
    b.close();
  });

  test.each(["the one that sent it", "the other"])("stop by %s ends it on both", async (who) => {
    const thread = fresh("stop");
    const [a, b] = [live(thread), live(thread)];
    const sent = a.chat.sendMessage("count to 1000 every 3 ms");
    await a.begun(20);
    await b.begun(20);
    const page = who === "the other" ? b : a;
    page.chat.stop();
    const answer = await page.ours?.stop();
    expect(answer).toMatchObject({ status: "stopped", stopped: true, reason: "user" });
    await sent;
    await agrees(server, a, b);
    expect(a.text.length).toBeGreaterThan(20);
    expect(a.errors).toEqual([]);
    await b.chat.sendMessage("count to 3 every 1 ms");
    await a.shows(counted(3));
    await agrees(server, a, b);
    a.close();
    b.close();
  });

  test("what a reply says after a local stop() shows when it has ended, and not before", async () => {
    const page = live(fresh("muted"));
    const sent = page.chat.sendMessage("count to 60 every 5 ms");
    await page.begun(10);
    page.chat.stop();
    const stopped = page.text;
    await sent;
    await server.settled(page.options.thread);
    await page.shows(counted(60));
    const between = page.texts.filter((text) => text !== counted(60));
    expect(between.every((text) => text.length <= stopped.length)).toBe(true);
    await agrees(server, page);
    page.close();
  });

  test("a stop that overtakes its message", async () => {
    const page = live(fresh("early"));
    await page.chat.sendMessage("count to 2 every 1 ms");
    const sent = page.chat.sendMessage("count to 900 every 5 ms");
    await pause(0);
    const stop = page.ours?.stop();
    await sent;
    expect((await stop)?.status).toMatch(/^(stopped|remembered)$/);
    expect(page.chat.getStatus()).toBe("ready");
    await agrees(server, page);
    page.close();
  });

  test("a reply that starts over", async () => {
    const thread = fresh("over");
    const [a, b] = [live(thread), live(thread)];
    await a.chat.sendMessage("restart after 60 ms");
    expect(a.text).toBe("new words");
    await b.shows("new words");
    const late = live(thread);
    await late.shows("new words");
    await agrees(server, a, b, late);
    for (const page of [a, b, late]) page.close();
  });

  test("a page that comes while a reply that started over goes on", async () => {
    const thread = fresh("over");
    const a = live(thread);
    const sent = a.chat.sendMessage("restart after 300 ms");
    await eventually("it was thrown away", () => a.text.startsWith("new "));
    const b = live(thread);
    await b.shows("new words");
    expect(b.texts.filter((text) => !"new words".startsWith(text))).toEqual([]);
    await sent;
    await agrees(server, a, b);
    a.close();
    b.close();
  });

  test("a message from the AI SDK wire, and one that was edited", async () => {
    const thread = fresh("wires");
    const page = live(thread);
    await page.chat.sendMessage("count to 2 every 1 ms");
    const parts = [{ type: "text", text: "count to 5 every 1 ms" }];
    const message = { id: "from-elsewhere", role: "user", parts };
    const body = { id: thread, trigger: "submit-message", messages: [message] };
    await (await server.post("/api/chat", body)).text();
    await page.shows(counted(5));
    await agrees(server, page);

    const other = live(thread);
    await other.shows(counted(5));
    const edited = page.messages
      .slice(0, 3)
      .map((each, index) =>
        index === 2
          ? { ...each, parts: [{ type: "text" as const, content: "count to 7 every 1 ms" }] }
          : each,
      );
    page.chat.setMessagesManually(edited);
    await page.chat.reload();
    await other.shows(counted(7));
    expect(page.text).toBe(counted(7));
    await agrees(server, page, other);
    page.close();
    other.close();
  });
});

describe("a page that is loaded again", () => {
  test("at a random moment, once or more often", async () => {
    await pool(range(24), 6, (number) =>
      trial("reload", number, async (chance) => {
        const page = live(fresh("reload"));
        page.chat.sendMessage("count to 40 every 5 ms").catch(() => {});
        await server.knows(page.options.thread);
        await pause(chance() * 280);
        let shown = page;
        for (let left = 1 + Math.floor(chance() * 3); left > 0; left--) {
          shown.close();
          await pause(chance() * 60);
          shown = live(page.options.thread);
        }
        await shown.shows(counted(40));
        await idle(shown);
        expect(shown.errors).toEqual([]);
        expect(shown.replies.length).toBe(1);
        expect(shown.texts.filter((text) => !counted(40).startsWith(text))).toEqual([]);
        await agrees(server, shown);
        expect((await server.calls(page.options.thread)).called).toBe(1);
        shown.close();
      }),
    );
  });

  const ORDERS: Record<string, (page: TanStackPage) => void | Promise<void>> = {
    "subscribe, attach": ({ chat }) => {
      chat.subscribe();
      chat.attach();
    },
    "attach, subscribe": ({ chat }) => {
      chat.attach();
      chat.subscribe();
    },
    "attach, and subscribe when it joined": async (page) => {
      page.chat.attach();
      await page.begun(3);
      page.chat.subscribe();
    },
    "subscribe, and attach when it shows something": async (page) => {
      page.chat.subscribe();
      await page.begun(3);
      page.chat.attach();
    },
    "mounted twice, as React does in development": ({ chat }) => {
      chat.subscribe();
      chat.attach();
      chat.detach();
      chat.subscribe();
      chat.attach();
    },
    "detached and attached in the middle": async (page) => {
      page.chat.subscribe();
      page.chat.attach();
      await page.begun(10);
      page.chat.detach();
      await pause(20);
      page.chat.attach();
    },
    "subscribed anew in the middle": async (page) => {
      page.chat.subscribe();
      page.chat.attach();
      await page.begun(10);
      page.chat.subscribe({ restart: true });
    },
    "attach only": ({ chat }) => chat.attach(),
    "subscribe only": ({ chat }) => chat.subscribe(),
  };

  test.each(Object.keys(ORDERS))("%s: every word once", async (order) => {
    await pool(range(6), 3, (number) =>
      trial(order, number, async (chance) => {
        const page = live(fresh("order"));
        page.chat.sendMessage("count to 50 every 5 ms").catch(() => {});
        await page.begun(5);
        page.close();
        await pause(chance() * 100);
        const again = new TanStackPage({ ...page.options, ours: {} });
        await ORDERS[order]?.(again);
        await again.shows(counted(50));
        await idle(again);
        expect(again.replies.length).toBe(1);
        expect(again.errors).toEqual([]);
        await again.chat.sendMessage("count to 3 every 1 ms");
        expect(again.text).toBe(counted(3));
        await agrees(server, again);
        again.close();
      }),
    );
  });

  test("without persistence the subscription loads the conversation", async () => {
    const thread = fresh("bare");
    const page = live(thread);
    await page.chat.sendMessage("call weather Lisbon");
    const again = TanStackPage.live({ url: server.url, thread, persistence: false });
    await eventually("it has loaded", () => again.messages.length === 2);
    await agrees(server, page, again);
    page.close();
    again.close();
  });

  test("a page that shows the newest messages goes on showing those", async () => {
    const thread = fresh("pages");
    const page = live(thread);
    for (const to of range(6)) await page.chat.sendMessage(`count to ${to + 1} every 1 ms`);
    const again = TanStackPage.live({ url: server.url, thread, pageSize: 5 });
    await eventually("the newest are there", () => again.messages.length === 5);
    await page.chat.reload();
    await eventually("the new reply is there", () => again.messages.at(-1)?.id === page.messages.at(-1)?.id);
    await idle(again);
    expect(plainOf(again.messages)).toEqual(plainOf(page.messages.slice(-5)));
    await again.chat.loadOlderMessages();
    await page.chat.reload();
    await eventually("the new reply is there", () => again.messages.at(-1)?.id === page.messages.at(-1)?.id);
    await idle(again);
    expect(plainOf(again.messages)).toEqual(plainOf(page.messages.slice(-10)));
    while (again.chat.getHasOlderMessages()) await again.chat.loadOlderMessages();
    await agrees(server, page, again);
    page.close();
    again.close();
  });
});

describe("the server goes away", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)("%s in the middle of a reply", async (signal) => {
    const own = await TestServer.begin({ STRANDLINE_SHUTDOWN_GRACE: "0" });
    try {
      const thread = fresh("restart");
      const [page, other] = [live(thread, own.url), live(thread, own.url)];
      const sent = page.chat.sendMessage("count to 1000 every 5 ms");
      await page.begun(20);
      await other.begun(20);
      await own.restart(signal);
      await sent;
      expect(page.chat.getStatus()).toBe("error");
      expect(page.errors.length).toBe(1);
      await page.chat.sendMessage("count to 3 every 1 ms");
      await other.shows(counted(3));
      await agrees(own, page, other);
      page.close();
      other.close();
    } finally {
      await own.close();
    }
  });

  test("a message that is sent meanwhile arrives, once", async () => {
    const own = await TestServer.begin();
    try {
      const page = live(fresh("meanwhile"), own.url);
      await page.chat.sendMessage("count to 2 every 1 ms");
      await own.end("SIGKILL");
      const sent = page.chat.sendMessage("count to 3 every 1 ms");
      await pause(300);
      await own.start();
      await sent;
      expect(page.text).toBe(counted(3));
      expect(page.errors).toEqual([]);
      await agrees(own, page);
      expect((await own.calls(page.options.thread)).called).toBe(2);
      page.close();
    } finally {
      await own.close();
    }
  });

  test("a thread that is deleted is empty on every page, and can be begun again", async () => {
    const thread = fresh("deleted");
    const [a, b] = [live(thread), live(thread)];
    await a.chat.sendMessage("count to 3 every 1 ms");
    await b.shows(counted(3));
    const response = await fetch(`${server.url}/api/sessions/${thread}`, { method: "DELETE" });
    expect(response.status).toBe(204);
    for (const page of [a, b]) await eventually("it is empty", () => page.messages.length === 0);
    await a.chat.sendMessage("count to 4 every 1 ms");
    await b.shows(counted(4));
    expect((await hydrated(server.url, thread)).messages.length).toBe(2);
    await agrees(server, a, b);
    a.close();
    b.close();
  });
});
