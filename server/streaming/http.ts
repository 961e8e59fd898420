/**
 * What this folder needs of Node's HTTP server. An `import` of "node:http" reads every export of it, also those behind
 * which Node loads its HTTP client: 4 MiB.
 */
export const { createServer, STATUS_CODES } = process.getBuiltinModule("node:http");
