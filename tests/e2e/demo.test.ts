// biome-ignore-all lint/performance/useDomNodeTextContent: what is on the screen is what counts.
/** A conversation on the demo page, in two tabs: each flow is begun in one, goes on in the other, and outlives a reload. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { textOf } from "./chat.js";
import { Demo, says, show, waits } from "./demo-page.js";
import { counted, eventually } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

let demo: Demo;
beforeAll(async () => {
  demo = await Demo.begin();
});
afterAll(() => demo?.end());
afterEach(() => demo.tidy());

const decided = (outcome: string) => new RegExp(`^${outcome} · decided on (desktop|phone)-\\w{4}$`);

describe("an approval", () => {
  test("is asked for on every device, survives a reload, and is given on the other one", async () => {
    const [desk, phone] = await demo.pair();
    await desk.page.getByRole("button", { name: /^delete report\.pdf/ }).click();
    await phone.at("approve").waitFor();
    await desk.page.reload();
    await desk.at("approve").waitFor();
    await expect.poll(() => desk.reply.getAttribute("data-status")).toBe("suspended");
    await expect.poll(() => phone.fits()).toBe(true);

    await phone.at("approve").click();
    for (const tab of [desk, phone]) {
      await tab.isNow("completed");
      await expect.poll(() => tab.text()).toMatch(/delete_file is done\. \(The demo only pretends\.\)$/);
      await expect.poll(() => tab.at("tool").getAttribute("data-state")).toBe("output-available");
      await expect.poll(() => tab.at("decided").innerText()).toMatch(decided("Approved"));
      await expect.poll(() => tab.at("approval").count()).toBe(0);
    }
    await expect.poll(() => desk.at("decided").innerText()).toBe(await phone.at("decided").innerText());
    await expect.poll(() => phone.at("decided").innerText()).toContain("phone-");
    await desk.page.reload();
    await desk.isNow("completed");
    await expect.poll(() => desk.at("decided").innerText()).toMatch(decided("Approved"));
  });

  test("is decided once when both click: who is late is told what was decided, and by whom", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("send mail to Ada");
    await Promise.all([desk, phone].map((tab) => tab.at("approve").waitFor()));
    // Both answers are on their way before either page can have heard of the other's.
    const held: (() => void)[] = [];
    for (const tab of [desk, phone]) {
      await tab.page.route("**/decisions/*", async (route) => {
        await new Promise<void>((release) => held.push(release));
        await route.continue();
      });
    }
    await Promise.all([desk.at("deny").click(), phone.at("approve").click()]);
    await eventually("both have answered", () => held.length === 2);
    for (const release of held) release();

    const late = await eventually("one of them is told", async () => {
      if ((await desk.at("error").count()) > 0) return desk;
      return (await phone.at("error").count()) > 0 && phone;
    });
    const [outcome, by] = late === desk ? ["approved", "phone"] : ["denied", "desktop"];
    await expect
      .poll(() => late.at("error").innerText())
      .toMatch(new RegExp(`^Somebody was quicker: it is ${outcome}, decided on ${by}-\\w{4}\\.$`));
    for (const tab of [desk, phone]) {
      await tab.isNow("completed");
      await expect
        .poll(() => tab.text())
        .toMatch(outcome === "approved" ? /send_mail is done/ : /was not called/);
      await expect
        .poll(() => tab.at("decided").innerText())
        .toMatch(decided(outcome === "approved" ? "Approved" : "Denied"));
    }
    const winner = late === desk ? phone : desk;
    expect(await winner.at("error").count()).toBe(0);
    await late.page.getByRole("button", { name: "Dismiss" }).click();
    expect(await late.at("error").count()).toBe(0);
  });

  test("is superseded by a new message, and no chip goes on waiting", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("delete report.pdf");
    await phone.at("approve").waitFor();
    await phone.say("count to 3 every 1 ms");
    for (const tab of [desk, phone]) {
      await eventually("there are two replies", async () => (await tab.replies.count()) === 2);
      await tab.isNow("completed");
      await expect.poll(() => tab.at("approval").count()).toBe(0);
      await expect.poll(() => tab.replies.first().getAttribute("data-status")).toBe("completed");
      await expect.poll(() => tab.at("tool").getAttribute("data-state")).toBe("output-denied");
    }
  });
});

describe("while a reply runs", () => {
  test("what is queued waits on both devices, can be taken back on either, and is answered in order", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("count to 300 every 50 ms");
    await desk.shows(5);
    await expect.poll(() => desk.at("composer").isEnabled()).toBe(true);
    await desk.at("how-queue").check();
    for (const text of ["count to 2 every 1 ms", "say nothing", "count to 4 every 1 ms"])
      await desk.say(text);
    const queued = [
      "Queued count to 2 every 1 ms",
      "Queued say nothing",
      "Queued count to 4 every 1 ms",
    ] as const;
    await waits([desk, phone], ...queued);
    const reply = await desk.reply.getAttribute("data-message-id");
    await phone.page.reload();
    await waits([phone], ...queued);
    await expect.poll(() => phone.fits()).toBe(true);
    // Meanwhile the reply is the last message, on the page that was there and on the one that was loaded.
    for (const tab of [desk, phone]) {
      await expect.poll(() => tab.questions.count()).toBe(1);
      await expect.poll(() => tab.reply.getAttribute("data-message-id")).toBe(reply);
    }

    const alarms = await Promise.all([desk, phone].map((tab) => tab.alarms()));
    await phone.page.getByRole("button", { name: "Take back “say nothing”" }).click();
    await waits([desk, phone], queued[0], queued[2]);
    await desk.page.getByRole("button", { name: "Take back “count to 4 every 1 ms”" }).click();
    await waits([desk, phone], queued[0]);
    await show(
      [desk, phone],
      "count to 300 every 50 ms",
      counted(300).trim(),
      "count to 2 every 1 ms",
      counted(2).trim(),
    );
    await waits([desk, phone]);
    expect((await desk.history()).messages.length).toBe(4);
    for (const said of alarms) expect(await said()).toEqual([]);
  });

  test("the agent is told something, on the other device, and heeds it", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("plan 6 days in Lisbon");
    await eventually("it has begun", async () => (await phone.text()).includes("Day 1."));
    await phone.at("how-steer").check();
    await phone.say("more fish");
    for (const tab of [desk, phone]) {
      await says(tab, "told", "You, meanwhile more fish");
      await waits([tab]);
    }
    await phone.page.reload();
    for (const tab of [desk, phone]) {
      await tab.isNow("completed");
      await expect
        .poll(() => tab.text())
        .toMatch(/^6 days in Lisbon.*Noted.*Day 6\..*As you wished: more fish\.$/s);
      await expect.poll(() => tab.replies.count()).toBe(1);
      await expect.poll(() => tab.questions.count()).toBe(1);
      await expect.poll(() => tab.at("told").count()).toBe(1);
    }
  });

  test("what an agent was told that does not listen becomes a message, and is answered", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("count to 200 every 30 ms");
    await phone.shows(3);
    await phone.at("how-steer").check();
    await phone.say("count to 2 every 1 ms");
    await waits([desk, phone], "Told, not taken yet count to 2 every 1 ms");
    await show(
      [desk, phone],
      "count to 200 every 30 ms",
      counted(200).trim(),
      "count to 2 every 1 ms",
      counted(2).trim(),
    );
    await waits([desk, phone]);
  });

  test("it is interrupted from the other device", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("count to 5000 every 10 ms");
    await phone.shows(10);
    await expect.poll(() => phone.at("how-interrupt").isChecked()).toBe(true);
    await phone.say("count to 3 every 1 ms");
    await show(
      [desk, phone],
      "count to 5000 every 10 ms",
      /^1 2 3 4 5 6 7 8 9 10 /,
      "count to 3 every 1 ms",
      counted(3).trim(),
    );
    await desk.page.reload();
    for (const tab of [desk, phone]) {
      await eventually("there are two replies", async () => (await tab.replies.count()) === 2);
      await tab.isNow("completed");
      await expect.poll(() => tab.replies.first().getAttribute("data-status")).toBe("stopped");
      await expect.poll(() => tab.at("how").count()).toBe(0);
    }
  });

  test("an interrupt ends what is queued as well, and says so before and after", async () => {
    const [desk, phone] = await demo.pair();
    await desk.say("count to 5000 every 10 ms");
    await desk.shows(5);
    await phone.at("how-queue").check();
    await phone.say("think 5");
    await waits([desk, phone], "Queued think 5");
    await phone.at("how-interrupt").check();
    await expect
      .poll(() => phone.page.getByText("Ends this reply and what is queued.").isVisible())
      .toBe(true);
    await phone.say("count to 3 every 1 ms");
    for (const tab of [desk, phone]) {
      await eventually("there are three replies", async () => (await tab.replies.count()) === 3);
      await tab.isNow("completed");
      const [first, second] = [tab.replies.nth(0), tab.replies.nth(1)];
      await expect.poll(() => first.innerText()).toMatch(/Stopped/);
      await expect.poll(() => first.getByTestId("react-up").count()).toBe(1);
      await expect.poll(() => second.innerText()).toMatch(/Not answered/);
      await expect.poll(() => second.getByTestId("react-up").count()).toBe(0);
    }
  });
});

test("a server that is killed twice: the queue goes on, and what waits for a decision still does", async () => {
  const [desk, phone] = await demo.pair();
  await desk.say("count to 5000 every 10 ms");
  await phone.shows(10);
  await phone.at("how-queue").check();
  await phone.say("delete report.pdf");
  await waits([desk, phone], "Queued delete report.pdf");
  await demo.server.end("SIGKILL");
  await demo.server.start();
  await Promise.all([desk, phone].map((tab) => tab.at("approve").waitFor()));
  await demo.server.end("SIGKILL");
  await demo.server.start();
  await desk.page.goto(`${demo.server.url}/?chat=${desk.id}`);
  await desk.at("approve").click();
  for (const tab of [desk, phone]) {
    await eventually("it is done", async () => /delete_file is done/.test(await tab.text()), 20_000, 20);
    await tab.isNow("completed");
    await expect.poll(() => tab.replies.first().getAttribute("data-status")).toBe("lost");
    await expect.poll(() => tab.at("waiting").count()).toBe(0);
  }
  expect((await desk.history()).messages.length).toBe(4);
});

test("a reply that was lost before a queued one: the page complains of nothing, and each has its own retry", async () => {
  const tab = await demo.open(await demo.context());
  await tab.say("plan 4 days in Lisbon");
  await eventually("it has begun", async () => (await tab.text()).includes("Day 1."));
  await tab.at("how-queue").check();
  await tab.say("think 2");
  await waits([tab], "Queued think 2");
  // The page hears of both ends at once, so that it has no second reply to read.
  await tab.at("offline-toggle").click();
  await demo.server.end("SIGKILL");
  await demo.server.start();
  await eventually("both are over on the server", async () =>
    /the answer is \*\*14\*\*\./.test(textOf((await tab.history()).messages[3])),
  );
  await tab.at("offline-toggle").click();
  await eventually("both are over", async () => /the answer is 14\./.test(await tab.text()), 20_000, 20);
  await tab.isNow("completed");
  await expect.poll(() => tab.replies.first().getAttribute("data-status")).toBe("lost");
  expect(await tab.at("error").count()).toBe(0);

  await tab.replies.first().getByRole("button", { name: "Try again" }).click();
  await eventually("the plan is written anew", async () => /Day 4\./.test(await tab.text()), 20_000, 20);
  await tab.isNow("completed");
  await expect.poll(() => tab.replies.count()).toBe(1);
  await says(tab, "versions", "2 / 2");
  await tab.at("version-before").click();
  await eventually("what followed is still there", async () => /is 14\./.test(await tab.text()));
});

test("the strip stays as it is while the page reconnects, and can be told to try now", async () => {
  const [desk, phone] = await demo.pair();
  await desk.say("count to 3 every 1 ms");
  const heights = () =>
    Promise.all(
      [desk, phone].map(async (tab) => (await tab.page.getByLabel("Connection").boundingBox())?.height),
    );
  await Promise.all([desk, phone].map((tab) => tab.isNow("completed")));
  for (const tab of [desk, phone]) await says(tab, "connection-status", "Live");
  const before = await heights();
  await demo.server.end("SIGKILL");
  for (const tab of [desk, phone]) await says(tab, "connection-status", "Retrying");
  await Promise.all([desk, phone].map((tab) => tab.at("try-now").waitFor()));
  expect(await heights()).toEqual(before);
  for (const tab of [desk, phone]) {
    const isCut = await tab.at("tally").evaluate((node) => node.scrollWidth > node.clientWidth);
    expect(isCut).toBe(false);
  }
  const asked = desk.page.waitForRequest(/\/events$/);
  await desk.at("try-now").click();
  await asked;
  await demo.server.start();
  for (const tab of [desk, phone]) await says(tab, "connection-status", "Live");
  await expect.poll(() => desk.at("tally").innerText()).toBe("resumed 1 time, 0 lost, 0 duplicated");
});

test("a fresh tab in the middle of a reply has resumed nothing, a reloaded one has", async () => {
  const [desk, phone] = await demo.pair();
  await desk.say("count to 5000 every 10 ms");
  await phone.shows(5);
  const late = await demo.open(await demo.context(), desk.id);
  await late.shows(20);
  for (const tab of [desk, phone, late]) await says(tab, "tally", "resumed 0 times, 0 lost, 0 duplicated");
  await late.page.reload();
  await says(late, "tally", "resumed 1 time, 0 lost, 0 duplicated");
  await late.at("stop").click();
  await late.isNow("stopped");
});

test("on a phone a table keeps its words whole, and what can be done about a reply is one line", async () => {
  const [, phone] = await demo.pair();
  await phone.say("How?");
  await phone.isNow("completed");
  await phone.at("regenerate").click();
  await eventually("it has begun", async () => /^You asked.{20,400}$/s.test(await phone.text()));
  await phone.at("stop").click();
  await phone.isNow("stopped");
  await says(phone, "versions", "2 / 2");
  await phone.at("react-up").click();
  const middles = await phone.reply.locator(".message-foot button, .message-foot .chip").evaluateAll((all) =>
    all.map((one) => {
      const { top, bottom } = one.getBoundingClientRect();
      return Math.round((top + bottom) / 2);
    }),
  );
  expect(middles.length).toBe(7);
  expect(new Set(middles).size).toBe(1);

  await phone.at("version-before").click();
  await phone.isNow("completed");
  // Long enough that a column has to give way.
  const lines = await phone.page.locator("td").evaluateAll((cells) => {
    const word = cells[0]?.firstChild as Text;
    word.data = "incomprehensibilities";
    cells[1]?.append(" and so on".repeat(20));
    const range = document.createRange();
    range.selectNode(word);
    return range.getClientRects().length;
  });
  expect(lines).toBe(1);
  await expect.poll(() => phone.fits()).toBe(true);
});
