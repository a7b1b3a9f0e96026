/** Branches on live TanStack AI chats: what is written where a page does not look is never shown from its middle on. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { CuttingProxy } from "./proxy.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";
import { agrees, TanStackPage } from "./tanstack.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

test.each([
  { name: "goes on", to: 120 },
  { name: "has ended", to: 60 },
])(
  "a branch is selected while a page is away, and its reply $name: the page shows no middle of it",
  async ({ to }) => {
    const thread = fresh("selected");
    /** What another device does. */
    const does = async (act: string, body: object) => {
      const answer = await server.post(`/api/sessions/${thread}/${act}`, body);
      expect(answer.ok, act).toBe(true);
    };
    /** How much of the reply has been said. */
    const said = async (): Promise<number> => {
      const { active } = (await (await fetch(`${server.url}/api/sessions/${thread}`)).json()) as {
        active: { chunks: object[] }[];
      };
      return active.length === 0 ? Number.POSITIVE_INFINITY : JSON.stringify(active[0]?.chunks).length;
    };

    const proxy = await CuttingProxy.begin(server.port);
    const page = TanStackPage.live({ url: proxy.url, thread });
    await page.chat.sendMessage("count to 3 every 1 ms");
    const id = page.messages[0]?.id as string;
    const parts = [{ type: "text", text: `count to ${to} every 20 ms` }];
    await does("messages", { message: { id, role: "user", parts }, messageId: id });
    await page.begun(20);
    await does("branch", { message: id, index: 0 });
    await page.shows(counted(3));
    // It follows from a place in the middle of the reply, which goes on where it does not look.
    await eventually("it follows", () => page.network.at(-1) === "live");

    await proxy.refuse();
    proxy.cut();
    const before = await said();
    await eventually("more is said", async () => (await said()) > before + 20);
    await does("branch", { message: id, index: 1 });
    if (to < 100) await server.settled(thread);
    else await eventually("more is said", async () => (await said()) > before + 40);
    page.texts.length = 0;
    await proxy.accept();
    await page.shows(counted(to));
    expect(page.texts.filter((text) => text !== counted(3) && !counted(to).startsWith(text))).toEqual([]);
    expect(page.errors).toEqual([]);
    await agrees(server, page);
    page.close();
    await proxy.close();
  },
);
