/** examples/vanilla in Chromium. */
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { launchChromium } from "../chromium.js";
import { CuttingProxy } from "../proxy.js";
import { counted, eventually, fresh, pause } from "../support.js";
import { Device } from "./device.js";
import { Example } from "./example.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let example: Example;
let browser: Browser;
const devices: Device[] = [];

beforeAll(async () => {
  example = await Example.begin("vanilla", ["main.py", "index.html"]);
  browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  await example?.close();
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
});

async function open(session: string, base = example.server.url): Promise<Device> {
  const device = await Device.open(browser, `${base}/?session=${session}`);
  devices.push(device);
  return device;
}

const asked = (text: string, reply: string) => [
  { role: "user", text },
  { role: "assistant", text: reply },
];

test("a reply survives cuts, an absent network and a reload, and is written once", async () => {
  const session = fresh("vanilla");
  const proxy = await CuttingProxy.begin(example.server.port);
  const resumptions = () => proxy.requests.filter(({ headers }) => headers["last-event-id"] !== undefined);
  try {
    const device = await open(session, proxy.url);
    const text = "count to 170 every 60 ms";
    await device.say(text);
    await device.shows(8);
    expect(proxy.cut()).toBeGreaterThan(0);
    // The feed says that a second is enough: of its own accord Chromium waits 3 s.
    await eventually("it has come back", () => resumptions().length === 1, 2_500);
    await device.shows(40);
    await device.context.setOffline(true);
    proxy.cut();
    await eventually("the page says so", async () => /reconnecting/.test(await status(device)));
    await device.context.setOffline(false);
    await device.shows(110);
    await device.reload();
    await device.says(asked(text, counted(170)));
    await device.rests();
    expect(resumptions().length).toBeGreaterThanOrEqual(2);
    expect(await example.runs(session)).toMatchObject([{ status: "completed" }]);
  } finally {
    await proxy.close();
  }
});

test("a second device shows the first one's message and the reply while it is written; it stops it", async () => {
  const session = fresh("two");
  const [first, second] = [await open(session), await open(session)];
  await eventually("they know of each other", async () => /2 devices/.test(await status(first)));
  await first.say("count to 5000 every 20 ms");
  await second.shows(10);
  await second.shot("vanilla");
  await second.stop();
  await Promise.all([first.rests(), second.rests()]);
  const said = await first.said();
  expect(said[0]).toEqual({ role: "user", text: "count to 5000 every 20 ms" });
  expect(counted(5000).startsWith(said[1]?.text ?? "x")).toBe(true);
  await second.says(said);
  await pause(200);
  expect(await first.said()).toEqual(said);
  await first.reload();
  await first.says(said);
  expect(await example.runs(session)).toMatchObject([{ status: "stopped", reason: "user" }]);
});

test("a server that is started again is found again, and says what it has kept", async () => {
  const device = await open(fresh("restart"));
  await device.say("count to 5000 every 20 ms");
  await device.shows(10);
  await example.server.end("SIGKILL");
  const shown = await device.text();
  await example.server.start();
  await device.rests();
  expect((await device.text()).startsWith(shown)).toBe(true);
  await device.say("count to 3 every 1 ms");
  await eventually("it is answered", async () => (await device.text()) === counted(3));
});

test("what another client edits, has answered again, and deletes", async () => {
  const session = fresh("edit");
  const device = await open(session);
  const message = { id: "u1", role: "user", parts: [{ type: "text", text: "count to 3 every 1 ms" }] };
  const post = (body: object) =>
    fetch(`${example.server.url}/api/sessions/${session}/messages`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  expect((await post({ message })).status).toBe(202);
  await device.says(asked("count to 3 every 1 ms", counted(3)));
  await device.rests();
  message.parts = [{ type: "text", text: "count to 5 every 1 ms" }];
  expect((await post({ message, messageId: "u1" })).status).toBe(202);
  await device.says(asked("count to 5 every 1 ms", counted(5)));
  await device.rests();
  expect((await post({ message, messageId: "u1" })).status).toBe(202);
  await eventually("there were three runs", async () => (await example.runs(session)).length === 3);
  await device.says(asked("count to 5 every 1 ms", counted(5)));
  await device.rests();

  const url = `${example.server.url}/api/sessions/${session}`;
  expect((await fetch(url, { method: "DELETE" })).status).toBe(204);
  await eventually("the page says that it is gone", async () => (await status(device)).endsWith("deleted"));
  await pause(2500);
  expect((await fetch(url)).status, "the page has not made it again").toBe(404);
});

async function status(device: Device): Promise<string> {
  return (await device.page.locator("header span").first().textContent()) ?? "";
}
