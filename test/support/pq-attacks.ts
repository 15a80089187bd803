import { sign } from 'node:crypto'
import {
  children,
  contextConstructed,
  type DerElement,
  readElement,
  readNested,
  sequence,
} from '../../src/pki/der.ts'
import {
  altAlgorithmExtension,
  alternativeMessage,
  alternativeOid,
  altPublicKeyExtension,
  withAltSignature,
} from '../../src/pq-crypto/alternative-signature.ts'
import { extension, type Issued, newAuthority, newIntermediate, newSvid } from './certificates.ts'
import {
  hybrid,
  newHybridAuthority,
  newHybridIntermediate,
  newHybridSvid,
  pqKey,
} from './hybrid-certificates.ts'

// What somebody can do who forges classical signatures, as a quantum computer will: every chain here is signed by the
// authority's own classical key, and none has the post-quantum signatures it should have.

/** A chain that a verifier of post-quantum signatures refuses under `require`. */
export interface PqAttack {
  /** Leaf first; the authority of the bundle is not among them. */
  readonly chain: readonly Uint8Array[]
  readonly anchor: Uint8Array
  /** What the verifier makes of it. */
  readonly pq: 'absent' | 'invalid'
  /** Words of the reason. */
  readonly why: RegExp
  /** Whether a verifier that knows nothing of these extensions accepts it, as it accepts what is not attacked. */
  readonly classicallyValid: boolean
}

export const attackedId = 'spiffe://example.org/web'

const trustDomain = 'example.org'
const { subjectAltPublicKeyInfo, altSignatureAlgorithm, altSignatureValue } = alternativeOid

/** The TBSCertificate with its list of extensions changed. */
function changed(tbs: Uint8Array, change: (list: Uint8Array[]) => Uint8Array[]): Uint8Array {
  return sequence(
    ...children(readElement(tbs)).map((field: DerElement) =>
      field.tag === 0xa3
        ? contextConstructed(3, sequence(...change(children(readNested(field)).map((e) => e.raw))))
        : field.raw,
    ),
  )
}

const extensionsOf = (certificate: Uint8Array, id: string): Uint8Array => {
  const [tbs] = children(readElement(certificate))
  const list = children(readNested(children(tbs as DerElement).at(-1) as DerElement))
  const found = list.find(({ raw }) => raw.toHex().startsWith(extensionStart(raw, id)))
  if (found === undefined) throw new Error(`no extension ${id}`)
  return found.raw
}

/** Hex of an extension up to the end of its identifier. */
function extensionStart(raw: Uint8Array, id: string): string {
  const identifier = extension(id, false, new Uint8Array()).subarray(2, 7).toHex()
  const at = raw.toHex().indexOf(identifier)
  return at < 0 ? 'none' : raw.toHex().slice(0, at + identifier.length)
}

const without = (tbs: Uint8Array, id: string): Uint8Array =>
  changed(tbs, (list) => list.filter((raw) => !raw.toHex().startsWith(extensionStart(raw, id))))

/** A leaf whose right TBSCertificate, with both extensions, is changed before the classical signature. */
function forgedLeaf(
  change: (tbs: Uint8Array) => Uint8Array,
  authority = newHybridAuthority(trustDomain),
): { readonly chain: readonly Uint8Array[]; readonly anchor: Uint8Array } {
  const { extensions = [], finish } = hybrid(authority.pq)
  const leaf = newSvid(authority, attackedId, {
    extensions,
    finish: (tbs) => change(finish?.(tbs) ?? tbs),
  })
  return { chain: [leaf.certificate], anchor: authority.certificate }
}

const chainOf = (leaf: Issued, ...rest: readonly Issued[]): readonly Uint8Array[] =>
  [leaf, ...rest].map(({ certificate }) => certificate)

/** Every attack by name (see the documentation, `post-quantum.md`). Each call makes new keys and certificates. */
export const pqAttacks: Readonly<Record<string, () => PqAttack>> = {
  'both extensions are left out': () => ({
    ...forgedLeaf((tbs) => without(without(tbs, altSignatureValue), altSignatureAlgorithm)),
    pq: 'absent',
    why: /it has no post-quantum signature/,
    classicallyValid: true,
  }),
  'the signature is left out': () => ({
    ...forgedLeaf((tbs) => without(tbs, altSignatureValue)),
    pq: 'invalid',
    why: /the algorithm of an alternative signature without the value/,
    classicallyValid: true,
  }),
  'the algorithm is left out': () => ({
    ...forgedLeaf((tbs) => without(tbs, altSignatureAlgorithm)),
    pq: 'invalid',
    why: /the value of an alternative signature without the algorithm/,
    classicallyValid: true,
  }),
  'the signature is that of another certificate of the same authority': () => {
    const authority = newHybridAuthority(trustDomain)
    const other = newHybridSvid(authority, 'spiffe://example.org/other')
    const stolen = extensionsOf(other.certificate, altSignatureValue)
    return {
      ...forgedLeaf(
        (tbs) => changed(without(tbs, altSignatureValue), (list) => [...list, stolen]),
        authority,
      ),
      pq: 'invalid',
      why: /not by its issuer's key/,
      classicallyValid: true,
    }
  },
  'the classical key of the certificate is another than the one that was signed': () => {
    const authority = newHybridAuthority(trustDomain)
    const honest = newHybridSvid(authority, attackedId)
    const stolen = extensionsOf(honest.certificate, altSignatureValue)
    return {
      ...forgedLeaf(
        (tbs) => changed(without(tbs, altSignatureValue), (list) => [...list, stolen]),
        authority,
      ),
      pq: 'invalid',
      why: /not by its issuer's key/,
      classicallyValid: true,
    }
  },
  'another parameter set than that of the authority': () => {
    const authority = newHybridAuthority(trustDomain, 'ml-dsa-65')
    const leaf = newSvid(authority, attackedId, hybrid(pqKey('ml-dsa-44', 77)))
    return {
      chain: chainOf(leaf),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /is by ml-dsa-44, and its issuer's key is for ml-dsa-65/,
      classicallyValid: true,
    }
  },
  'the algorithm names another parameter set than the signature has': () => {
    const authority = newHybridAuthority(trustDomain)
    const leaf = newSvid(authority, attackedId, {
      ...hybrid(authority.pq),
      extensions: [altAlgorithmExtension('ml-dsa-87')],
    })
    return {
      chain: chainOf(leaf),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /is by ml-dsa-87, and its issuer's key is for ml-dsa-44/,
      classicallyValid: true,
    }
  },
  'a key that the certificate itself brings': () => {
    const authority = newHybridAuthority(trustDomain)
    const own = pqKey('ml-dsa-44', 78)
    const leaf = newSvid(authority, attackedId, hybrid(own, own))
    return {
      chain: chainOf(leaf),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /not by its issuer's key/,
      classicallyValid: true,
    }
  },
  'a key that the certificate itself brings, where the authority has none': () => {
    const authority = newAuthority(trustDomain)
    const own = pqKey('ml-dsa-44', 79)
    const leaf = newSvid(authority, attackedId, hybrid(own, own))
    return {
      chain: chainOf(leaf),
      anchor: authority.certificate,
      pq: 'absent',
      why: /this authority has no post-quantum key/,
      classicallyValid: true,
    }
  },
  'an intermediate that is not signed brings the key of the leaf': () => {
    const authority = newHybridAuthority(trustDomain)
    const own = pqKey('ml-dsa-44', 80)
    const middle = newIntermediate(authority, trustDomain, {
      extensions: [altPublicKeyExtension(own.publicKey)],
    })
    const leaf = newSvid(middle, attackedId, hybrid(own))
    return {
      chain: chainOf(leaf, middle),
      anchor: authority.certificate,
      pq: 'absent',
      why: /it has no post-quantum signature/,
      classicallyValid: true,
    }
  },
  'an intermediate that signed itself brings the key of the leaf': () => {
    const authority = newHybridAuthority(trustDomain)
    const own = pqKey('ml-dsa-44', 81)
    const middle = newIntermediate(authority, trustDomain, hybrid(own, own))
    const leaf = newSvid(middle, attackedId, hybrid(own))
    return {
      chain: chainOf(leaf, middle),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /not by its issuer's key/,
      classicallyValid: true,
    }
  },
  'a leaf without, below an intermediate that is right': () => {
    const authority = newHybridAuthority(trustDomain)
    const middle = newHybridIntermediate(authority, trustDomain)
    const leaf = newSvid(middle, attackedId)
    return {
      chain: chainOf(leaf, middle),
      anchor: authority.certificate,
      pq: 'absent',
      why: /it has no post-quantum signature/,
      classicallyValid: true,
    }
  },
  'a leaf signed by the anchor instead of the intermediate': () => {
    const authority = newHybridAuthority(trustDomain)
    const middle = newHybridIntermediate(authority, trustDomain)
    const leaf = newSvid(middle, attackedId, hybrid(authority.pq))
    return {
      chain: chainOf(leaf, middle),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /not by its issuer's key/,
      classicallyValid: true,
    }
  },
  'a chain that is classical altogether': () => {
    const authority = newAuthority(trustDomain)
    return {
      chain: chainOf(newSvid(authority, attackedId)),
      anchor: authority.certificate,
      pq: 'absent',
      why: /this authority has no post-quantum key/,
      classicallyValid: true,
    }
  },
  'an authority with the key of another kind': () => {
    const key = newAuthority(trustDomain).key.publicKey
    const authority = newAuthority(trustDomain, { extensions: [altPublicKeyExtension(key)] })
    return {
      chain: chainOf(newSvid(authority, attackedId)),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /its alternative key cannot be read: algorithm 1\.2\.840\.10045\.2\.1 is not ML-DSA/,
      classicallyValid: true,
    }
  },
  'one bit of the signature is another': () => ({
    ...forgedLeaf((tbs) => {
      const flipped = Uint8Array.from(tbs)
      const at = flipped.length - 100
      flipped[at] = (flipped[at] ?? 0) ^ 1
      return flipped
    }),
    pq: 'invalid',
    why: /not by its issuer's key/,
    classicallyValid: true,
  }),
  'an extension is critical': () => {
    const authority = newHybridAuthority(trustDomain)
    const { finish } = hybrid(authority.pq)
    const value = altAlgorithmExtension('ml-dsa-44').subarray(9)
    const leaf = newSvid(authority, attackedId, {
      extensions: [extension(altSignatureAlgorithm, true, value)],
      ...(finish && { finish }),
    })
    return {
      chain: chainOf(leaf),
      anchor: authority.certificate,
      pq: 'invalid',
      why: /its extension 2\.5\.29\.73 is critical/,
      classicallyValid: false,
    }
  },
}

/** A leaf that has an extension twice: no parser of certificates may take it. */
export function doubledExtension(id: 'key' | 'algorithm' | 'value'): PqAttack {
  const authority = newHybridAuthority(trustDomain)
  const { extensions = [] } = hybrid(authority.pq, authority.pq)
  const oid = {
    key: subjectAltPublicKeyInfo,
    algorithm: altSignatureAlgorithm,
    value: altSignatureValue,
  }[id]
  const leaf = newSvid(authority, attackedId, {
    extensions,
    finish(tbs) {
      const signature = sign(null, alternativeMessage(tbs), authority.pq.privateKey)
      return changed(withAltSignature(tbs, signature), (list) => [
        ...list,
        ...list.filter((raw) => raw.toHex().startsWith(extensionStart(raw, oid))),
      ])
    },
  })
  return {
    chain: [leaf.certificate],
    anchor: authority.certificate,
    pq: 'invalid',
    why: /is there twice/,
    classicallyValid: false,
  }
}
