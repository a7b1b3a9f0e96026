// biome-ignore-all lint/performance/useDomNodeTextContent: what is on the screen is what counts.
/** What is done about messages on the demo page, in two tabs: versions, deletes, other agents, reactions. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Demo, says, show, type Tab } from "./demo-page.js";
import { counted, eventually } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

let demo: Demo;
beforeAll(async () => {
  demo = await Demo.begin();
});
afterAll(() => demo?.end());
afterEach(() => demo.tidy());

describe("versions", () => {
  test("of a reply and of a question: every device goes along, and a reload keeps the place", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("count to 2 every 1 ms");
    await desk.isNow("completed");
    const first = await desk.reply.getAttribute("data-message-id");
    expect(await desk.at("versions").count()).toBe(0);
    await desk.at("regenerate").click();
    for (const tab of [desk, phone]) await says(tab, "versions", "2 / 2");
    await expect.poll(() => phone.reply.getAttribute("data-message-id")).not.toBe(first);

    await phone.page.getByRole("button", { name: "Earlier version" }).click();
    for (const tab of [desk, phone]) {
      await says(tab, "versions", "1 / 2");
      await eventually("it is the first reply", async () => {
        return (await tab.reply.getAttribute("data-message-id")) === first;
      });
    }
    await phone.page.reload();
    await says(phone, "versions", "1 / 2");
    await expect.poll(() => phone.reply.getAttribute("data-message-id")).toBe(first);
    await expect.poll(() => phone.at("version-before").isDisabled()).toBe(true);

    await phone.at("edit").click();
    await phone.at("edit-text").fill("count to 5 every 1 ms");
    await phone.at("edit-save").click();
    await show([desk, phone], "count to 5 every 1 ms", counted(5).trim());
    await says(desk, "versions", "2 / 2");
    await desk.at("version-before").click();
    await show([desk, phone], "count to 2 every 1 ms", counted(2).trim());
    await desk.at("version-after").first().click();
    await desk.page.reload();
    await show([desk, phone], "count to 5 every 1 ms", counted(5).trim());
  });

  test("a deleted message is gone, on both devices, and stays gone", async () => {
    const [desk, phone] = await demo.pair();
    for (const number of [2, 3]) {
      await desk.say(`count to ${number} every 1 ms`);
      await show([desk], ...[2, 3].slice(0, number - 1).flatMap(turn));
    }
    await phone.replies.first().getByTestId("delete").click();
    await show([desk, phone], "count to 2 every 1 ms", ...turn(3));
    await desk.reply.getByTestId("delete").click();
    await show([desk, phone], "count to 2 every 1 ms", "count to 3 every 1 ms");
    await desk.page.reload();
    await show([desk], "count to 2 every 1 ms", "count to 3 every 1 ms");
    expect((await desk.history()).messages.length).toBe(2);
  });
});

const turn = (number: number) => [`count to ${number} every 1 ms`, counted(number).trim()];

test("two more agents report beside a reply, and one is stopped on the other device", async () => {
  const [desk, phone] = await demo.pair();
  await desk.say("research tides");
  const card = (tab: Tab, agent: string) => tab.page.locator(`[data-agent="${agent}"]`);
  const done = async (tab: Tab, agent: string) => Number(await progress(tab, agent));
  const progress = (tab: Tab, agent: string) =>
    card(tab, agent).getByRole("progressbar").getAttribute("value");
  for (const agent of ["web", "archive"]) {
    await eventually(`${agent} has read a page`, async () => (await done(desk, agent)) > 0, 15_000, 20);
    await expect.poll(() => card(desk, agent).getAttribute("data-status")).toBe("running");
    await expect.poll(() => card(desk, agent).getByRole("progressbar").count()).toBe(1);
  }
  await phone.page.getByRole("button", { name: "Stop archive" }).click();
  await phone.page.reload();
  for (const tab of [desk, phone]) {
    await tab.isNow("completed");
    await expect.poll(() => tab.text()).toMatch(/1 of 2 came back\./);
    await expect.poll(() => card(tab, "web").getAttribute("data-status")).toBe("completed");
    await expect.poll(() => card(tab, "web").innerText()).toMatch(/12 \/ 12\s+12 pages about tides/);
    await expect.poll(() => card(tab, "archive").getAttribute("data-status")).toBe("stopped");
    await expect.poll(() => tab.fits()).toBe(true);
  }
  await expect.poll(() => done(phone, "archive")).toBeLessThan(8);
  await desk.page.reload();
  await desk.isNow("completed");
  await expect.poll(() => desk.at("colleague").count()).toBe(2);
  await expect.poll(() => progress(desk, "archive")).toBe(await progress(phone, "archive"));
});

test("reactions are counted over the devices, one of each per device", async () => {
  const [desk, phone] = await demo.pair();
  await desk.say("count to 2 every 1 ms");
  await Promise.all([desk, phone].map((tab) => tab.isNow("completed")));
  const is = async (tab: Tab, name: string, count: number, mine: boolean) => {
    const label = `${name === "up" ? "Good" : "Bad"} reply${count > 0 ? `, ${count}` : ""}`;
    await eventually(`${label} on the page`, async () => {
      const button = tab.at(`react-${name}`);
      return (
        (await button.getAttribute("aria-label")) === label &&
        (await button.getAttribute("aria-pressed")) === String(mine)
      );
    });
  };
  await desk.at("react-up").click();
  await is(desk, "up", 1, true);
  await is(phone, "up", 1, false);
  await phone.at("react-up").click();
  await phone.at("react-down").click();
  await Promise.all([is(desk, "up", 2, true), is(desk, "down", 1, false), is(phone, "up", 2, true)]);
  await phone.page.reload();
  await is(phone, "up", 2, true);
  await phone.at("react-up").click();
  await Promise.all([is(desk, "up", 1, true), is(phone, "up", 1, false), is(phone, "down", 1, true)]);
});

test("a second tab is another device of the same chat", async () => {
  const context = await demo.context();
  const tab = await demo.open(context);
  await tab.say("count to 3 every 1 ms");
  await tab.isNow("completed");
  const [other] = await Promise.all([context.waitForEvent("page"), tab.at("second-tab").click()]);
  await eventually("it has the reply", async () =>
    (await other.getByTestId("message-text").allInnerTexts()).includes(counted(3).trim()),
  );
  const devices = () => tab.at("readers").locator("[data-reader] .device").allInnerTexts();
  await eventually("there are two devices", async () => new Set(await devices()).size === 2);
});

test("every button on the page has a name, and what a visitor can try is there", async () => {
  const tab = await demo.open(await demo.context());
  const prompts = tab.page.locator(".prompt-text");
  await expect
    .poll(() => prompts.allInnerTexts())
    .toEqual(
      expect.arrayContaining(["delete report.pdf", "plan 10 days in Lisbon", "research tides", "think 5"]),
    );
  await tab.say("delete report.pdf");
  await tab.at("approve").waitFor();
  await tab.at("deny").click();
  await tab.isNow("completed");
  await tab.at("regenerate").click();
  await says(tab, "versions", "2 / 2");
  for (const button of await tab.page.getByRole("button").all()) {
    const name = (await button.getAttribute("aria-label")) ?? (await button.innerText());
    expect(name.trim(), await button.evaluate((node) => node.outerHTML)).not.toBe("");
  }
});
