/** examples/tanstack in Chromium: the built page, with our connection and with the stock one. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { launchChromium } from "../chromium.js";
import { counted, eventually, fresh } from "../support.js";
import { Device } from "./device.js";
import { EXAMPLES, Example } from "./example.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

let example: Example;
let browser: Browser;
const devices: Device[] = [];

beforeAll(async () => {
  await promisify(execFile)("npm", ["run", "build"], { cwd: `${EXAMPLES}/tanstack` });
  example = await Example.begin("tanstack", ["main.py", "dist"]);
  browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  await example?.close();
});
afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
});

async function open(thread: string, more = ""): Promise<Device> {
  const device = await Device.open(browser, `${example.server.url}/?thread=${thread}${more}`);
  devices.push(device);
  return device;
}

const asked = (text: string, reply: string) => [
  { role: "user", text },
  { role: "assistant", text: reply },
];

test("stock: a page that is loaded again in the middle of a reply goes on with it", async () => {
  const thread = fresh("stock");
  const device = await open(thread, "&stock=1");
  await device.say("count to 120 every 25 ms");
  for (const number of [10, 50]) {
    await device.shows(number);
    await device.reload();
  }
  await device.says(asked("count to 120 every 25 ms", counted(120)));
  await device.rests();
  await device.reload();
  await device.says(asked("count to 120 every 25 ms", counted(120)));
  expect(await example.runs(thread)).toMatchObject([{ status: "completed" }]);
});

test("stock: stop stops", async () => {
  const thread = fresh("stock-stop");
  const device = await open(thread, "&stock=1");
  await device.say("count to 5000 every 20 ms");
  await device.shows(10);
  await device.stop();
  await device.rests();
  const said = await device.said();
  await device.reload();
  await device.says(said);
  expect(await example.runs(thread)).toMatchObject([{ status: "stopped" }]);
});

test("live: the other device shows the message and the reply while it is written, and stops it", async () => {
  const thread = fresh("live");
  const [first, second] = [await open(thread), await open(thread)];
  await first.say("count to 5000 every 20 ms");
  await second.shows(10);
  await second.shot("tanstack");
  expect((await second.said())[0]).toEqual({ role: "user", text: "count to 5000 every 20 ms" });
  await second.stop();
  await Promise.all([first.rests(), second.rests()]);
  const said = await second.said();
  expect(counted(5000).startsWith(said[1]?.text ?? "x")).toBe(true);
  await first.says(said);
  await first.reload();
  await first.says(said);
  expect(await example.runs(thread)).toMatchObject([{ status: "stopped" }]);

  await second.say("count to 3 every 1 ms");
  await Promise.all(
    [first, second].map((one) => one.says([...said, ...asked("count to 3 every 1 ms", counted(3))])),
  );
});

test("live: a page that is loaded again in the middle of a reply", async () => {
  const thread = fresh("live-reload");
  const [first, second] = [await open(thread), await open(thread)];
  await first.say("count to 150 every 25 ms");
  for (const number of [10, 60]) {
    await first.shows(number);
    await first.reload();
  }
  const whole = asked("count to 150 every 25 ms", counted(150));
  await Promise.all([first.says(whole), second.says(whole)]);
  await Promise.all([first.rests(), second.rests()]);
  await eventually("one run", async () => (await example.runs(thread)).length === 1);
  expect(await example.runs(thread)).toMatchObject([{ status: "completed" }]);
});
