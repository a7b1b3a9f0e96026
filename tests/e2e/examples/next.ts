/** The Next.js example as it is deployed: `next build`, then `next start`. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually } from "../support.js";
import { EXAMPLES } from "./example.js";

const DIRECTORY = join(EXAMPLES, "nextjs-ai-sdk");
const NEXT = createRequire(join(DIRECTORY, "package.json")).resolve("next/dist/bin/next");

export interface NextServer {
  url: string;
  close(): Promise<void>;
}

const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** `strandline` is the address of the Python server: the build has it in its rewrites. */
export async function buildAndStart(strandline: string, port: number): Promise<NextServer> {
  const env = {
    ...process.env,
    NEXT_TELEMETRY_DISABLED: "1",
    STRANDLINE_URL: strandline,
    NODE_ENV: "production",
  };
  await promisify(execFile)(process.execPath, [NEXT, "build"], { cwd: DIRECTORY, env }).catch((error) => {
    throw new Error(`next build:\n${error.stdout}\n${error.stderr}`);
  });
  const args = [NEXT, "start", "--hostname", "127.0.0.1", "--port", String(port)];
  const child = spawn(process.execPath, args, { cwd: DIRECTORY, env, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const gone = once(child, "exit");
  const url = `http://127.0.0.1:${port}`;
  const close = async () => {
    child.kill("SIGKILL");
    await gone;
    children.delete(child);
  };
  try {
    await eventually("next start answers", async () => (await fetch(url)).ok, 30_000, 50);
  } catch (error) {
    await close();
    throw new Error(`next start:\n${output}`, { cause: error });
  }
  return { url, close };
}
