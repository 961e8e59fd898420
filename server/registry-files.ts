import { join } from "node:path";
import type { RegistriesConfig } from "../image-service/index.ts";
import type { Environment, RegistryFiles } from "./config.ts";

/** Where distributions keep their bundle of certificate authorities. */
const systemAuthorityFiles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** Joins the configured files with those that the environment leads to, in the order in which all tools look. */
export function registriesConfig(files: RegistryFiles, environment: Environment): RegistriesConfig {
  const { home, moved, proxies, path } = environment;
  const authFiles = [
    files.authFile,
    moved.registryAuthFile,
    join(moved.runtimeDir ?? "/run/containers/0", moved.runtimeDir === undefined ? "" : "containers", "auth.json"),
    join(moved.configHome ?? join(home, ".config"), "containers/auth.json"),
    join(moved.dockerConfig ?? join(home, ".docker"), "config.json"),
  ].filter((file) => file !== undefined);
  return {
    confFile: files.confFile,
    confDir: files.confDir,
    shortNameAliasesFile: files.shortNameAliasesFile,
    hostsDir: files.hostsDir,
    certsDirs: files.certsDirs,
    authFiles: [
      ...authFiles.map((file) => ({ path: file, format: "auth.json" as const })),
      { path: join(home, ".dockercfg"), format: "legacy" },
    ],
    namespacedAuthDir: files.namespacedAuthDir,
    proxies,
    authorityFiles: moved.sslCertFile === undefined ? systemAuthorityFiles : [moved.sslCertFile],
    helperEnvironment: { PATH: path, HOME: home },
  };
}
