/** Servers that are away for a while, answers that are lost, processes that end: nobody is told twice or left waiting. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, MAJORS, type Major, open, plain, textOf } from "./chat.js";
import { CuttingProxy, type Fault, type ProxiedRequest } from "./proxy.js";
import { type Message, TestServer } from "./server.js";
import { counted, eventually, fresh, pause, pool, range, trial, within } from "./support.js";

vi.setConfig({ testTimeout: 90_000, hookTimeout: 60_000 });

const begin = (major: Major, url: string, name: string) =>
  new Client({ major, kind: "ours", url, id: fresh(name) });

const isChat = ({ method, path }: ProxiedRequest) => method === "POST" && path === "/api/chat";

describe("a network that fails for a while", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await TestServer.begin();
  });
  afterAll(() => server?.close());

  async function through(
    plan: (request: ProxiedRequest) => Fault | undefined,
    work: (proxy: CuttingProxy) => Promise<void>,
  ) {
    const proxy = await CuttingProxy.begin(server.port, plan);
    try {
      await work(proxy);
    } finally {
      await proxy.close();
    }
  }

  async function isWhole(client: Client, text: string) {
    expect(client.errors).toEqual([]);
    expect(client.chat.status).toBe("ready");
    expect(client.assistants.length).toBe(1);
    expect(client.text).toBe(text);
    expect(client.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: false }]);
    expect(plain(client.chat.messages)).toEqual((await server.history(client.id)).messages);
    expect((await server.calls(client.id)).called).toBe(1);
  }

  describe.each(MAJORS.map((major) => ({ major })))("ai@$major", ({ major }) => {
    test.each([{ times: 1 }, { times: 3 }])("the answer to the message is lost: %o", async ({ times }) => {
      let posts = 0;
      await through(
        (request) => (isChat(request) && ++posts <= times ? { swallow: true } : undefined),
        async (proxy) => {
          const client = begin(major, proxy.url, "lost");
          await client.chat.sendMessage({ text: "count to 20 every 4 ms" });
          await isWhole(client, counted(20));
          expect(posts).toBe(times + 1);
          const keys = new Set(
            proxy.requests.filter(isChat).map(({ headers }) => headers["idempotency-key"]),
          );
          expect(keys.size).toBe(1);
        },
      );
    });

    test("the answer to a regenerate is lost", async () => {
      let lose = false;
      await through(
        (request) => {
          if (!isChat(request) || !lose) return undefined;
          lose = false;
          return { swallow: true };
        },
        async (proxy) => {
          const client = begin(major, proxy.url, "lost-again");
          await client.chat.sendMessage({ text: "count to 6 every 2 ms" });
          lose = true;
          await client.chat.regenerate();
          expect(client.chat.status).toBe("ready");
          expect(client.text).toBe(counted(6));
          expect(proxy.requests.filter(isChat).length).toBe(3);
          expect((await server.calls(client.id)).called).toBe(2);
          expect(plain(client.chat.messages)).toEqual((await server.history(client.id)).messages);
        },
      );
    });

    test.each([{ status: 502 }, { status: 503 }, { status: 504 }])(
      "a gateway without a server: %o",
      async ({ status }) => {
        await through(
          // Twice before the message gets through, then the connection is cut and three attempts to resume fail.
          ({ number }) => {
            if (number < 2 || (number > 2 && number < 6)) return { status };
            return number === 2 ? { cutAfter: 900 } : undefined;
          },
          async (proxy) => {
            const client = begin(major, proxy.url, "gateway");
            await client.chat.sendMessage({ text: "count to 40 every 4 ms" });
            await isWhole(client, counted(40));
            expect(proxy.requests.length).toBeGreaterThan(6);
          },
        );
      },
    );

    test("connections are refused for a while, before and during the reply", async () => {
      await through(
        () => undefined,
        async (proxy) => {
          const client = begin(major, proxy.url, "refused");
          await proxy.refuse();
          const sent = client.chat.sendMessage({ text: "count to 60 every 4 ms" });
          await pause(60);
          await proxy.accept();
          await client.shows(counted(10).length);
          await proxy.refuse();
          proxy.cut();
          await pause(60);
          await proxy.accept();
          await sent;
          await isWhole(client, counted(60));
        },
      );
    });

    test("a resume that meets 503 at first finds the reply", async () => {
      await through(
        ({ path, number }) => (path.endsWith("/stream") && number < 4 ? { status: 503 } : undefined),
        async (proxy) => {
          const first = begin(major, server.url, "late-resume");
          const sent = first.chat.sendMessage({ text: "count to 100 every 5 ms" });
          await first.shows(counted(3).length);
          const { client, done } = await open({ ...first.options, url: proxy.url });
          await Promise.all([sent, done]);
          await isWhole(client, counted(100));
        },
      );
    });
  });
});

/** Every text that the client's last reply ever showed was a beginning of this one. */
function watch(client: Client): (stored: string) => void {
  const shown: string[] = [];
  const look = () => {
    if (client.text !== shown.at(-1)) shown.push(client.text);
  };
  const { replaceMessage, pushMessage } = client.state;
  client.state.pushMessage = (message) => {
    pushMessage(message);
    look();
  };
  client.state.replaceMessage = (index, message) => {
    replaceMessage(index, message);
    look();
  };
  return (stored) => {
    for (const text of shown) expect(stored.startsWith(text), `"…${text.slice(-20)}" was shown`).toBe(true);
    expect(shown.length).toBeGreaterThan(1);
  };
}

interface Attached {
  client: Client;
  done: Promise<void>;
  check: (stored: string) => void;
}

/** Clients of every kind, some of which have reloaded, each in the middle of a long reply. */
async function crowd(server: TestServer, text: string): Promise<Attached[]> {
  return Promise.all(
    COMBINATIONS.flatMap(({ major, kind }) =>
      [false, true].map((reloaded) => ({ major, kind, reloaded })),
    ).map(async ({ major, kind, reloaded }) => {
      let client = new Client({ major, kind, url: server.url, id: fresh(`crowd-${kind}`) });
      let done = client.chat.sendMessage({ text });
      await client.shows(counted(4).length);
      if (reloaded) {
        done.catch(() => {});
        ({ client, done } = await client.reloading());
      }
      const check = watch(client);
      await client.shows(counted(8).length);
      return { client, done, check };
    }),
  );
}

/** The words of a stored reply: numbers in order, without holes. */
function wordsOf(message: Message | undefined): string {
  const text = textOf(message);
  expect(counted(5000).startsWith(text)).toBe(true);
  return text;
}

describe("a server that ends", () => {
  test("kill -9, again and again: what was shown is stored, the run is lost, the chat goes on", async () => {
    const server = await TestServer.begin();
    try {
      for (const round of range(4)) {
        await trial("kill", round, async (chance) => {
          const clients = await crowd(server, "count to 5000 every 4 ms");
          await pause(chance() * 150);
          await server.end("SIGKILL");
          const before = clients.map(({ client }) => client.text);
          await server.start();
          await Promise.all(
            clients.map(async ({ client, done, check }, i) => {
              await within(30_000, "the end of a reply whose server died", done);
              const ours = client.ours !== undefined;
              // Our transport learns what became of the run; a stock one learns that its connection broke.
              expect(client.chat.status).toBe("error");
              expect(client.finishes).toMatchObject([{ isAbort: false, isError: true }]);
              const history = await server.history(client.id);
              expect(history.activeRun).toBeNull();
              const stored = history.messages.at(-1);
              expect(history.messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
              const words = wordsOf(stored);
              check(words);
              expect(words.startsWith(before[i] ?? "")).toBe(true);
              expect(history.runs[stored?.id ?? ""]).toMatchObject({
                status: "lost",
                reason: "process-lost",
              });
              expect((await server.resume(client.id)).status).toBe(204);
              if (ours) {
                expect(plain(client.chat.messages)).toEqual(history.messages);
                expect(client.errors.length).toBe(1);
                expect(client.errors[0]?.name).not.toBe("TypeError");
              }
              const page = await client.reload();
              expect(page.chat.status).toBe("ready");
              expect(plain(page.chat.messages)).toEqual(history.messages);
              await page.chat.sendMessage({ text: "count to 3 every 1 ms" });
              expect(page.text).toBe(counted(3));
              expect((await server.calls(client.id)).called).toBe(2);
            }),
          );
        });
      }
    } finally {
      await server.close();
    }
  });

  test("kill -9 while messages are being sent: a message that is repeated to the next process is answered once", async () => {
    const server = await TestServer.begin();
    const proxy = await CuttingProxy.begin(server.port);
    try {
      const clients = range(12).map((i) => begin(MAJORS[i % 3] as Major, proxy.url, "sending"));
      const sent = clients.map((client) => client.chat.sendMessage({ text: "count to 10 every 2 ms" }));
      await eventually("a message is under way", () => proxy.count("POST") > 3, 5_000, 1);
      await server.restart("SIGKILL");
      await within(30_000, "the replies", Promise.all(sent));
      for (const client of clients) {
        const history = await server.history(client.id);
        expect(plain(client.chat.messages)).toEqual(history.messages);
        expect(history.messages.length).toBe(2);
        const run = history.runs[history.messages[1]?.id ?? ""];
        // It had been taken by the first process, which died of it, or it was taken by the second.
        if (run?.status === "lost") expect(client.chat.status).toBe("error");
        else {
          expect(run?.status).toBe("completed");
          expect(client.text).toBe(counted(10));
          expect(client.chat.status).toBe("ready");
          expect((await server.calls(client.id)).called).toBe(1);
        }
      }
    } finally {
      await proxy.close();
      await server.close();
    }
  });

  test("SIGTERM lets replies end within the grace", async () => {
    const server = await TestServer.begin({ STRANDLINE_SHUTDOWN_GRACE: "8" });
    try {
      const clients = await crowd(server, "count to 120 every 5 ms");
      const { took } = await server.end("SIGTERM");
      expect(took).toBeLessThan(8_000);
      await Promise.all(clients.map(({ done }) => within(10_000, "the end of a reply", done)));
      await server.start();
      for (const { client, check } of clients) {
        expect(client.chat.status).toBe("ready");
        expect(client.errors).toEqual([]);
        expect(client.text).toBe(counted(120));
        const history = await server.history(client.id);
        check(textOf(history.messages.at(-1)));
        expect(plain(client.chat.messages)).toEqual(history.messages);
        expect(client.finishes.length).toBe(1);
        expect((await server.calls(client.id)).called).toBe(1);
      }
    } finally {
      await server.close();
    }
  });

  test("SIGTERM under load ends within its grace, loses nothing, and tells everyone", async () => {
    const server = await TestServer.begin({ STRANDLINE_SHUTDOWN_GRACE: "0.5" });
    try {
      const clients = await crowd(server, "count to 5000 every 2 ms");
      const ending = server.end("SIGTERM");
      // New runs are refused from the signal on; or the port is closed already.
      const late = await server
        .post("/api/chat", {
          id: fresh("late"),
          messages: [{ id: "u1", role: "user", parts: [{ type: "text", text: "hi" }] }],
          trigger: "submit-message",
        })
        .then(({ status, headers }) => `${status} ${headers.has("retry-after")}`)
        .catch(() => "refused");
      expect(["503 true", "refused", "200 false"]).toContain(late);
      const { took } = await ending;
      expect(took).toBeLessThan(4_000);
      await server.start();
      await Promise.all(clients.map(({ done }) => within(30_000, "the end of a reply", done)));
      for (const { client, check } of clients) {
        const history = await server.history(client.id);
        const stored = history.messages.at(-1);
        check(wordsOf(stored));
        expect(history.runs[stored?.id ?? ""]).toMatchObject({ status: "lost", reason: "shutdown" });
        expect(client.chat.status).toBe("error");
        expect(client.finishes).toMatchObject([{ isError: true, isAbort: false }]);
        expect(plain(client.chat.messages)).toEqual(history.messages);
      }
    } finally {
      await server.close();
    }
  });

  test("a restart that takes a while, with readers that keep asking", async () => {
    const server = await TestServer.begin();
    const proxy = await CuttingProxy.begin(server.port);
    try {
      await pool(MAJORS, 1, async (major) => {
        const client = begin(major, proxy.url, "slow-restart");
        const check = watch(client);
        const sent = client.chat.sendMessage({ text: "count to 5000 every 4 ms" });
        await client.shows(counted(10).length);
        await server.end("SIGKILL");
        await eventually(
          "the client has asked again",
          () => client.chat.status === "streaming" && proxy.requests.length > 2,
        );
        await server.start();
        await within(30_000, "the end of the reply", sent);
        expect(client.chat.status).toBe("error");
        check(wordsOf((await server.history(client.id)).messages.at(-1)));
        await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
        expect(client.text).toBe(counted(3));
        expect(plain(client.chat.messages)).toEqual((await server.history(client.id)).messages);
      });
    } finally {
      await proxy.close();
      await server.close();
    }
  });
});
