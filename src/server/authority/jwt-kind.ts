import { hash } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { type MlDsaParameterSet, parseMlDsaPublicKey } from '#pq-crypto/ml-dsa.ts'
import type { JwtAuthority } from '#spiffe/bundle.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'
import type { AuthorityKind, PublishedAuthority } from './authority-kind.ts'
import { publicKeyInfo } from './public-key-info.ts'

/** JWT authorities: a public key each, named by its `kid`. */
export function newJwtKind(options: {
  readonly keyType: KeyType
  readonly ttlSeconds: number
  /** Of the post-quantum keys that are made beside new ones; undefined: none are. */
  readonly pqParameterSet: MlDsaParameterSet | undefined
}): AuthorityKind {
  const { keyType, ttlSeconds, pqParameterSet } = options
  return {
    name: 'jwt',
    title: 'JWT authority',
    keyPrefix: 'jwt',
    keyType,
    async issue(key, nowSeconds) {
      const content = publicKeyInfo(key)
      return {
        authorityId: jwtKeyId(content),
        content,
        issuedAtSeconds: nowSeconds,
        expiresAtSeconds: nowSeconds + ttlSeconds,
        ...(key.alternative !== undefined && { pq: key.alternative.publicKey }),
      }
    },
    fits: (issued, key) =>
      equalBytes(issued.content, publicKeyInfo(key)) &&
      (issued.pq === undefined ||
        (key.alternative !== undefined && equalBytes(issued.pq, key.alternative.publicKey))),
    isOutdated: ({ pq }) =>
      (pq === undefined ? undefined : parseMlDsaPublicKey(pq).parameterSet) !== pqParameterSet,
    wouldOutlast: () => true,
    publishedId: ({ authorityId }) => authorityId,
    published: (bundle) => bundle.jwtAuthorities.map(published),
    withAuthority(bundle, issued) {
      if (bundle.jwtAuthorities.some(({ keyId }) => keyId === issued.authorityId)) return bundle
      const authority = {
        keyId: issued.authorityId,
        publicKey: issued.content,
        expiresAtSeconds: issued.expiresAtSeconds,
        tainted: false,
        ...(issued.pq !== undefined && {
          pq: { keyId: jwtKeyId(issued.pq), publicKey: issued.pq },
        }),
      }
      return { ...bundle, jwtAuthorities: [...bundle.jwtAuthorities, authority] }
    },
    withTaint: (bundle, authorityId) => ({
      ...bundle,
      jwtAuthorities: bundle.jwtAuthorities.map((authority) =>
        authority.keyId === authorityId ? { ...authority, tainted: true } : authority,
      ),
    }),
    without: (bundle, isGone) => ({
      ...bundle,
      jwtAuthorities: bundle.jwtAuthorities.filter((authority) => !isGone(published(authority))),
    }),
  }
}

const keyIdAlphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const keyIdCharacters = 32

/**
 * The `kid` of a key: 32 alphanumerics, as spire-server's are, but made from SHA-256 of its
 * SubjectPublicKeyInfo instead of at random, so that publishing a key twice comes to the same.
 */
export function jwtKeyId(publicKey: Uint8Array): string {
  let rest = BigInt(`0x${hash('sha256', publicKey, 'hex')}`)
  let keyId = ''
  while (keyId.length < keyIdCharacters) {
    keyId += keyIdAlphabet[Number(rest % 62n)]
    rest /= 62n
  }
  return keyId
}

const published = ({ keyId, expiresAtSeconds, tainted }: JwtAuthority): PublishedAuthority => ({
  authorityId: keyId,
  expiresAtSeconds,
  tainted,
})
