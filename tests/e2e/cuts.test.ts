/** Our transport, on a connection that is cut: the reply is the same as if it had never been. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, MAJORS, type Major, open, plain } from "./chat.js";
import { CuttingProxy, type Fault, type ProxiedRequest } from "./proxy.js";
import { CRAMPED, type Message, TestServer } from "./server.js";
import { counted, fresh, pool, range, trial } from "./support.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const WIDTH = 12;
const RETRY = { minDelayMs: 1, maxDelayMs: 4, giveUpAfterMs: 30_000 };

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin(CRAMPED);
});
afterAll(() => server?.close());

type Plan = (request: ProxiedRequest) => Fault | undefined;

/** Runs `work` with a proxy of its own that follows `plan`. */
async function through<T>(plan: Plan, work: (proxy: CuttingProxy) => Promise<T>): Promise<T> {
  const proxy = await CuttingProxy.begin(server.port, plan);
  try {
    return await work(proxy);
  } finally {
    await proxy.close();
  }
}

const begin = (major: Major, url: string, id: string) =>
  new Client({ major, kind: "ours", url, id, transport: { retry: RETRY } });

/** The parts of a reply that nothing happened to. */
async function undisturbed(text: string): Promise<Message["parts"]> {
  const client = begin(7, server.url, fresh("undisturbed"));
  await client.chat.sendMessage({ text });
  return plain(client.assistants[0]?.parts ?? []);
}

/** The reply is equal to the uninterrupted one and to the stored one; it was told once; nobody saw an error. */
async function isWhole(client: Client, parts: Message["parts"]) {
  expect(client.errors).toEqual([]);
  expect(client.chat.status).toBe("ready");
  expect(client.assistants.length).toBe(1);
  expect(plain(client.assistants[0]?.parts)).toEqual(parts);
  expect(client.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: false }]);
  expect(plain(client.chat.messages)).toEqual((await server.history(client.id)).messages);
}

async function ranOnce(ids: string[]) {
  const calls = await server.allCalls();
  expect(ids.map((id) => [id, calls[id]?.called])).toEqual(ids.map((id) => [id, 1]));
}

/** How many bytes the whole answer to the POST of such a message has, at most. */
async function sizeOf(text: string): Promise<number> {
  const sizes = await Promise.all(
    range(3).map(() =>
      through(
        () => undefined,
        async (proxy) => {
          await begin(7, proxy.url, fresh("size")).chat.sendMessage({ text });
          return proxy.bytes[0] ?? 0;
        },
      ),
    ),
  );
  return Math.max(...sizes);
}

describe("cut at every byte", () => {
  test.each(MAJORS.map((major) => ({ major })))(
    "of the answer to the message, ai@$major",
    async ({ major }) => {
      const text = "count to 6 every 4 ms";
      const parts = await undisturbed(text);
      const size = await sizeOf(text);
      expect(size).toBeGreaterThan(800);
      const ids: string[] = [];
      let cuts = 0;
      // The newest version at every byte, the two others at every second one.
      const bytes = range(size + 1).filter((byte) => major === 7 || byte % 2 === major % 2);
      await pool(bytes, WIDTH, (byte) =>
        trial(`byte ${byte} ai@${major}`, 0, () =>
          through(
            ({ number }) => (number === 0 ? { cutAfter: byte } : undefined),
            async (proxy) => {
              const client = begin(major, proxy.url, fresh("byte"));
              ids.push(client.id);
              await client.chat.sendMessage({ text });
              await isWhole(client, parts);
              if (proxy.requests.length > 1) cuts += 1;
            },
          ),
        ),
      );
      await ranOnce(ids);
      // A reply that comes in fewer pieces has fewer bytes around them: the last cuts may find nothing to cut.
      expect(cuts).toBeGreaterThan(bytes.length * 0.7);
      console.info(`ai@${major}: cut at ${cuts} of ${bytes.length} places`);
    },
  );

  test("of a reply that fails: the failure is told, once", async () => {
    const text = "fail after 2";
    const whole = begin(7, server.url, fresh("failure"));
    await whole.chat.sendMessage({ text });
    const parts = plain(whole.assistants[0]?.parts ?? []);
    const ids: string[] = [];
    await pool(range(1300 / 4), WIDTH, (step) =>
      trial("failure", step, (chance) =>
        through(
          ({ number }) => (number === 0 ? { cutAfter: step * 4 + Math.floor(chance() * 4) } : undefined),
          async (proxy) => {
            const client = begin(MAJORS[step % 3] as Major, proxy.url, fresh("failure"));
            ids.push(client.id);
            await client.chat.sendMessage({ text });
            expect(client.chat.status).toBe("error");
            expect(client.errors.map(({ message }) => message)).toEqual([
              "The reply failed. Please try again.",
            ]);
            expect(client.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: true }]);
            expect(plain(client.assistants.map((message) => message.parts))).toEqual([parts]);
          },
        ),
      ),
    );
    await ranOnce(ids);
  });

  test("of the answer to a resume, which begins with a snapshot", async () => {
    const text = "count to 30 every 2 ms";
    const parts = await undisturbed(text);
    const ids: string[] = [];
    let cuts = 0;
    await pool(range(1400 / 7), WIDTH, (step) =>
      trial("snapshot", step, (chance) =>
        through(
          ({ number }) => (number === 1 ? { cutAfter: step * 7 + Math.floor(chance() * 7) } : undefined),
          async (proxy) => {
            const major = MAJORS[step % 3] as Major;
            const first = begin(major, server.url, fresh("snapshot"));
            ids.push(first.id);
            const sent = first.chat.sendMessage({ text });
            await first.shows(counted(2 + Math.floor(chance() * 10)).length);
            // Request 0 is the history, request 1 the resume.
            const { client, done, history } = await open({ ...first.options, url: proxy.url });
            await Promise.all([sent, done]);
            await isWhole(first, parts);
            // On a slow machine the reply may be over before the page is there.
            if (history.activeRun === null) return;
            await isWhole(client, parts);
            if (proxy.requests.length > 2) cuts += 1;
          },
        ),
      ),
    );
    await ranOnce(ids);
    expect(cuts).toBeGreaterThan(100);
  });
});

test.each(MAJORS.map((major) => ({ major })))(
  "a resume whose answer is lost, and whose reply ends before the next attempt, ai@$major",
  async ({ major }) => {
    const text = "count to 20 every 5 ms";
    const parts = await undisturbed(text);
    const first = begin(major, server.url, fresh("lost-resume"));
    const sent = first.chat.sendMessage({ text });
    await first.shows(counted(3).length);
    await through(
      ({ number }) => (number === 1 ? { cutAfter: 100 } : number === 2 ? { hold: sent } : undefined),
      async (proxy) => {
        const { client, done, history } = await open({ ...first.options, url: proxy.url });
        expect(history.activeRun).not.toBeNull();
        await done;
        await isWhole(client, parts);
      },
    );
  },
);

describe.each(MAJORS.map((major) => ({ major })))("ai@$major", ({ major }) => {
  test("every connection is cut, after a few bytes or many", async () => {
    const text = "count to 60 every 3 ms";
    const parts = await undisturbed(text);
    const ids: string[] = [];
    await pool(range(12), WIDTH, (number) =>
      trial(`many cuts ai@${major}`, number, (chance) =>
        through(
          // A head alone has about 500 bytes: some connections bring nothing at all. A snapshot must get through whole
          // before anything counts as progress, so one in six is left alone for longer.
          (request) => {
            const spared = request.number > 1 && chance() < 1 / 6;
            return { cutAfter: Math.floor(spared ? 4000 : chance() * (number % 2 === 0 ? 900 : 1200)) };
          },
          async (proxy) => {
            const client = begin(major, proxy.url, fresh("many"));
            ids.push(client.id);
            await client.chat.sendMessage({ text });
            await isWhole(client, parts);
            expect(proxy.requests.length).toBeGreaterThan(1);
          },
        ),
      ),
    );
    await ranOnce(ids);
  });

  test("a tool call and reasoning, cut at random", async () => {
    const ids: string[] = [];
    for (const text of ["call weather Lisbon", "think 3"]) {
      const parts = await undisturbed(text);
      // Ids of tool calls and data parts are minted per run.
      const unnamed = (some: Message["parts"]) => some.map(({ toolCallId: _, ...part }) => part);
      await pool(range(4), 4, (number) =>
        trial(`${text} ai@${major}`, number, (chance) =>
          through(
            () => ({ cutAfter: 450 + Math.floor(chance() * 900) }),
            async (proxy) => {
              const client = begin(major, proxy.url, fresh("parts"));
              ids.push(client.id);
              await client.chat.sendMessage({ text });
              expect(unnamed(plain(client.assistants[0]?.parts ?? []))).toEqual(unnamed(parts));
              await isWhole(client, plain(client.assistants[0]?.parts ?? []));
            },
          ),
        ),
      );
    }
    await ranOnce(ids);
  });

  test("drop() of the transport, over and over", async () => {
    const client = begin(major, server.url, fresh("drop"));
    const parts = await undisturbed("count to 60 every 3 ms");
    const sent = client.chat.sendMessage({ text: "count to 60 every 3 ms" });
    let drops = 0;
    for (let shown = 4; shown < 60; shown += 4) {
      await client.shows(counted(shown).length);
      if (client.ours?.drop(client.id)) drops += 1;
    }
    await sent;
    expect(drops).toBeGreaterThan(3);
    await isWhole(client, parts);
    await ranOnce([client.id]);
  });

  test("a slow network changes nothing", async () => {
    const parts = await undisturbed("count to 40 every 3 ms");
    await through(
      () => ({ delay: 40 }),
      async (proxy) => {
        const client = begin(major, proxy.url, fresh("slow"));
        await client.chat.sendMessage({ text: "count to 40 every 3 ms" });
        await isWhole(client, parts);
        expect(proxy.requests.length).toBe(1);
      },
    );
  });
});
