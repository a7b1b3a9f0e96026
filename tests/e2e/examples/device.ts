/** Somebody's browser that shows an example page: a profile of its own, so nothing is shared but the address. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { expect } from "vitest";
import { eventually } from "../support.js";

const SHOTS = fileURLToPath(new URL("../../../artefacts/screenshots", import.meta.url));

export interface Said {
  role: string;
  text: string;
}

export class Device {
  private readonly complaints: string[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
  ) {
    page.on("pageerror", (error) => this.complaints.push(String(error.stack ?? error)));
    page.on("console", (said) => {
      // The network errors that a test makes are said in the console as well.
      if (said.type() === "error" && !/Failed to load resource|net::ERR_/.test(said.text()))
        this.complaints.push(said.text());
    });
  }

  static async open(browser: Browser, url: string): Promise<Device> {
    const context = await browser.newContext({
      viewport: { width: 900, height: 620 },
      reducedMotion: "reduce",
    });
    context.setDefaultTimeout(15_000);
    const device = new Device(context, await context.newPage());
    await device.page.goto(url);
    await device.input.waitFor();
    return device;
  }

  private get input() {
    return this.page.getByLabel("Message");
  }
  private get button() {
    return this.page.getByRole("button", { name: "Stop" });
  }

  async say(text: string): Promise<void> {
    await this.input.fill(text);
    await this.page.getByRole("button", { name: "Send" }).click();
  }

  /** Everything on the screen that somebody said, exactly. */
  said(): Promise<Said[]> {
    return this.page.locator(".message").evaluateAll((all) =>
      all.map((one) => ({
        role: one.classList.contains("user") ? "user" : "assistant",
        text: one.textContent ?? "",
      })),
    );
  }

  /** The text of the last reply. */
  async text(): Promise<string> {
    return (await this.said()).filter(({ role }) => role === "assistant").at(-1)?.text ?? "";
  }

  /** Resolves while the reply is being written and this number is in it already. */
  async shows(number: number): Promise<void> {
    await eventually(
      `the page shows ${number}`,
      async () => (await this.text()).split(/\s+/).includes(String(number)),
      20_000,
      20,
    );
  }

  async says(expected: Said[]): Promise<void> {
    await eventually(
      "the page shows what was expected",
      async () => {
        const said = await this.said();
        if (JSON.stringify(said) === JSON.stringify(expected)) return true;
        throw new Error(`it shows ${JSON.stringify(said)}`);
      },
      30_000,
      50,
    );
  }

  /** What is written is over: nothing can be stopped any more. */
  async rests(): Promise<void> {
    await this.button.waitFor({ state: "hidden", timeout: 30_000 });
  }

  async stop(): Promise<void> {
    await this.button.click();
  }

  async reload(): Promise<void> {
    await this.page.reload();
    await this.input.waitFor();
  }

  /** Pictures of the page as it is, on a desk and on a phone, where nothing may stick out. */
  async shot(name: string): Promise<void> {
    await mkdir(SHOTS, { recursive: true });
    await this.page.screenshot({ path: join(SHOTS, `example-${name}.png`) });
    const desk = this.page.viewportSize();
    await this.page.setViewportSize({ width: 375, height: 667 });
    await this.page.screenshot({ path: join(SHOTS, `example-${name}-phone.png`) });
    expect(await this.page.evaluate(() => document.documentElement.scrollWidth)).toBe(375);
    if (desk !== null) await this.page.setViewportSize(desk);
  }

  async close(): Promise<void> {
    await this.context.close();
    expect(this.complaints, "errors in the page").toEqual([]);
  }
}
