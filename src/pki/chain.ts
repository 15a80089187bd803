import { equalBytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import {
  type Certificate,
  describe,
  extendedKeyUsage,
  extensionOid,
  keyUsageBit,
  verifyCertificateSignature,
} from './certificate.ts'
import { type NameConstraints, parseNameConstraints, uriHost } from './name-constraints.ts'
import { checkKeyStrength, describePublicKey } from './public-key.ts'

/** Why a chain was refused: the reason of the AssayError. */
export type ChainRefusal =
  | 'certificate-expired'
  | 'certificate-not-yet-valid'
  | 'unknown-authority'
  | 'signature-invalid'
  | 'signature-algorithm-not-allowed'
  | 'key-not-allowed'
  | 'issuer-not-a-ca'
  | 'path-length-exceeded'
  | 'unknown-critical-extension'
  | 'name-constraint-violated'
  | 'purpose-not-allowed'
  | 'chain-too-long'

export interface ChainRequest {
  readonly leaf: Certificate
  /** In any order; certificates that do not help are passed over. */
  readonly intermediates: readonly Certificate[]
  /** Trust anchors. Keep the same objects between calls: their keys are remembered. */
  readonly roots: readonly Certificate[]
  /** Unix time. */
  readonly nowSeconds: number
  /**
   * Extended key usage that the leaf and every intermediate must allow; a certificate without the extension,
   * or with anyExtendedKeyUsage, allows all. Not checked when left out.
   */
  readonly purpose?: string
  /** How signatures are verified; throws AssayError. {@link verifyCertificateSignature} when left out. */
  readonly verifySignature?: (certificate: Certificate, issuerPublicKey: Uint8Array) => void
}

/** Longest chain, leaf and root included. */
const maxChainLength = 8
/** Most signatures that are checked for one leaf, so that look-alike issuers cannot buy work. */
const maxSignatureChecks = 24

const understoodExtensions: ReadonlySet<string> = new Set([
  extensionOid.subjectKeyId,
  extensionOid.keyUsage,
  extensionOid.subjectAltName,
  extensionOid.basicConstraints,
  extensionOid.nameConstraints,
  // With every policy acceptable and none required, these two change nothing (RFC 5280 §6.1.1 d).
  extensionOid.certificatePolicies,
  extensionOid.inhibitAnyPolicy,
  extensionOid.authorityKeyId,
  extensionOid.extendedKeyUsage,
])

/**
 * Finds a path from `leaf` to one of `roots` and validates it (RFC 5280 §6.1): names and key identifiers
 * chain, each signature verifies, each certificate is within its validity, the root's too, each issuer is a
 * CA that may sign certificates, path lengths and name constraints hold, no critical extension is unknown,
 * no RSA key is below 2048 bits. Policies and revocation are not looked at. A root's own signature is not
 * checked.
 *
 * @returns the path, leaf first, root last.
 * @throws AssayError `unauthenticated` whose reason is a {@link ChainRefusal}.
 */
export function verifyChain(request: ChainRequest): Certificate[] {
  return new PathSearch(request).run()
}

/**
 * Checks what every issuer of `path`, leaf first, allows below it: that it is a CA, its path length and its name
 * constraints. Signatures and dates are not looked at, so that a path can be judged before it is signed.
 *
 * @throws AssayError `unauthenticated`, as {@link verifyChain} does.
 */
export function checkIssuers(path: readonly Certificate[]): void {
  for (const [index, issuer] of path.entries()) {
    if (index > 0) checkIssuer(issuer, path.slice(0, index))
  }
}

class PathSearch {
  readonly #request: ChainRequest
  #signatureChecks = 0
  /** Of the most promising path that failed: one that chained beats one that did not. */
  #refusal: AssayError | undefined

  constructor(request: ChainRequest) {
    this.#request = request
  }

  run(): Certificate[] {
    const { leaf } = this.#request
    this.#checkAlone(leaf)
    const path = this.#extend([leaf])
    if (path !== undefined) return path
    throw (
      this.#refusal ??
      refuse('unknown-authority', leaf, 'no trusted authority issued it or one of its issuers')
    )
  }

  #extend(path: readonly Certificate[]): Certificate[] | undefined {
    const last = path[path.length - 1] as Certificate
    const { roots, intermediates } = this.#request
    for (const root of roots) {
      if (!mayHaveIssued(root, last)) continue
      const whole = this.#tryIssuer(path, root)
      if (whole !== undefined) return whole
    }
    for (const intermediate of intermediates) {
      if (!mayHaveIssued(intermediate, last)) continue
      if (path.some((seen) => isSameSubjectAndKey(seen, intermediate))) continue
      if (path.length + 2 > maxChainLength) {
        this.#refusal ??= refuse(
          'chain-too-long',
          last,
          `no root within ${maxChainLength} certificates`,
        )
        continue
      }
      const longer = this.#tryIssuer(path, intermediate)
      const whole = longer && this.#extend(longer)
      if (whole !== undefined) return whole
    }
    return undefined
  }

  /** The path with `issuer` at its end, or undefined, noting why not. */
  #tryIssuer(path: readonly Certificate[], issuer: Certificate): Certificate[] | undefined {
    const last = path[path.length - 1] as Certificate
    try {
      if (++this.#signatureChecks > maxSignatureChecks) {
        throw refuse('chain-too-long', last, 'too many certificates look like its issuer')
      }
      const { verifySignature = verifyCertificateSignature } = this.#request
      verifySignature(last, issuer.publicKey)
    } catch (error) {
      if (!(error instanceof AssayError)) throw error
      this.#refusal ??= error
      return undefined
    }
    try {
      this.#checkAlone(issuer)
      checkIssuer(issuer, path)
      return [...path, issuer]
    } catch (error) {
      if (!(error instanceof AssayError)) throw error
      this.#refusal = error
      return undefined
    }
  }

  /** What holds for a certificate wherever it stands. */
  #checkAlone(certificate: Certificate): void {
    const { nowSeconds, purpose, roots } = this.#request
    if (nowSeconds < certificate.notBeforeSeconds) {
      throw refuse(
        'certificate-not-yet-valid',
        certificate,
        `it begins at ${instantText(certificate.notBeforeSeconds)} and it is ${instantText(nowSeconds)}; compare the clocks`,
      )
    }
    // notAfter names a whole second that still counts (RFC 5280 §4.1.2.5).
    if (nowSeconds >= certificate.notAfterSeconds + 1) {
      throw refuse(
        'certificate-expired',
        certificate,
        `it ended at ${instantText(certificate.notAfterSeconds)} and it is ${instantText(nowSeconds)}`,
      )
    }
    const unknown = certificate.extensions.find(
      (extension) => extension.critical && !understoodExtensions.has(extension.oid),
    )
    if (unknown !== undefined) {
      throw refuse(
        'unknown-critical-extension',
        certificate,
        `its extension ${unknown.oid} is critical and not understood`,
      )
    }
    checkKey(certificate)
    const usages = certificate.extendedKeyUsage
    const allowsPurpose =
      purpose === undefined ||
      usages === undefined ||
      usages.includes(purpose) ||
      usages.includes(extendedKeyUsage.any) ||
      roots.includes(certificate)
    if (!allowsPurpose) {
      throw refuse(
        'purpose-not-allowed',
        certificate,
        `its extended key usage does not include ${purpose}`,
      )
    }
  }
}

/** Name and key identifier of a possible issuer: cheap, and no proof. */
function mayHaveIssued(issuer: Certificate, certificate: Certificate): boolean {
  if (!equalBytes(issuer.subject, certificate.issuer)) return false
  const wanted = certificate.authorityKeyId
  return (
    wanted === undefined ||
    issuer.subjectKeyId === undefined ||
    equalBytes(wanted, issuer.subjectKeyId)
  )
}

function isSameSubjectAndKey(a: Certificate, b: Certificate): boolean {
  return a === b || (equalBytes(a.subject, b.subject) && equalBytes(a.publicKey, b.publicKey))
}

/** Whether `issuer` may stand above `path`, whose last certificate it has signed. */
function checkIssuer(issuer: Certificate, path: readonly Certificate[]): void {
  const { basicConstraints, keyUsage } = issuer
  if (basicConstraints?.isCa !== true) {
    throw refuse('issuer-not-a-ca', issuer, 'it issued a certificate without being a CA')
  }
  if (keyUsage !== undefined && (keyUsage & keyUsageBit.keyCertSign) === 0) {
    throw refuse(
      'issuer-not-a-ca',
      issuer,
      'it issued a certificate and its key usage lacks keyCertSign',
    )
  }
  const { pathLength } = basicConstraints
  if (pathLength !== undefined) {
    // Certificates that a CA issues to itself when it changes keys do not count (RFC 5280 §4.2.1.9).
    const between = path.slice(1).filter((c) => !equalBytes(c.subject, c.issuer)).length
    if (between > pathLength) {
      throw refuse(
        'path-length-exceeded',
        issuer,
        `${between} intermediate certificates follow and it allows ${pathLength}`,
      )
    }
  }
  checkNameConstraints(issuer, path)
}

function checkKey(certificate: Certificate): void {
  try {
    const key = describePublicKey(certificate.publicKey)
    // Other key types are judged where they are used: as issuers by their signatures, as leaves by callers.
    if (key.type === 'rsa') checkKeyStrength(key)
  } catch (cause) {
    if (!(cause instanceof RangeError || cause instanceof SyntaxError)) throw cause
    throw refuse('key-not-allowed', certificate, cause.message, cause)
  }
}

const constraintsByCertificate = new WeakMap<Certificate, NameConstraints | 'malformed'>()

function constraintsOf(issuer: Certificate): NameConstraints | undefined {
  const extension = issuer.extensions.find(({ oid }) => oid === extensionOid.nameConstraints)
  if (extension === undefined) return undefined
  let constraints = constraintsByCertificate.get(issuer)
  if (constraints === undefined) {
    try {
      constraints = parseNameConstraints(extension.value)
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      constraints = 'malformed'
    }
    constraintsByCertificate.set(issuer, constraints)
  }
  if (constraints === 'malformed') {
    throw refuse('name-constraint-violated', issuer, 'its name constraints are not well-formed')
  }
  return constraints
}

function checkNameConstraints(issuer: Certificate, path: readonly Certificate[]): void {
  const constraints = constraintsOf(issuer)
  if (constraints === undefined) return
  for (const [index, below] of path.entries()) {
    const isSelfIssued = equalBytes(below.subject, below.issuer)
    if (index > 0 && isSelfIssued) continue
    const why = violation(constraints, below)
    if (why !== undefined) {
      throw refuse(
        'name-constraint-violated',
        below,
        `${why}, by the name constraints of ${describe(issuer)}`,
      )
    }
  }
}

const emptyName = Uint8Array.of(0x30, 0)

function violation(constraints: NameConstraints, certificate: Certificate): string | undefined {
  for (const uri of certificate.uris) {
    const host = uriHost(uri)
    if (host === undefined || !constraints.allowsUriHost(host)) {
      return `URI ${JSON.stringify(uri.slice(0, 256))} is not allowed`
    }
  }
  for (const name of certificate.dnsNames) {
    if (!constraints.allowsDnsName(name)) return `DNS name ${JSON.stringify(name)} is not allowed`
  }
  // Constraints on other kinds of names are not evaluated: a name of such a kind fails closed.
  const tags = [...certificate.alternativeNameTags]
  if (!equalBytes(certificate.subject, emptyName)) tags.push(0xa4)
  const unjudged = tags.find((tag) => constraints.otherKinds.has(tag))
  return unjudged === undefined
    ? undefined
    : `names of kind [${unjudged & 0x1f}] are constrained, which is not supported, so one is not allowed`
}

function refuse(
  reason: ChainRefusal,
  certificate: Certificate,
  why: string,
  cause?: unknown,
): AssayError {
  const message = `cannot accept certificate ${describe(certificate)}: ${why}`
  return new AssayError('unauthenticated', message, { reason, cause })
}

const instantText = (seconds: number): string =>
  Temporal.Instant.fromEpochMilliseconds(Math.trunc(seconds * 1000)).toString()
