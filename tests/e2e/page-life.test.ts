/** The life of a page on a phone, in Chromium: hidden, offline, frozen, left and come back to. Its reply goes on. */
import type { CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { By } from "../pages/life.js";
import { textOf } from "./chat.js";
import { launchPhone } from "./chromium.js";
import { CuttingProxy } from "./proxy.js";
import { bundle, Device } from "./react-page.js";
import { freePort, TestServer } from "./server.js";
import { counted, eventually, fresh, pause } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

/** "Minutes": how long these pages are hidden before they count as hidden for long. */
const LONG = 250;
/** Never reached. */
const NEVER = 600_000;

const ASKED = "count to 80 every 25 ms";
const REPLY = counted(80);
/** For what has to happen while it is written. */
const ASKED_LONG = "count to 150 every 25 ms";
const LONG_REPLY = counted(150);

let server: TestServer;
let browser: Awaited<ReturnType<typeof launchPhone>>;
let code: string;
const phones: Phone[] = [];

beforeAll(async () => {
  [server, browser, code] = await Promise.all([
    TestServer.begin(),
    freePort().then(launchPhone),
    bundle(7, 19, "life"),
  ]);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});
afterEach(async () => {
  const all = phones.splice(0);
  for (const phone of all) await phone.close();
  expect(all.flatMap(({ device }) => device.complaints)).toEqual([]);
});

/** A chat in one tab of the phone, and the tab that is looked at instead of it. */
class Phone {
  private constructor(
    readonly id: string,
    readonly proxy: CuttingProxy,
    readonly device: Device,
    private readonly other: Page,
    private readonly cdp: CDPSession,
  ) {}

  static async open(by: By, hiddenMs: number): Promise<Phone> {
    const id = fresh(`life-${by}`);
    const proxy = await CuttingProxy.begin(server.port);
    const { context } = browser;
    const other = await context.newPage();
    const device = await Device.within(context, code, proxy.url, `?by=${by}&hidden=${hiddenMs}#${id}`);
    const phone = new Phone(id, proxy, device, other, await context.newCDPSession(device.page));
    phones.push(phone);
    await phone.show();
    return phone;
  }

  async close(): Promise<void> {
    await this.device.page.close();
    await this.other.close();
    await this.proxy.close();
  }

  /** Another tab comes to the front. */
  async hide(): Promise<void> {
    await this.other.bringToFront();
    await this.isNow("hidden");
  }

  async show(): Promise<void> {
    await this.device.page.bringToFront();
    await this.isNow("visible");
  }

  /** What browsers do to a tab that has been hidden for some minutes. */
  async freeze(): Promise<void> {
    await this.cdp.send("Page.setWebLifecycleState", { state: "frozen" });
  }

  async thaw(): Promise<void> {
    await this.cdp.send("Page.setWebLifecycleState", { state: "active" });
  }

  /** The network of the page is gone or back. With it go the connections that are open. */
  async online(isOnline: boolean): Promise<void> {
    const speed = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
    await this.cdp.send("Network.enable");
    await this.cdp.send("Network.emulateNetworkConditions", { offline: !isOnline, ...speed });
    if (!isOnline) this.proxy.cut();
  }

  private isNow(state: "hidden" | "visible"): Promise<unknown> {
    const look = () => this.device.page.evaluate(() => document.visibilityState);
    return eventually(`the page is ${state}`, async () => (await look()) === state);
  }

  /** The numbers of the reply that are on the screen. */
  async count(): Promise<number> {
    const [, reply = ""] = await this.device.texts();
    return reply.split(" ").length - 1;
  }

  /** The connections of this page that the server has. */
  async readers(): Promise<{ id: string; since: number }[]> {
    const response = await fetch(`${server.url}/api/sessions/${this.id}/readers`);
    expect(response.status).toBe(200);
    const { readers } = (await response.json()) as {
      readers: { id: string; since: number; connected: boolean }[];
    };
    return readers.filter(({ connected }) => connected);
  }

  isConnected(): Promise<unknown> {
    return eventually("the server has its connection", async () => (await this.readers()).length === 1);
  }

  /**
   * Resolves when the server has no connection of it, although the reply is being written, and had none for a while:
   * it is not that one replaced another.
   */
  async isGone(): Promise<void> {
    await eventually("the server has no connection", async () => (await this.readers()).length === 0);
    expect((await server.history(this.id)).activeRun).not.toBeNull();
    await pause(300);
    expect(await this.readers()).toEqual([]);
  }

  /** Everything is on the screen once, is what the server has, and came without a flicker. */
  async isWhole(...texts: string[]): Promise<void> {
    const { device, id } = this;
    await device.shows(...texts);
    await device.rests();
    const { messages } = await server.settled(id);
    const stored = messages.map((message) => ({ id: message.id, role: message.role, text: textOf(message) }));
    expect(await device.messages()).toEqual(stored);
    expect(stored.map(({ text }) => text)).toEqual(texts);
    expect(await device.says("status")).toBe("ready");
    expect(await device.says("error")).toBe("");
    expect(await device.isSteady()).toBeGreaterThan(0);
    expect((await server.calls(id)).called).toBe(texts.length / 2);
  }
}

describe.each(["session", "transport", "tanstack"] as const)("%s: a page that", (by) => {
  /** A phone that shows the beginning of a reply. */
  async function reading(hiddenMs: number, asked = ASKED): Promise<Phone> {
    const phone = await Phone.open(by, hiddenMs);
    await phone.device.say(asked);
    await phone.device.counts(5);
    await phone.isConnected();
    return phone;
  }
  /** Its reply has come to an end, of which the page has not heard. */
  async function misses(phone: Phone): Promise<void> {
    await server.settled(phone.id);
    expect(await phone.readers()).toEqual([]);
    expect(await phone.count()).toBeLessThan(80);
  }

  test("is hidden for a moment goes on reading", async () => {
    const phone = await reading(NEVER);
    const before = await phone.readers();
    const { length } = phone.proxy.requests.filter(({ path }) => !path.endsWith("/ack"));
    await phone.hide();
    const number = await phone.count();
    await eventually("it goes on", async () => (await phone.count()) > number + 20);
    expect(await phone.readers()).toMatchObject(before.map(({ id, since }) => ({ id, since })));
    await phone.show();
    await phone.isWhole(ASKED, REPLY);
    expect(phone.proxy.requests.filter(({ path }) => !path.endsWith("/ack")).length).toBe(length);
  });

  test("is hidden for long lets go of its connection, and has what was finished meanwhile", async () => {
    const phone = await reading(LONG);
    await phone.hide();
    await phone.isGone();
    await misses(phone);
    await phone.show();
    await phone.isWhole(ASKED, REPLY);
  });

  test("comes back while the reply is being written goes on with it", async () => {
    const phone = await reading(LONG, ASKED_LONG);
    for (let i = 0; i < 2; i++) {
      await phone.hide();
      await phone.isGone();
      const number = await phone.count();
      await phone.show();
      await phone.isConnected();
      await eventually("it goes on", async () => (await phone.count()) > number + 5);
      expect(await phone.device.says("status")).toBe("streaming");
      expect((await server.history(phone.id)).activeRun).not.toBeNull();
    }
    await phone.isWhole(ASKED_LONG, LONG_REPLY);
  });

  test("loses its network and gets it back has what was finished meanwhile", async () => {
    const phone = await reading(NEVER);
    await phone.online(false);
    await eventually("it knows", async () => (await phone.device.says("connection")) === "offline");
    await phone.isGone();
    await misses(phone);
    await phone.online(true);
    await phone.isWhole(ASKED, REPLY);
  });

  test("loses its network for a moment goes on with the reply", async () => {
    const phone = await reading(NEVER, ASKED_LONG);
    await phone.online(false);
    await phone.isGone();
    const number = await phone.count();
    await phone.online(true);
    await phone.isConnected();
    await eventually("it goes on", async () => (await phone.count()) > number + 5);
    expect((await server.history(phone.id)).activeRun).not.toBeNull();
    await phone.isWhole(ASKED_LONG, LONG_REPLY);
  });

  test("is frozen lets go at once, and has what was finished meanwhile when it thaws", async () => {
    const phone = await reading(NEVER);
    await phone.hide();
    await phone.freeze();
    await phone.isGone();
    await misses(phone);
    await phone.thaw();
    await phone.show();
    await phone.isWhole(ASKED, REPLY);
  });

  test("thaws out of sight stays away until it is looked at", async () => {
    const phone = await reading(NEVER, ASKED_LONG);
    await phone.hide();
    await phone.freeze();
    await phone.isGone();
    await phone.thaw();
    await phone.isGone();
    const number = await phone.count();
    await phone.show();
    await eventually("it goes on", async () => (await phone.count()) > number + 5);
    await phone.isWhole(ASKED_LONG, LONG_REPLY);
  });

  test("is left is kept by the browser, and has what was finished meanwhile when it comes back", async () => {
    const phone = await reading(NEVER);
    const { page } = phone.device;
    await page.evaluate(() => {
      addEventListener("pageshow", ({ persisted }) => {
        document.body.dataset.persisted = String(persisted);
      });
    });
    await page.goto("about:blank");
    await phone.isGone();
    await server.settled(phone.id);
    await page.goBack({ waitUntil: "commit" });
    await eventually("the page is there", () => page.evaluate(() => document.body.dataset.persisted));
    // The page itself, not one that was loaded again.
    expect(await page.evaluate(() => document.body.dataset.persisted)).toBe("true");
    await phone.isWhole(ASKED, REPLY);
  });

  test("goes through all of it", async () => {
    const phone = await reading(LONG);
    await phone.hide();
    await phone.isGone();
    await phone.freeze();
    await phone.online(false);
    await misses(phone);
    await phone.thaw();
    await phone.show();
    await pause(300);
    expect(await phone.count()).toBeLessThan(80);
    await phone.online(true);
    await phone.isWhole(ASKED, REPLY);
    await phone.device.say("count to 3 every 1 ms");
    await phone.isWhole(ASKED, REPLY, "count to 3 every 1 ms", counted(3));
  });
});

test.each(["session", "tanstack"] as const)(
  "%s: what another device did meanwhile is there as well",
  async (by) => {
    const phone = await Phone.open(by, LONG);
    await phone.device.say("count to 5000 every 10 ms");
    await phone.device.counts(5);
    await phone.hide();
    await phone.isGone();
    const parts = [{ type: "text", text: ASKED }];
    const message = { id: fresh("elsewhere"), role: "user", parts };
    const sent = await server.post(`/api/sessions/${phone.id}/messages`, { message });
    expect(sent.status).toBe(202);
    const { messages } = await eventually("it interrupted", async () => {
      const history = await server.history(phone.id);
      return history.messages.length === 3 && history;
    });
    await phone.show();
    await eventually("it is written", async () => (await phone.device.texts()).length === 4);
    expect(await phone.device.says("status")).toBe("streaming");
    await phone.isWhole("count to 5000 every 10 ms", textOf(messages[1]), ASKED, REPLY);
  },
);
