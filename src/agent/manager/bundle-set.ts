import { equalBytes } from '#base/bytes.ts'
import { parseCertificate, subjectKeyId } from '#pki/certificate.ts'
import { verifyChain } from '#pki/chain.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AuthorityTrust } from './x509-svid.ts'

/** The own bundle and those that the agent's entries federate with. */
export class BundleSet {
  #own: Bundle | undefined
  #trust: ReadonlyMap<string, AuthorityTrust> = new Map()
  #keyTrust: ReadonlyMap<string, AuthorityTrust> = new Map()
  /** Ids of post-quantum authorities, and those of the classical ones they are beside. */
  #classicalIds: ReadonlyMap<string, string> = new Map()
  readonly #federated = new Map<TrustDomain, Bundle>()

  get own(): Bundle | undefined {
    return this.#own
  }

  get federated(): ReadonlyMap<TrustDomain, Bundle> {
    return this.#federated
  }

  /** @returns whether its content differs from what was held. */
  setOwn(bundle: Bundle): boolean {
    if (this.#own !== undefined && isSameBundle(this.#own, bundle)) return false
    this.#own = bundle
    this.#trust = x509Trust(bundle)
    this.#classicalIds = new Map(
      bundle.x509Authorities.flatMap(({ certificate, pq }) =>
        pq === undefined ? [] : [[authorityIdOf(pq), authorityIdOf(certificate)]],
      ),
    )
    this.#keyTrust = new Map(
      bundle.jwtAuthorities.flatMap(({ keyId, tainted, pq }) =>
        [keyId, ...(pq === undefined ? [] : [pq.keyId])].map((id) => [id, trustWord(tainted)]),
      ),
    )
    return true
  }

  /** @returns whether its content differs from what was held. */
  setFederated(bundle: Bundle): boolean {
    const held = this.#federated.get(bundle.trustDomain)
    if (held !== undefined && isSameBundle(held, bundle)) return false
    this.#federated.set(bundle.trustDomain, bundle)
    return true
  }

  /** @returns whether it was held. */
  deleteFederated(trustDomain: TrustDomain): boolean {
    return this.#federated.delete(trustDomain)
  }

  /** What the own bundle says of an authority, by the id that {@link issuerIdOf} gave. */
  trustOf(authorityId: string): AuthorityTrust {
    return this.#trust.get(authorityId) ?? 'unknown'
  }

  /** The authority that a post-quantum one is beside; any other itself. */
  classicalIdOf(authorityId: string): string {
    return this.#classicalIds.get(authorityId) ?? authorityId
  }

  /** What the own bundle says of a JWT authority, by its `kid`. */
  trustOfKey(keyId: string): AuthorityTrust {
    return this.#keyTrust.get(keyId) ?? 'unknown'
  }

  /**
   * The authority of the own bundle that `chain` (DER, leaf first) ends at. A chain that does not say is verified
   * to find it, at Unix time `nowSeconds`.
   *
   * @throws AssayError when it ends at none.
   */
  issuerIdOf(chain: readonly Uint8Array[], nowSeconds: number): string {
    const certificates = chain.map((der) => parseCertificate(der))
    const [leaf, ...intermediates] = certificates
    const named = certificates.at(-1)?.authorityKeyId
    if (named !== undefined) return named.toHex()
    if (leaf === undefined) throw new SyntaxError('invalid X.509-SVID: it holds no certificate')
    const roots = (this.#own?.x509Authorities ?? []).map((a) => parseCertificate(a.certificate))
    const path = verifyChain({ leaf, intermediates, roots, nowSeconds })
    return authorityIdOf(path.at(-1)?.raw ?? leaf.raw)
  }

  clear(): void {
    this.#own = undefined
    this.#trust = new Map()
    this.#keyTrust = new Map()
    this.#classicalIds = new Map()
    this.#federated.clear()
  }
}

const trusts = new WeakMap<Bundle, ReadonlyMap<string, AuthorityTrust>>()

/** The X.509 authorities of a bundle, by the id that {@link BundleSet.issuerIdOf} gives. */
export function x509Trust(bundle: Bundle): ReadonlyMap<string, AuthorityTrust> {
  const known = trusts.get(bundle)
  if (known !== undefined) return known
  const trust = new Map(
    bundle.x509Authorities.flatMap(({ certificate, tainted, pq }) =>
      [certificate, ...(pq === undefined ? [] : [pq])].map((der) => [
        authorityIdOf(der),
        trustWord(tainted),
      ]),
    ),
  )
  trusts.set(bundle, trust)
  return trust
}

function trustWord(tainted: boolean): AuthorityTrust {
  return tainted ? 'tainted' : 'trusted'
}

/** Hex of the subject key identifier, as the server's local authority service names it. */
function authorityIdOf(certificate: Uint8Array): string {
  const { subjectKeyId: named, publicKey } = parseCertificate(certificate)
  return (named ?? subjectKeyId(publicKey)).toHex()
}

function isSameKey(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equalBytes(a, b)
}

function isSameBundle(a: Bundle, b: Bundle): boolean {
  return (
    a.sequenceNumber === b.sequenceNumber &&
    a.refreshHintSeconds === b.refreshHintSeconds &&
    a.x509Authorities.length === b.x509Authorities.length &&
    a.jwtAuthorities.length === b.jwtAuthorities.length &&
    a.x509Authorities.every((held, i) => {
      const other = b.x509Authorities[i]
      return (
        other !== undefined &&
        held.tainted === other.tainted &&
        equalBytes(held.certificate, other.certificate) &&
        isSameKey(held.pq, other.pq)
      )
    }) &&
    a.jwtAuthorities.every((held, i) => {
      const other = b.jwtAuthorities[i]
      return (
        other !== undefined &&
        held.tainted === other.tainted &&
        held.keyId === other.keyId &&
        equalBytes(held.publicKey, other.publicKey) &&
        isSameKey(held.pq?.publicKey, other.pq?.publicKey)
      )
    })
  )
}
