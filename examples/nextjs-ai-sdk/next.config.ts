import type { NextConfig } from "next";

const server = process.env.STRANDLINE_URL ?? "http://127.0.0.1:8000";

// For /?via=next, where the browser cannot reach Python itself. Next passes streams on as they come and compresses none
// of them (`no-transform`); it gives up on one that is silent for 30 s, and the server says something every 15 s.
const config: NextConfig = {
  rewrites: async () => [{ source: "/api/:path*", destination: `${server}/api/:path*` }],
};

export default config;
