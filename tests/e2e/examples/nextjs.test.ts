/** examples/nextjs-ai-sdk in Chromium, built for production: straight to Python, and through the rewrite of Next.js. */
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { launchChromium } from "../chromium.js";
import { freePort } from "../server.js";
import { counted, eventually, pause } from "../support.js";
import { Device } from "./device.js";
import { Example } from "./example.js";
import { buildAndStart, type NextServer } from "./next.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 240_000 });

let example: Example;
let next: NextServer;
let browser: Browser;
const devices: Device[] = [];

beforeAll(async () => {
  const [port, pages] = [await freePort(), await freePort()];
  const env = { ORIGINS: `http://127.0.0.1:${pages}` };
  example = await Example.begin("nextjs-ai-sdk", ["main.py"], env, port);
  next = await buildAndStart(example.server.url, pages);
  browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  await next?.close();
  await example?.close();
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
});

const asked = (text: string, reply: string) => [
  { role: "user", text },
  { role: "assistant", text: reply },
];

describe.each([
  { way: "direct", query: "" },
  { way: "through the rewrite", query: "&via=next" },
])("$way", ({ query }) => {
  /** Opens a chat, by default a new one, and keeps an eye on where its requests go. */
  async function open(path = query === "" ? "/" : "/?via=next"): Promise<Device> {
    const device = await Device.open(browser, next.url + path);
    devices.push(device);
    device.page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.pathname.startsWith("/api/")) origins.add(url.origin);
    });
    return device;
  }

  /** Two devices that show the same new chat, and its id. */
  async function openBoth(): Promise<[Device, Device, string]> {
    const first = await open();
    const { pathname, search } = new URL(first.page.url());
    return [first, await open(pathname + search), chatOf(first)];
  }

  const origins = new Set<string>();
  afterAll(() => {
    expect([...origins]).toEqual([query === "" ? example.server.url : next.url]);
  });

  test("the other device shows the message and the reply while it is written, and stops it", async () => {
    const [first, second, chat] = await openBoth();
    await eventually("they know of each other", async () => /2 devices/.test(await status(first)));
    await first.say("count to 5000 every 20 ms");
    await second.shows(10);
    await second.shot(query === "" ? "nextjs" : "nextjs-rewrite");
    await first.shows(12);
    expect((await second.said())[0]).toEqual({ role: "user", text: "count to 5000 every 20 ms" });
    await second.stop();
    await Promise.all([first.rests(), second.rests()]);
    const said = await second.said();
    expect(said.length).toBe(2);
    expect(counted(5000).startsWith(said[1]?.text ?? "x")).toBe(true);
    await first.says(said);
    await pause(200);
    expect(await first.said()).toEqual(said);
    expect(await second.said()).toEqual(said);
    expect(await example.runs(chat)).toMatchObject([{ status: "stopped", reason: "user" }]);

    await second.say("count to 3 every 1 ms");
    const more = [...said, ...asked("count to 3 every 1 ms", counted(3))];
    await Promise.all([first.says(more), second.says(more)]);
    await first.reload();
    await first.says(more);
    await eventually("the second is still counted", async () => /2 devices/.test(await status(first)));
  });

  test("a page that is loaded again in the middle of a reply", async () => {
    const [first, second, chat] = await openBoth();
    await first.say("count to 150 every 25 ms");
    for (const number of [10, 60]) {
      await first.shows(number);
      await first.reload();
    }
    const whole = asked("count to 150 every 25 ms", counted(150));
    await Promise.all([first.says(whole), second.says(whole)]);
    await Promise.all([first.rests(), second.rests()]);
    expect(await example.runs(chat)).toMatchObject([{ status: "completed" }]);
  });

  test("a server that is killed in the middle of a reply, and started again", async () => {
    const device = await open();
    await device.say("count to 150 every 25 ms");
    await device.shows(20);
    await example.server.end("SIGKILL");
    const shown = await device.text();
    expect(counted(150).startsWith(shown)).toBe(true);
    await example.server.start();
    await device.rests();
    expect((await device.text()).startsWith(shown)).toBe(true);
    expect(await example.runs(chatOf(device))).toMatchObject([{ status: "lost" }]);
    await device.say("count to 3 every 1 ms");
    await eventually("it is answered", async () => (await device.text()) === counted(3));
  });
});

const chatOf = ({ page }: Device): string => new URL(page.url()).searchParams.get("chat") ?? "";

async function status(device: Device): Promise<string> {
  return (await device.page.getByTestId("status").textContent()) ?? "";
}
