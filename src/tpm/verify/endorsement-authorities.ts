import { messageOf } from '#base/errors.ts'
import {
  type Certificate,
  describe,
  extensionOid,
  keyUsageBit,
  verifyCertificateSignature,
} from '#pki/certificate.ts'
import { type CertificateQuirk, isSameName, parseQuirkyCertificate } from './certificate-quirks.ts'
import { refusal } from './refusal.ts'

/** The certificates an operator has installed: makers' roots, and intermediates where a maker has many. */
export interface EndorsementAuthorities {
  readonly anchors: readonly Certificate[]
}

/** @throws SyntaxError that says which of the certificates, counted from 1, cannot be read. */
export function parseEndorsementAuthorities(
  certificates: readonly Uint8Array[],
): EndorsementAuthorities {
  return {
    anchors: certificates.map((der, at) => {
      try {
        return parseQuirkyCertificate(der, new Set())
      } catch (cause) {
        throw new SyntaxError(`cannot read endorsement authority ${at + 1}: ${messageOf(cause)}`, {
          cause,
        })
      }
    }),
  }
}

/** What a chain is checked against. */
export interface ChainPolicy {
  readonly authorities: EndorsementAuthorities
  /** Presented by the node: candidates for the path, believed in nothing. */
  readonly intermediates: readonly Certificate[]
  /** Unix time at which every certificate of the path must be valid; undefined: none need be. */
  readonly validAtSeconds: number | undefined
}

/** Most certificates between an endorsement certificate and its anchor. */
const maxIntermediates = 3
/** Most signatures that are checked for one chain, whatever the node sends. */
const maxSignatureChecks = 16

/** Critical extensions of a CA that are understood, or narrow nothing here. */
const knownExtensions: ReadonlySet<string> = new Set([
  extensionOid.keyUsage,
  extensionOid.basicConstraints,
  extensionOid.extendedKeyUsage,
  extensionOid.subjectAltName,
  extensionOid.certificatePolicies,
])

interface Search extends ChainPolicy {
  readonly seen: Set<CertificateQuirk>
  checksLeft: number
}

/**
 * Finds a path from `certificate` to an anchor (RFC 5280 §6, without policies and name constraints): each
 * issuer's name and signature, that it is a CA that may sign certificates with so many CAs below it, no critical
 * extension that is not understood, and the validity of each. Anchors are tried before intermediates.
 *
 * @throws AssayError with an {@link EvidenceRefusal}: why the most promising issuer was not one.
 */
export function verifyEndorsementChain(
  certificate: Certificate,
  policy: ChainPolicy,
  seen: Set<CertificateQuirk>,
): void {
  findIssuer(certificate, 0, { ...policy, seen, checksLeft: maxSignatureChecks })
}

function findIssuer(certificate: Certificate, casBelow: number, search: Search): void {
  let failure: unknown
  const attempt = (issuer: Certificate, isAnchor: boolean): boolean => {
    if (!isSameName(certificate.issuer, issuer.subject, search.seen)) return false
    try {
      verifyIssuer(certificate, issuer, { casBelow, search })
      if (!isAnchor) findIssuer(issuer, casBelow + 1, search)
      return true
    } catch (error) {
      failure ??= error
      return false
    }
  }
  const { authorities, intermediates } = search
  if (authorities.anchors.some((anchor) => attempt(anchor, true))) return
  if (casBelow < maxIntermediates && intermediates.some((issuer) => attempt(issuer, false))) return
  if (failure !== undefined) throw failure
  throw refusal(
    'endorsement-issuer-unknown',
    `cannot accept certificate ${describe(certificate)}: its issuer is not among the installed endorsement authorities`,
  )
}

function verifyIssuer(
  certificate: Certificate,
  issuer: Certificate,
  { casBelow, search }: { readonly casBelow: number; readonly search: Search },
): void {
  const { basicConstraints, keyUsage = 0, extensions } = issuer
  if (basicConstraints?.isCa !== true || (keyUsage & keyUsageBit.keyCertSign) === 0)
    throw refusal(
      'endorsement-issuer-not-ca',
      `cannot accept certificate ${describe(issuer)} as an issuer: it is not a CA that may sign certificates`,
    )
  if (casBelow > (basicConstraints?.pathLength ?? maxIntermediates))
    throw refusal(
      'endorsement-issuer-path-length',
      `cannot accept certificate ${describe(issuer)} as an issuer: it allows ${basicConstraints.pathLength} CAs below it, and there are ${casBelow}`,
    )
  const unknown = extensions.find(({ oid, critical }) => critical && !knownExtensions.has(oid))
  if (unknown !== undefined)
    throw refusal(
      'endorsement-issuer-critical-extension',
      `cannot accept certificate ${describe(issuer)} as an issuer: it has the critical extension ${unknown.oid}, which is not understood`,
    )
  const { validAtSeconds } = search
  if (
    validAtSeconds !== undefined &&
    (validAtSeconds < issuer.notBeforeSeconds || validAtSeconds > issuer.notAfterSeconds)
  )
    throw refusal(
      'endorsement-issuer-validity',
      `cannot accept certificate ${describe(issuer)} as an issuer: it is not valid now`,
    )
  search.checksLeft -= 1
  if (search.checksLeft < 0) throw new RangeError('too many candidates for an issuer')
  try {
    verifyCertificateSignature(certificate, issuer.publicKey)
  } catch (cause) {
    throw refusal(
      'endorsement-issuer-signature',
      `cannot accept certificate ${describe(certificate)}: it is not signed by ${describe(issuer)}`,
      { cause },
    )
  }
}
