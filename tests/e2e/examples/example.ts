/** An example as its README starts it: a copy of it in a directory of its own, and `strandline serve main:app` there. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, PythonServer } from "../server.js";

export const EXAMPLES = fileURLToPath(new URL("../../../examples", import.meta.url));

export class Example {
  private constructor(
    readonly server: PythonServer,
    readonly directory: string,
  ) {}

  /** `files` are those that the server needs. */
  static async begin(
    name: string,
    files: readonly string[],
    env: Record<string, string> = {},
    port?: number,
  ): Promise<Example> {
    const directory = await mkdtemp(join(tmpdir(), `strandline-${basename(name)}-`));
    for (const file of files)
      await cp(join(EXAMPLES, name, file), join(directory, file), { recursive: true });
    const chosen = port ?? (await freePort());
    const serve = ["-m", "strandline", "serve", "main:app", "--port", String(chosen)];
    const args = [...serve, "--log-level", "warning"];
    const example = new Example(new PythonServer(chosen, args, env, "/api/readyz", directory), directory);
    try {
      await example.server.start();
    } catch (error) {
      await example.close();
      throw error;
    }
    return example;
  }

  /** The runs of a session: how often the agent was called, and how that ended. */
  async runs(session: string): Promise<{ status: string; reason: string | null }[]> {
    const response = await fetch(`${this.server.url}/api/sessions/${session}`);
    return ((await response.json()) as { runs: { status: string; reason: string | null }[] }).runs;
  }

  async close(): Promise<void> {
    await this.server.end("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }
}
