import { type JsonObject, stringifyJson } from '#pki/json.ts'
import { akpJwk, akpToPublicKey } from '#pq-crypto/ml-dsa-jose.ts'
import type { Bundle, JwtAuthority } from './bundle.ts'
import {
  bundleObject,
  type KeyReaders,
  type ParseBundleOptions,
  parseBundleOf,
} from './bundle-json.ts'
import type { TrustDomain } from './trust-domain.ts'

// The post-quantum bundle: what verifies SVIDs whose one key and one signature are ML-DSA. It has the form of a SPIFFE
// bundle (SPIFFE Trust Domain and Bundle §4), its keys are of type AKP (RFC 9964), and it is a document of its own,
// because clients that know no such keys refuse a whole bundle that has one.

const derived = new WeakMap<Bundle, Bundle>()

/**
 * The post-quantum authorities of a bundle, as a bundle of its own: without authorities when there are none. It is
 * another one exactly when the bundle is.
 */
export function pqBundle(bundle: Bundle): Bundle {
  const known = derived.get(bundle)
  if (known !== undefined) return known
  const made: Bundle = {
    ...bundle,
    x509Authorities: bundle.x509Authorities.flatMap(({ pq, tainted }) =>
      pq === undefined ? [] : [{ certificate: pq, tainted }],
    ),
    jwtAuthorities: bundle.jwtAuthorities.flatMap(({ pq, expiresAtSeconds, tainted }) =>
      pq === undefined ? [] : [{ ...pq, expiresAtSeconds, tainted }],
    ),
  }
  derived.set(bundle, made)
  return made
}

const readers: KeyReaders = {
  keyTypes: ['AKP'],
  publicKey: akpToPublicKey,
  jwk: (spki) => ({ ...akpJwk(spki) }),
}

/** The document of a {@link pqBundle}. */
export const encodePqBundle = (bundle: Bundle): string =>
  stringifyJson(bundleObject(bundle, { withRefreshHint: true, jwk: readers.jwk }), 4)

/** The JWT authorities of a {@link pqBundle} as a plain JWK Set. */
export const encodePqJwks = (authorities: readonly JwtAuthority[]): string =>
  stringifyJson(
    {
      keys: authorities.map(
        ({ keyId, publicKey }): JsonObject => ({ kid: keyId, ...akpJwk(publicKey) }),
      ),
    },
    4,
  )

/**
 * Reads a document of {@link encodePqBundle}: as `parseBundle()` does, and keys that are not ML-DSA are passed over.
 *
 * @throws SyntaxError as `parseBundle()`.
 */
export const parsePqBundle = (
  document: string | Uint8Array,
  trustDomain: TrustDomain,
  options?: ParseBundleOptions,
): Bundle => parseBundleOf(document, trustDomain, { ...options, readers })
