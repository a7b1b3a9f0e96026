// biome-ignore-all lint/performance/useDomNodeTextContent: what is on the screen is what counts.
/** The demo page in Chromium: what a visitor does to it, and what it must look like meanwhile. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { textOf } from "./chat.js";
import { DESKTOP, Demo, PHONE } from "./demo-page.js";
import { CuttingProxy } from "./proxy.js";
import { counted, eventually, fresh, pause, trial } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

let demo: Demo;
const proxies: CuttingProxy[] = [];

beforeAll(async () => {
  demo = await Demo.begin();
});
afterAll(() => demo?.end());
afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy.close();
  await demo.tidy();
});

describe("a reply survives", () => {
  test("a refresh in its middle, again and again", async () => {
    const context = await demo.context();
    await trial("refresh", 0, async (chance) => {
      const tab = await demo.open(context);
      await tab.say("count to 120 every 25 ms");
      for (const number of [8, 30, 55, 90]) {
        await tab.shows(number + Math.floor(chance() * 10));
        await tab.page.reload();
      }
      await tab.isWhole(counted(120));
      await tab.page.reload();
      await tab.isWhole(counted(120));
    });
  });

  test("a network that goes away and comes back (the browser's)", async () => {
    const context = await demo.context();
    const proxy = await CuttingProxy.begin(demo.server.port);
    proxies.push(proxy);
    const tab = await demo.open(context, fresh("offline"), proxy.url);
    await tab.say("count to 120 every 25 ms");
    for (const number of [10, 60]) {
      await tab.shows(number);
      // Chromium refuses new requests then, but goes on with those that are open: their sockets die here.
      await context.setOffline(true);
      proxy.cut();
      await eventually(
        "the page knows that it is offline",
        async () => (await tab.at("connection-status").innerText()) === "Offline",
      );
      await eventually("the text stands still", async () => {
        const then = await tab.text();
        await pause(150);
        return (await tab.text()) === then;
      });
      await context.setOffline(false);
    }
    await tab.isWhole(counted(120));
  });

  test("the page's own switch", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 120 every 25 ms");
    for (const number of [10, 40, 70]) {
      await tab.shows(number);
      await tab.at("offline-toggle").click();
      await eventually(
        "the page says that it is offline",
        async () => (await tab.at("connection-status").innerText()) === "Offline",
      );
      await pause(100);
      await tab.at("offline-toggle").click();
    }
    await tab.isWhole(counted(120));
    expect(await tab.at("tally").innerText()).toMatch(/^resumed [3-9] times, 0 lost, 0 duplicated$/);
  });

  test("its connection being dropped many times", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 150 every 25 ms");
    await tab.shows(3);
    let drops = 0;
    while ((await tab.reply.getAttribute("data-status")) === "streaming") {
      // It is disabled between a drop and the resume, and after the end.
      if (await tab.at("drop").isEnabled()) {
        drops += await tab
          .at("drop")
          .click({ timeout: 200 })
          .then(() => 1)
          .catch(() => 0);
      }
      await pause(30);
    }
    expect(drops).toBeGreaterThan(5);
    await tab.isWhole(counted(150));
    const tally = await tab.at("tally").innerText();
    expect(Number(/resumed (\d+) times/.exec(tally)?.[1])).toBeGreaterThan(5);
    expect(tally).toMatch(/, 0 lost, 0 duplicated$/);
  });

  test("a tool call and reasoning, with a refresh in each", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("call weather Lisbon");
    await tab.at("tool").first().waitFor();
    await tab.page.reload();
    await tab.isNow("completed");
    expect(await tab.at("tool").count()).toBe(1);
    expect(await tab.text()).toMatch(/In Lisbon it is \d+ °C/);
    await tab.say("think 5");
    await tab.at("reasoning").first().waitFor();
    await tab.page.reload();
    await eventually("the second reply is there", async () => (await tab.replies.count()) === 2);
    await tab.isNow("completed");
    expect(await tab.replies.count()).toBe(2);
    expect(await tab.at("reasoning").count()).toBe(1);
    expect(await tab.text()).toMatch(/the answer is 35\./);
  });

  test("a server that is killed: the page says so, keeps the words, and goes on", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 5000 every 10 ms");
    await tab.shows(20);
    await demo.server.end("SIGKILL");
    const shown = await tab.text();
    await demo.server.start();
    await tab.isNow("lost");
    const stored = textOf((await tab.history()).messages[1]);
    expect(counted(5000).startsWith(stored)).toBe(true);
    expect(stored.startsWith(shown)).toBe(true);
    await eventually("the page shows what is stored", async () => (await tab.text()) === stored.trim());
    await tab.say("count to 3 every 1 ms");
    await tab.isNow("completed");
    expect(await tab.text()).toBe("1 2 3");
    expect(await tab.replies.count()).toBe(2);
  });
});

describe("stop", () => {
  test("in the second of two tabs: both show the same end", async () => {
    const context = await demo.context();
    const first = await demo.open(context);
    await first.say("count to 5000 every 10 ms");
    await first.shows(10);
    const second = await demo.open(context, first.id);
    await second.shows(20);
    await second.at("stop").click();
    await Promise.all([first.isNow("stopped"), second.isNow("stopped")]);
    const history = await first.history();
    expect(history.activeRun).toBeNull();
    expect(Object.values(history.runs)).toMatchObject([{ status: "stopped" }]);
    for (const tab of [first, second]) {
      expect(await tab.replies.count()).toBe(1);
      expect(await tab.text()).toBe(textOf(history.messages[1]).trim());
      expect(await tab.at("error").count()).toBe(0);
    }
    await first.page.reload();
    await first.isNow("stopped");
    expect(await first.text()).toBe(textOf(history.messages[1]).trim());
    expect(await first.history()).toEqual(history);
  });

  test("a message that is sent in one tab appears in the other", async () => {
    const context = await demo.context();
    const [first, second] = [
      await demo.open(context, fresh("both")),
      await demo.open(context, fresh("other")),
    ];
    await first.say("count to 5 every 10 ms");
    await first.isNow("completed");
    await second.page.goto(`${demo.server.url}/?chat=${first.id}`);
    await second.isNow("completed");
    await second.say("count to 60 every 20 ms");
    await eventually("the other tab has both questions", async () => (await first.questions.count()) === 2);
    await Promise.all([first, second].map((tab) => tab.shows(20)));
    await Promise.all([first.isNow("completed"), second.isNow("completed")]);
    for (const tab of [first, second]) {
      expect(await tab.replies.count()).toBe(2);
      expect(await tab.text()).toBe(counted(60).trim());
    }
  });
});

describe("a conversation", () => {
  test("regenerate, edit, a failure and another try", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 4 every 1 ms");
    await tab.isWhole(counted(4));
    const before = await tab.reply.getAttribute("data-message-id");
    await tab.at("regenerate").click();
    await eventually("it is another reply", async () => {
      const now = (await tab.replies.count()) > 0 && (await tab.reply.getAttribute("data-message-id"));
      return now && now !== before;
    });
    await tab.isWhole(counted(4));

    await tab.questions.last().hover();
    await tab.at("edit").last().click();
    await tab.at("edit-text").fill("count to 9 every 1 ms");
    await tab.at("edit-save").click();
    await eventually(
      "the reply is that to the edited message",
      async () => (await tab.text()) === counted(9).trim(),
    );
    await tab.isWhole(counted(9));

    await tab.say("fail after 3");
    await tab.isNow("failed");
    expect(await tab.text()).toBe("1 2 3");
    expect(await tab.at("error").first().innerText()).toMatch(/The reply failed/);
    await tab.say("count to 2 every 1 ms");
    await tab.isNow("completed");
    expect(await tab.text()).toBe("1 2");
    await tab.page.reload();
    await tab.isNow("completed");
    expect(await tab.questions.count()).toBe(3);
  });

  test("a message that interrupts a reply", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 5000 every 10 ms");
    await tab.shows(10);
    await tab.say("count to 6 every 5 ms");
    await eventually("there are two replies", async () => (await tab.replies.count()) === 2);
    await tab.isNow("completed");
    expect(await tab.text()).toBe(counted(6).trim());
    expect(await tab.replies.first().getAttribute("data-status")).toBe("stopped");
    const history = await tab.history();
    expect(history.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
    expect((await tab.replies.first().getByTestId("message-text").innerText()).trim()).toBe(
      textOf(history.messages[1]).trim(),
    );
  });

  test("the list of chats leads back to an earlier one", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 7 every 1 ms");
    await tab.isNow("completed");
    await tab.at("new-chat").click();
    await eventually("the new chat is empty", async () => (await tab.questions.count()) === 0);
    await tab.at("chat-list").locator(`[data-chat="${tab.id}"]`).click();
    await eventually("the earlier chat is back", async () => (await tab.text()) === counted(7).trim());
    await tab.isWhole(counted(7));
  });

  test("the panel shows the log, the runs and who reads", async () => {
    const tab = await demo.open(await demo.context());
    await tab.say("count to 80 every 20 ms");
    await tab.shows(5);
    await eventually("the log grows", async () => (await tab.at("log-row").count()) > 4);
    const readers = tab.at("readers").locator("[data-reader]");
    await eventually("the page is the one reader", async () => (await readers.count()) === 1);
    await tab.isWhole(counted(80));
    // The page begins to follow the log when the session exists, so its first run has begun before that.
    await tab.say("count to 5 every 1 ms");
    await eventually("the second reply is there", async () => (await tab.replies.count()) === 2);
    await tab.isNow("completed");
    await eventually("the log has a whole run", async () => {
      const kinds = await tab
        .at("log-row")
        .evaluateAll((rows) => rows.map((row) => row.getAttribute("data-kind")));
      return kinds.includes("run-ended") && kinds.includes("run-started") && kinds.includes("appended");
    });
    const cursors = await tab
      .at("log-row")
      .evaluateAll((rows) => rows.map((row) => row.getAttribute("data-cursor")));
    const named = cursors.filter((cursor) => cursor !== "");
    expect(new Set(named).size).toBe(named.length);
    await eventually(
      "both runs are shown as completed",
      async () => (await tab.at("runs").locator('[data-status="completed"]').count()) === 2,
    );
  });
});

test("Chromium's own EventSource resumes by id alone through a connection that is cut", async () => {
  const id = fresh("native");
  const message = { id: "u1", role: "user", parts: [{ type: "text", text: "count to 60 every 20 ms" }] };
  const posted = await postChat({ id, messages: [message], trigger: "submit-message" });
  await posted.body?.cancel();
  let streams = 0;
  const proxy = await CuttingProxy.begin(demo.server.port, ({ path }) => {
    if (!path.endsWith("/stream")) return undefined;
    streams += 1;
    // Far enough to have an id, and not to the end.
    return streams < 3 ? { cutAfter: streams === 1 ? 1100 : 900 } : undefined;
  });
  proxies.push(proxy);
  const page = await (await demo.context()).newPage();
  await page.goto(`${proxy.url}/api/readyz`);
  const read = await page.evaluate(
    (url) =>
      new Promise<{ data: string; id: string }[]>((resolve) => {
        const source = new EventSource(url);
        const events: { data: string; id: string }[] = [];
        source.onmessage = ({ data, lastEventId }) => events.push({ data: data as string, id: lastEventId });
        source.onerror = () => source.readyState === EventSource.CLOSED && resolve(events);
      }),
    `/api/chat/${id}/stream`,
  );
  const chunks = read.filter(({ data }) => data !== "[DONE]").map(({ data }) => JSON.parse(data));
  expect(chunks.filter(({ type }) => type === "start").length).toBe(1);
  expect(chunks.map(({ type, delta }) => (type === "text-delta" ? delta : "")).join("")).toBe(counted(60));
  expect(chunks.at(-1).type).toBe("finish");
  // Two cuts, the rest, and the 204 that ends it.
  expect(streams).toBe(4);
  const asked = proxy.requests.filter(({ path }) => path.endsWith("/stream"));
  expect(asked.map(({ headers }) => headers["last-event-id"] !== undefined)).toEqual([
    false,
    true,
    true,
    true,
  ]);
});

const postChat = (body: object): Promise<Response> =>
  fetch(`${demo.server.url}/api/chat`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

describe.each([
  { size: "desktop", options: DESKTOP },
  { size: "phone", options: PHONE },
])("on a $size", ({ size, options }) => {
  test.each(["light", "dark"] as const)("%s", async (colorScheme) => {
    const context = await demo.context({ ...options, colorScheme });
    const tab = await demo.open(context);
    const name = (what: string) => `${size}-${colorScheme}-${what}`;
    const fits = async () => {
      const width = await tab.page.evaluate(() => document.documentElement.scrollWidth);
      expect(width).toBeLessThanOrEqual(options.viewport.width);
    };
    const light = await tab.page.evaluate(() => {
      const channels =
        getComputedStyle(document.body)
          .backgroundColor.match(/[\d.]+/g)
          ?.map(Number) ?? [];
      return channels.slice(0, 3).reduce((sum, channel) => sum + channel, 0) / 3;
    });
    if (colorScheme === "light") expect(light).toBeGreaterThan(180);
    else expect(light).toBeLessThan(80);
    await tab.shot(name("welcome"));
    await fits();

    await tab.say("How does a reply survive a refresh?");
    await eventually("some of the reply is there", async () => (await tab.text()).length > 250, 20_000, 20);
    await fits();
    await tab.shot(name("mid-reply"));
    await tab.at("stop").click();
    await tab.isNow("stopped");
    await fits();
    await tab.shot(name("stopped"));

    if (size === "phone") await tab.at("panel-toggle").click();
    await tab.at("log").waitFor();
    await eventually("the log is filled", async () => (await tab.at("log-row").count()) > 3);
    await fits();
    await tab.shot(name("log"));
    if (size === "phone") {
      await tab.page.keyboard.press("Escape");
      await tab.at("log").waitFor({ state: "detached" });
      await tab.at("list-toggle").click();
      const list = tab.at("chat-list");
      await eventually("the list is on the screen", async () => ((await list.boundingBox())?.x ?? -1) >= 0);
      await tab.shot(name("list"));
      await tab.at("new-chat").click();
      await eventually("a new chat is open", async () => (await tab.questions.count()) === 0);
    }
  });
});
