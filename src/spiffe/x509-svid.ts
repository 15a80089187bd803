import { AssayError } from '#base/errors.ts'
import { type Certificate, describe, keyUsageBit, parseCertificate } from '#pki/certificate.ts'
import { type ChainRequest, verifyChain } from '#pki/chain.ts'
import type { Bundle } from './bundle.ts'
import { parseSpiffeId, pathOf, type SpiffeId, trustDomainOf } from './spiffe-id.ts'
import type { TrustDomain } from './trust-domain.ts'

/** What a peer presented, and whom to trust. */
export interface X509SvidPresentation {
  /** DER, leaf first; the rest in any order. */
  readonly certificates: readonly Uint8Array[]
  /** The bundle of a trust domain; undefined when it is not trusted. */
  readonly bundles: (trustDomain: TrustDomain) => Bundle | undefined
  /** Unix time. */
  readonly nowSeconds: number
  /** As in `verifyChain()`. */
  readonly verifySignature?: ChainRequest['verifySignature']
}

/** A peer that has proved its identity, as far as certificates can: the handshake proves the key. */
export interface VerifiedX509Svid {
  readonly spiffeId: SpiffeId
  readonly leaf: Certificate
  /** The leaf first, the authority of the bundle last. */
  readonly path: readonly Certificate[]
}

/** Most certificates a peer may present. */
const maxPresented = 16

/**
 * Validates an X.509-SVID (X509-SVID §5). It checks, in this order, that
 * the leaf has exactly one URI, a SPIFFE ID with a path;
 * the leaf is no CA and may sign neither certificates nor revocation lists;
 * the bundle of the ID's own trust domain is known;
 * the chain leads to an authority of that bundle and is valid by RFC 5280 ({@link verifyChain}).
 *
 * @throws AssayError `unauthenticated`; its reason is one of `certificate-malformed`, `svid-without-id`,
 * `svid-with-several-uris`, `svid-id-invalid`, `svid-id-without-path`, `svid-is-signing-certificate`,
 * `trust-domain-unknown`, `trust-domain-without-x509`, or a reason of `verifyChain()`.
 */
export function verifyX509Svid(presentation: X509SvidPresentation): VerifiedX509Svid {
  const { certificates, bundles, nowSeconds } = presentation
  if (certificates.length > maxPresented) {
    throw refuse('chain-too-long', `it has ${certificates.length} certificates`)
  }
  const [leaf, ...intermediates] = certificates.map(parsePresented)
  if (leaf === undefined) throw refuse('certificate-malformed', 'there is no certificate')

  const spiffeId = spiffeIdOf(leaf)
  if (pathOf(spiffeId) === '') {
    throw refuse('svid-id-without-path', `its ID ${spiffeId} names a trust domain, not a workload`)
  }
  refuseSigningCertificate(leaf)
  const roots = trustedRoots(trustDomainOf(spiffeId), bundles)
  const { verifySignature } = presentation
  const path = verifyChain({
    leaf,
    intermediates,
    roots,
    nowSeconds,
    ...(verifySignature !== undefined && { verifySignature }),
  })
  return { spiffeId, leaf, path }
}

/**
 * The SPIFFE ID of a certificate, leaf or CA: its one URI (X509-SVID §2).
 *
 * @throws AssayError `unauthenticated` when there is no URI, more than one, or it is no SPIFFE ID.
 */
export function spiffeIdOf(certificate: Certificate): SpiffeId {
  const [uri, ...more] = certificate.uris
  if (uri === undefined) {
    throw refuse('svid-without-id', `certificate ${describe(certificate)} has no URI`)
  }
  if (more.length > 0) {
    const why = `certificate ${describe(certificate)} has ${certificate.uris.length} URIs, not one`
    throw refuse('svid-with-several-uris', why)
  }
  try {
    return parseSpiffeId(uri)
  } catch (cause) {
    const why = `the URI of certificate ${describe(certificate)} is no SPIFFE ID`
    throw refuse('svid-id-invalid', why, cause)
  }
}

function refuseSigningCertificate(leaf: Certificate): void {
  const signing = keyUsageBit.keyCertSign | keyUsageBit.cRLSign
  const what =
    leaf.basicConstraints?.isCa === true
      ? 'is a CA'
      : ((leaf.keyUsage ?? 0) & signing) !== 0
        ? 'may sign certificates or revocation lists'
        : undefined
  if (what !== undefined) {
    throw refuse(
      'svid-is-signing-certificate',
      `certificate ${describe(leaf)} ${what}, so it authenticates nobody`,
    )
  }
}

function trustedRoots(
  trustDomain: TrustDomain,
  bundles: X509SvidPresentation['bundles'],
): readonly Certificate[] {
  const bundle = bundles(trustDomain)
  if (bundle === undefined || bundle.trustDomain !== trustDomain) {
    throw refuse(
      'trust-domain-unknown',
      `there is no bundle of trust domain ${trustDomain}; federate with it first`,
    )
  }
  const roots = rootsOf(bundle)
  if (roots.length === 0) {
    throw refuse(
      'trust-domain-without-x509',
      `the bundle of trust domain ${trustDomain} has no X.509 authority`,
    )
  }
  return roots
}

const rootsByBundle = new WeakMap<Bundle, readonly Certificate[]>()
const parsedAuthorities = new WeakMap<Uint8Array, Certificate | 'malformed'>()

/** The X.509 authorities of a bundle, parsed once for each bundle object and each array of bytes. */
function rootsOf(bundle: Bundle): readonly Certificate[] {
  let roots = rootsByBundle.get(bundle)
  if (roots === undefined) {
    roots = bundle.x509Authorities
      .map((authority) => parseAuthority(authority.certificate))
      // One that cannot be read vouches for nobody, and must not take the others with it.
      .filter((root) => root !== 'malformed')
    rootsByBundle.set(bundle, roots)
  }
  return roots
}

function parseAuthority(der: Uint8Array): Certificate | 'malformed' {
  let parsed = parsedAuthorities.get(der)
  if (parsed === undefined) {
    try {
      parsed = parseCertificate(der)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      parsed = 'malformed'
    }
    parsedAuthorities.set(der, parsed)
  }
  return parsed
}

function parsePresented(der: Uint8Array, index: number): Certificate {
  try {
    return parseCertificate(der)
  } catch (cause) {
    throw refuse('certificate-malformed', `certificate ${index + 1} is not well-formed`, cause)
  }
}

function refuse(reason: string, why: string, cause?: unknown): AssayError {
  return new AssayError('unauthenticated', `cannot accept the X.509-SVID: ${why}`, {
    reason,
    cause,
  })
}
