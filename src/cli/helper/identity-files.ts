import { utf8Bytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { encodePem } from '#pki/pem.ts'
import { trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { WorkloadX509Svid, X509Context } from '#workload-client/workload-api.ts'
import { certificatesPem } from '../svid-files.ts'
import type { HelperConfig } from './config.ts'
import type { VersionFile } from './versioned-directory.ts'

/** What the agent has said so far. */
export interface Identities {
  readonly x509: X509Context | undefined
  /** The JWK set of each trust domain, as JSON text. */
  readonly jwtBundles: ReadonlyMap<TrustDomain, string> | undefined
  /** Tokens by the name of their file. */
  readonly jwtSvids: ReadonlyMap<string, string>
}

/** Files to write, and what they lack. */
export interface IdentityFiles {
  readonly files: readonly VersionFile[]
  /** One sentence for each file that was left out. */
  readonly notes: readonly string[]
}

export const wantsX509 = (config: HelperConfig): boolean =>
  config.svid_file_name !== undefined ||
  config.svid_key_file_name !== undefined ||
  config.svid_and_key_file_name !== undefined ||
  config.svid_bundle_file_name !== undefined ||
  config.federated_bundle_file_names.size > 0 ||
  // It is what tells which of the JWT bundles is that of the own trust domain.
  config.jwt_bundle_file_name !== undefined

export const wantsJwtBundles = (config: HelperConfig): boolean =>
  config.jwt_bundle_file_name !== undefined || config.federated_jwt_bundle_file_names.size > 0

/** Whether there is everything that the configuration wants a file of. */
export const isComplete = (config: HelperConfig, of: Identities): boolean =>
  (of.x509 !== undefined || !wantsX509(config)) &&
  (of.jwtBundles !== undefined || !wantsJwtBundles(config)) &&
  config.jwt_svids.every((svid) => of.jwtSvids.has(svid.jwt_svid_file_name))

/**
 * The identity that the configuration asks for.
 *
 * @throws AssayError `not-found` when none has that hint.
 */
export function chosenSvid(config: HelperConfig, { svids }: X509Context): WorkloadX509Svid {
  const { hint } = config
  const found = hint === undefined ? svids[0] : svids.find((svid) => svid.hint === hint)
  if (found !== undefined) return found
  const hints = svids.map((svid) => `'${svid.hint}'`).join(', ')
  throw new AssayError('not-found', `no identity has the hint '${hint}'; there are ${hints}`)
}

/**
 * The files that programs have to be told of when they change: all but JWT-SVIDs, in the order in which `plain` replaces
 * them.
 */
export function reloadedFiles(
  config: HelperConfig,
  identities: Identities,
  nowSeconds: number,
): IdentityFiles {
  const x509 = x509Files(config, identities.x509, nowSeconds)
  const jwt = jwtBundleFiles(config, identities)
  return { files: [...x509.files, ...jwt.files], notes: [...x509.notes, ...jwt.notes] }
}

/** JWT-SVIDs, which programs read whenever they need one. */
export const tokenFiles = (config: HelperConfig, { jwtSvids }: Identities): VersionFile[] =>
  [...jwtSvids].map(([name, token]) => ({
    name,
    content: utf8Bytes(token),
    mode: config.jwt_svid_file_mode,
  }))

function x509Files(
  config: HelperConfig,
  x509: X509Context | undefined,
  nowSeconds: number,
): IdentityFiles {
  if (x509 === undefined) return { files: [], notes: [] }
  const svid = chosenSvid(config, x509)
  const own = trustDomainOf(svid.spiffeId)
  const [leaf, ...intermediates] = svid.certificates.map(({ raw }) => raw)
  const chain = [
    ...(leaf ? [leaf] : []),
    ...(config.add_intermediates_to_bundle ? [] : intermediates),
  ]
  const key = encodePem('PRIVATE KEY', svid.privateKey)
  const valid = (roots: readonly Uint8Array[]): readonly Uint8Array[] =>
    config.omit_expired ? roots.filter((der) => isValid(der, nowSeconds)) : roots
  const bundle = [
    ...(config.add_intermediates_to_bundle ? intermediates : []),
    ...valid(x509.bundles.get(own) ?? []),
    ...(config.include_federated_domains
      ? [...x509.bundles].filter(([name]) => name !== own).flatMap(([, roots]) => valid(roots))
      : []),
  ]
  const files: VersionFile[] = []
  const notes: string[] = []
  const add = (name: string | undefined, content: string, mode: number): void => {
    if (name !== undefined) files.push({ name, content: utf8Bytes(content), mode })
  }
  add(config.svid_bundle_file_name, certificatesPem(bundle), config.cert_file_mode)
  for (const [name, file] of config.federated_bundle_file_names) {
    const roots = x509.bundles.get(name)
    if (roots === undefined) notes.push(`${file}: the agent gives no bundle of ${name}`)
    else add(file, certificatesPem(valid(roots)), config.cert_file_mode)
  }
  add(config.svid_and_key_file_name, key + certificatesPem(chain), config.key_file_mode)
  add(config.svid_key_file_name, key, config.key_file_mode)
  add(config.svid_file_name, certificatesPem(chain), config.cert_file_mode)
  return { files, notes }
}

function jwtBundleFiles(config: HelperConfig, { jwtBundles, x509 }: Identities): IdentityFiles {
  if (jwtBundles === undefined) return { files: [], notes: [] }
  const files: VersionFile[] = []
  const notes: string[] = []
  const wanted = [...config.federated_jwt_bundle_file_names]
  if (config.jwt_bundle_file_name !== undefined && x509 !== undefined) {
    const own = trustDomainOf(chosenSvid(config, x509).spiffeId)
    wanted.push([own, config.jwt_bundle_file_name])
  }
  for (const [name, file] of wanted) {
    const text = jwtBundles.get(name)
    if (text === undefined) notes.push(`${file}: the agent gives no JWT bundle of ${name}`)
    else files.push({ name: file, content: utf8Bytes(text), mode: config.jwt_bundle_file_mode })
  }
  return { files, notes }
}

function isValid(der: Uint8Array, nowSeconds: number): boolean {
  const { notBeforeSeconds, notAfterSeconds } = parseCertificate(der)
  return notBeforeSeconds <= nowSeconds && nowSeconds < notAfterSeconds
}
