import { readFile, stat } from 'node:fs/promises'
import { equalBytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { type Certificate, describe, keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { checkIssuers, verifyChain } from '#pki/chain.ts'
import { attributeType, encodeName } from '#pki/name.ts'
import { parsePem } from '#pki/pem.ts'
import { checkKeyStrength, describePublicKey } from '#pki/public-key.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { UpstreamCa } from './upstream-authority.ts'

/** Where the certificates of a CA above the server are. */
export interface UpstreamFiles {
  /** PEM: the CA that signs, then its issuers as far as they are no roots. */
  readonly certFilePath: string
  /** PEM: the roots. Undefined: the CA in `certFilePath` is the root. */
  readonly bundleFilePath: string | undefined
}

/** The certificates of a CA that may certify servers of a trust domain. */
export type UpstreamCertificates = Pick<UpstreamCa, 'path' | 'roots'>

const maxFileBytes = 1024 * 1024

/**
 * Reads the certificates of a CA above the server and checks that what a server signs below it would be accepted:
 * see {@link checkUpstream}.
 *
 * @throws AssayError `failed-precondition`, reason `upstream-unusable`, that names the file and what is wrong.
 */
export async function loadUpstreamCertificates(
  { certFilePath, bundleFilePath }: UpstreamFiles,
  at: { readonly trustDomain: TrustDomain; readonly nowSeconds: number },
): Promise<UpstreamCertificates> {
  const chain = await loadCertificates(certFilePath)
  const roots =
    bundleFilePath === undefined ? chain.slice(0, 1) : await loadCertificates(bundleFilePath)
  try {
    return checkUpstream({ chain, roots, ...at })
  } catch (cause) {
    throw unusable(certFilePath, cause)
  }
}

/** An error that tells an operator which file of the upstream authority has to be put right. */
export const unusable = (path: string, cause: unknown): AssayError =>
  new AssayError(
    'failed-precondition',
    `cannot use the upstream authority in ${path}: ${messageOf(cause)}`,
    { reason: 'upstream-unusable', cause },
  )

/**
 * Checks a chain, the CA that signs first, for a server of `trustDomain` to stand below it:
 * every root and every certificate of the path to one is a CA that may sign certificates and is valid now;
 * keys and signatures are strong enough;
 * they name each other by key identifiers, as agents tell authorities apart;
 * every path length leaves room for the server's CA;
 * one that is an SVID is of this trust domain, and without a path (X509-SVID §4.1);
 * name constraints allow the trust domain's IDs.
 *
 * @throws Error of any kind that says what is wrong.
 */
function checkUpstream(of: {
  readonly chain: readonly Certificate[]
  readonly roots: readonly Certificate[]
  readonly trustDomain: TrustDomain
  readonly nowSeconds: number
}): UpstreamCertificates {
  const { chain, roots, trustDomain, nowSeconds } = of
  const [leaf, ...intermediates] = chain
  if (leaf === undefined) throw new SyntaxError('it holds no CERTIFICATE block')
  for (const root of roots) checkCa(root, trustDomain)
  const alive = roots.filter(({ notAfterSeconds }) => notAfterSeconds >= nowSeconds)
  const isRoot = alive.some(({ raw }) => equalBytes(raw, leaf.raw))
  const verified = isRoot ? [leaf] : verifyChain({ leaf, intermediates, roots: alive, nowSeconds })
  const path = verified as [Certificate, ...Certificate[]]
  if (isRoot) verifyChain({ leaf, intermediates: [], roots: [leaf], nowSeconds })
  for (const certificate of path) checkCa(certificate, trustDomain)
  for (const certificate of path.slice(0, -1)) {
    if (certificate.authorityKeyId === undefined) {
      throw new RangeError(`${describe(certificate)} has no authority key identifier`)
    }
  }
  checkIssuers([...whatFollows(leaf, trustDomain), ...path])
  return { path, roots: alive }
}

function checkCa(certificate: Certificate, trustDomain: TrustDomain): void {
  const name = describe(certificate)
  if (certificate.basicConstraints?.isCa !== true) throw new RangeError(`${name} is not a CA`)
  if (((certificate.keyUsage ?? 0) & keyUsageBit.keyCertSign) === 0) {
    throw new RangeError(`${name} may not sign certificates: its key usage lacks keyCertSign`)
  }
  if (certificate.subjectKeyId === undefined) {
    throw new RangeError(`${name} has no subject key identifier`)
  }
  checkKeyStrength(describePublicKey(certificate.publicKey))
  const ids = certificate.uris.filter((uri) => /^spiffe:/i.test(uri))
  const own = spiffeId(trustDomain, '')
  if (ids.length > 0 && (certificate.uris.length > 1 || ids[0] !== own)) {
    throw new RangeError(
      `${name} has the URI ${certificate.uris.join(', ')}: a CA above this server has ${own} or no SPIFFE ID`,
    )
  }
}

/** What the server will make, as far as CAs above it can object: its own CA certificate and a leaf. */
function whatFollows(upstream: Certificate, trustDomain: TrustDomain): Certificate[] {
  const made = (name: string, issuer: Uint8Array, uri: string): Certificate => ({
    ...upstream,
    subject: encodeName([{ type: attributeType.commonName, value: name }]),
    issuer,
    uris: [uri],
    dnsNames: [],
    directoryNames: [],
    alternativeNameTags: [0x86],
    basicConstraints: { isCa: true, pathLength: undefined },
    extensions: [],
  })
  const server = made('authority of the server', upstream.subject, spiffeId(trustDomain, ''))
  return [made('workload', server.subject, spiffeId(trustDomain, '/workload')), server]
}

async function loadCertificates(path: string): Promise<Certificate[]> {
  try {
    const { size } = await stat(path)
    if (size > maxFileBytes) throw new RangeError(`it is longer than ${maxFileBytes} bytes`)
    const certificates = parsePem(await readFile(path), 'CERTIFICATE')
    if (certificates.length === 0) throw new SyntaxError('it holds no CERTIFICATE block')
    return certificates.map((der) => parseCertificate(der))
  } catch (cause) {
    throw unusable(path, cause)
  }
}
