// biome-ignore-all lint/performance/useDomNodeTextContent: what is on the screen is what counts.
/** The demo as a visitor has it: `strandline demo` in a process of its own, and its page in Chromium. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { expect } from "vitest";
import { textOf } from "./chat.js";
import { launchChromium } from "./chromium.js";
import { freePort, type History, PythonServer } from "./server.js";
import { eventually, fresh } from "./support.js";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const STATIC = join(ROOT, "python/strandline/demo/static/index.html");
const SHOTS = join(ROOT, "artefacts/screenshots");

export const DESKTOP = { viewport: { width: 1280, height: 800 } };
export const PHONE = {
  viewport: { width: 375, height: 812 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
  userAgent:
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
};

/** The server, the browser, and whatever tabs a test opens. */
export class Demo {
  private readonly contexts: BrowserContext[] = [];
  /** What the pages had to complain about. */
  private complaints: string[] = [];

  private constructor(
    readonly server: PythonServer,
    private readonly browser: Browser,
    private readonly directory: string,
  ) {}

  static async begin(): Promise<Demo> {
    if (!existsSync(STATIC)) {
      throw new Error("The demo page is not built: npm run build -w js-adapter && npm run build -w demo");
    }
    const directory = await mkdtemp(join(tmpdir(), "strandline-browser-"));
    await mkdir(SHOTS, { recursive: true });
    const port = await freePort();
    const args = ["-m", "strandline", "demo", "--no-browser", "--port", String(port)];
    const server = new PythonServer(port, [...args, "--db", join(directory, "demo.db")], {});
    await server.start();
    return new Demo(server, await launchChromium(), directory);
  }

  async end(): Promise<void> {
    await this.browser.close();
    await this.server.end("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }

  /** After each test. */
  async tidy(): Promise<void> {
    for (const context of this.contexts.splice(0)) await context.close();
    const said = this.complaints;
    this.complaints = [];
    expect(said, "uncaught errors in the page").toEqual([]);
  }

  async context(options: Parameters<Browser["newContext"]>[0] = DESKTOP): Promise<BrowserContext> {
    const context = await this.browser.newContext({ reducedMotion: "reduce", ...options });
    context.setDefaultTimeout(15_000);
    this.contexts.push(context);
    return context;
  }

  /** A desktop and a phone that show one chat. */
  async pair(): Promise<[desk: Tab, phone: Tab]> {
    const id = fresh("pair");
    const phone = { ...PHONE, viewport: { width: 390, height: 844 } };
    return [await this.open(await this.context(), id), await this.open(await this.context(phone), id)];
  }

  async open(context: BrowserContext, id = fresh("page"), base = this.server.url): Promise<Tab> {
    const page = await context.newPage();
    page.on("pageerror", (error) => this.complaints.push(String(error.stack ?? error)));
    await page.goto(`${base}/?chat=${id}`);
    const tab = new Tab(this.server, page, id);
    await tab.at("composer").waitFor();
    return tab;
  }
}

/** A tab that shows a chat. */
export class Tab {
  constructor(
    private readonly server: PythonServer,
    readonly page: Page,
    readonly id: string,
  ) {}

  at(testId: string) {
    return this.page.getByTestId(testId);
  }
  get replies() {
    return this.page.locator('[data-testid="message"][data-role="assistant"]');
  }
  get questions() {
    return this.page.locator('[data-testid="message"][data-role="user"]');
  }
  get reply() {
    return this.replies.last();
  }

  async say(text: string): Promise<void> {
    await this.at("composer").fill(text);
    await this.at("send").click();
  }

  /** The text of the last reply as it is on the screen. */
  async text(): Promise<string> {
    if ((await this.replies.count()) === 0) return "";
    return (await this.reply.getByTestId("message-text").innerText()).trim();
  }

  async shows(number: number): Promise<void> {
    await eventually(
      `the page shows ${number}`,
      async () => (await this.text()).split(/\s+/).includes(String(number)),
      20_000,
      20,
    );
  }

  /** Resolves when the last reply has this status, which the page says of it. */
  async isNow(status: string, ms = 30_000): Promise<void> {
    let last: string | null = null;
    const settled = async () => {
      last = (await this.replies.count()) > 0 ? await this.reply.getAttribute("data-status") : null;
      return last === status;
    };
    await eventually(`the reply is ${status}`, settled, ms, 20).catch((error) => {
      throw new Error(`${error.message}; it is ${last}`);
    });
    await this.at("stop").waitFor({ state: "detached" });
  }

  history(): Promise<History> {
    return fetch(`${this.server.url}/api/chat/${this.id}/messages`).then(
      (answer) => answer.json() as Promise<History>,
    );
  }

  /** One question, one reply, of exactly this text, on the screen and in the store. */
  async isWhole(text: string): Promise<void> {
    await this.isNow("completed");
    expect(await this.questions.count()).toBe(1);
    expect(await this.replies.count()).toBe(1);
    expect(await this.text()).toBe(text.trim());
    const history = await this.history();
    expect(history.messages.length).toBe(2);
    expect(textOf(history.messages[1])).toBe(text);
    expect(await this.reply.getAttribute("data-message-id")).toBe(history.messages[1]?.id);
    expect(await this.at("error").count()).toBe(0);
  }

  /** What the page complains about from now on, however shortly. */
  async alarms(): Promise<() => Promise<string[]>> {
    const heard = await this.page.evaluateHandle(() => {
      const said: string[] = [];
      new MutationObserver(() => {
        for (const alarm of document.querySelectorAll('[role="alert"]')) said.push(alarm.textContent ?? "");
      }).observe(document.body, { subtree: true, childList: true });
      return said;
    });
    return () => heard.jsonValue();
  }

  /** Nothing has to be scrolled sideways. */
  fits(): Promise<boolean> {
    return this.page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      return scrollWidth <= clientWidth;
    });
  }

  async shot(name: string): Promise<void> {
    await this.page.screenshot({ path: join(SHOTS, `${name}.png`) });
  }
}

/** Resolves when every tab shows these messages, in this order. */
export async function show(tabs: Tab[], ...texts: (string | RegExp)[]): Promise<void> {
  let last: string[] = [];
  for (const tab of tabs) {
    const isSo = async () => {
      last = await tab.at("message-text").allInnerTexts();
      return (
        last.length === texts.length &&
        texts.every((text, index) =>
          typeof text === "string" ? last[index]?.trim() === text : text.test(last[index] ?? ""),
        )
      );
    };
    await eventually(`the page shows ${texts.join(" | ")}`, isSo, 30_000, 20).catch((error) => {
      throw new Error(`${error.message}; it shows ${JSON.stringify(last)}`);
    });
  }
}

/** Resolves when every tab lists these messages as waiting. */
export async function waits(tabs: Tab[], ...texts: string[]): Promise<void> {
  for (const tab of tabs) {
    let last: string[] = [];
    const isSo = async () => {
      last = (await tab.at("waiting").allInnerTexts()).map(flat);
      return JSON.stringify(last) === JSON.stringify(texts);
    };
    await eventually(`${texts.join(" | ") || "nothing"} is waiting`, isSo, 30_000, 20).catch((error) => {
      throw new Error(`${error.message}; it is ${JSON.stringify(last)}`);
    });
  }
}

const flat = (text: string) => text.replace(/\s+/g, " ").trim();

export async function says(tab: Tab, testId: string, text: string): Promise<void> {
  let last = "";
  const isSo = async () => {
    last = flat(await tab.at(testId).last().innerText());
    return last === text;
  };
  await eventually(`${testId} says ${text}`, isSo).catch((error) => {
    throw new Error(`${error.message}; it says ${last}`);
  });
}
