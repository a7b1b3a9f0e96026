/** A page that is loaded again, at any moment of a reply, ends with the same message. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, MAJORS, open, plain } from "./chat.js";
import { CRAMPED, TestServer } from "./server.js";
import { counted, fresh, pause, pool, range, trial } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin(CRAMPED);
});
afterAll(() => server?.close());

/** Exactly one reply, of exactly this text, the same as the server has it, and nobody is left waiting. */
async function isWhole(client: Client, text: string, calls = 1) {
  expect(client.chat.status).toBe("ready");
  expect(client.errors).toEqual([]);
  expect(client.assistants.length).toBe(1);
  expect(client.text).toBe(text);
  expect(client.finishes.length).toBeLessThanOrEqual(1);
  const history = await server.settled(client.id);
  expect(plain(client.chat.messages)).toEqual(history.messages);
  expect((await server.calls(client.id)).called).toBe(calls);
}

describe.each(COMBINATIONS)("$name", ({ major, kind, name }) => {
  const begin = (what: string) => new Client({ major, kind, url: server.url, id: fresh(what) });

  test("reloads at random moments, once or more often", async () => {
    await pool(range(25), 6, (number) =>
      trial(`reload ${name}`, number, async (chance) => {
        const client = begin("reload");
        const sent = client.chat.sendMessage({ text: "count to 40 every 5 ms" });
        sent.catch(() => {});
        await server.knows(client.id);
        // Each third trial is about the last moments of the reply and the first after it.
        if (number % 3 === 2) await client.shows(counted(36 + Math.floor(chance() * 5)).length);
        await pause(chance() * (number % 3 === 2 ? 40 : 260));
        let page = client;
        for (let left = 1 + Math.floor(chance() * 3); left > 1; left--) {
          const next = await page.reloading();
          await pause(chance() * 60);
          page = next.client;
        }
        await isWhole(await page.reload(), counted(40));
      }),
    );
  });

  test("the reply may end between the history and the resume", async () => {
    let owed = 0;
    await pool(range(8), 4, (number) =>
      trial(`owed ${name}`, number, async (chance) => {
        const client = begin("owed");
        const sent = client.chat.sendMessage({ text: "count to 40 every 5 ms" });
        sent.catch(() => {});
        await client.shows(counted(4 + Math.floor(chance() * 20)).length);
        await client.chat.stop();
        const page = new Client({ ...client.options, messages: (await server.history(client.id)).messages });
        const early = page.assistants.length === 0;
        if (early) owed += 1;
        await server.settled(client.id);
        await page.chat.resumeStream();
        expect(page.finishes.length).toBe(early || major === 5 ? 1 : 0);
        if (early) expect(page.state.statuses).toContain("streaming");
        await isWhole(page, counted(40));
      }),
    );
    expect(owed).toBeGreaterThan(2);
  });

  test("just after the end, nothing is active and nothing is doubled", async () => {
    const client = begin("after");
    await client.chat.sendMessage({ text: "count to 10 every 1 ms" });
    const reloaded = await client.reload();
    // ai@5 calls `onFinish` also when there was nothing to resume.
    expect(reloaded.finishes.length).toBe(major === 5 ? 1 : 0);
    await isWhole(reloaded, counted(10));
    expect((await server.resume(client.id)).status).toBe(204);
  });

  test("a tool call and reasoning survive a reload in their middle", async () => {
    await pool(range(6), 6, (number) =>
      trial(`parts ${name}`, number, async (chance) => {
        const client = begin("parts");
        const text = number % 2 === 0 ? "call weather Lisbon" : "think 4";
        const sent = client.chat.sendMessage({ text });
        sent.catch(() => {});
        await client.until("streaming");
        await pause(chance() * 700);
        const reloaded = await client.reload();
        await isWhole(reloaded, reloaded.text);
        expect(reloaded.text).toMatch(number % 2 === 0 ? /makes its weather up/ : /the answer is \*\*28\*\*/);
      }),
    );
  });

  test("stop() of the chat only detaches: the run goes on", async () => {
    const client = begin("detach");
    const sent = client.chat.sendMessage({ text: "count to 60 every 5 ms" });
    await client.shows(counted(5).length);
    await client.chat.stop();
    await sent;
    expect(client.chat.status).toBe("ready");
    expect(client.finishes).toMatchObject([{ isAbort: true }]);
    expect((await server.history(client.id)).activeRun).not.toBeNull();
    const history = await server.settled(client.id);
    expect(Object.values(history.runs)).toMatchObject([{ status: "completed" }]);
    await isWhole(await client.reload(), counted(60));
  });
});

test("pages of every version read one reply at once", async () => {
  const first = new Client({ major: 7, kind: "stock", url: server.url, id: fresh("together") });
  const sent = first.chat.sendMessage({ text: "count to 60 every 5 ms" });
  await first.shows(counted(3).length);
  const pages = await Promise.all(
    MAJORS.flatMap((major) =>
      (["stock", "ours"] as const).map((kind) => open({ major, kind, url: server.url, id: first.id })),
    ),
  );
  await Promise.all([sent, ...pages.map(({ done }) => done)]);
  for (const { client } of [{ client: first }, ...pages]) await isWhole(client, counted(60));
});
