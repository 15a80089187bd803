import { equalBytes, utf8Text } from '#base/bytes.ts'
import { parseCertificate } from '#pki/certificate.ts'
import {
  type Json,
  type JsonObject,
  jsonMember,
  jsonObject,
  parseJson,
  stringifyJson,
  stringMember,
} from '#pki/json.ts'
import { jwkToPublicKey, publicKeyToJwk } from '#pki/jwk.ts'
import type { Bundle, JwtAuthority, X509Authority } from './bundle.ts'
import { parseTrustDomain, type TrustDomain } from './trust-domain.ts'

// Bundles as JSON (SPIFFE Trust Domain and Bundle §4 and §5, X509-SVID §6, JWT-SVID §6).

const maxDocumentCharacters = 4 * 2 ** 20
const maxKeys = 1024
const maxTrustDomains = 4096
const maxUint64 = 2n ** 64n - 1n

export interface ParseBundleOptions {
  /** Told of each key that is passed over: where it stands in `keys`, from 0, and why. */
  readonly onIgnoredKey?: (index: number, why: string) => void
}

/** The bundle document that federation and bundle endpoints exchange, indented by four spaces. */
export function encodeBundle(bundle: Bundle): string {
  return stringifyJson(bundleObject(bundle, { withRefreshHint: true }), 4)
}

/**
 * Reads a bundle document of `trustDomain`. As the standard wants it, a key of unknown type or use, or one
 * that is not well-formed, is passed over and the others count; a bundle may so turn out empty, and then
 * vouches for nobody. Nothing in the document says whose it is: that is the caller's knowledge.
 *
 * @throws SyntaxError when it is not a JSON object with `keys`, repeats a member, or when the sequence number
 * or the refresh hint is not an integer.
 */
export function parseBundle(
  document: string | Uint8Array,
  trustDomain: TrustDomain,
  options?: ParseBundleOptions,
): Bundle {
  return parseBundleOf(document, trustDomain, options)
}

/** Which keys a bundle document has, and how they are written and read. */
export interface KeyReaders {
  /** `kty` of certified keys. */
  readonly keyTypes: readonly (string | undefined)[]
  /** The SubjectPublicKeyInfo of a JWK. @throws SyntaxError or RangeError when it is not one of these keys. */
  publicKey(jwk: JsonObject): Uint8Array
  /** The JWK of a SubjectPublicKeyInfo. @throws SyntaxError or RangeError when it is not one of these keys. */
  jwk(spki: Uint8Array): JsonObject
}

const classicalKeys: KeyReaders = {
  keyTypes: ['EC', 'RSA', 'OKP'],
  publicKey: jwkToPublicKey,
  jwk: (spki) => ({ ...publicKeyToJwk(spki) }),
}

/** {@link parseBundle} of a document with other keys. */
export function parseBundleOf(
  document: string | Uint8Array,
  trustDomain: TrustDomain,
  options?: ParseBundleOptions & { readonly readers?: KeyReaders },
): Bundle {
  return readBundle(parseDocument(document), trustDomain, options)
}

/** Bundles of several trust domains in one document (§5.1); refresh hints are left out, as they belong to the whole. */
export function encodeBundleMap(bundles: Iterable<Bundle>): string {
  const trustDomains: Record<string, Json> = Object.create(null)
  for (const bundle of bundles) {
    if (bundle.trustDomain in trustDomains) {
      throw new RangeError(`cannot write a bundle map with ${bundle.trustDomain} in it twice`)
    }
    trustDomains[bundle.trustDomain] = bundleObject(bundle, { withRefreshHint: false })
  }
  return stringifyJson({ trust_domains: trustDomains }, 4)
}

/**
 * Reads a bundle map as a whole: one bundle that cannot be read, or a trust domain that is there twice,
 * makes all of it invalid. Refresh hints inside are dropped.
 *
 * @throws SyntaxError
 */
export function parseBundleMap(document: string | Uint8Array): ReadonlyMap<TrustDomain, Bundle> {
  const root = parseDocument(document)
  const entries = Object.entries(
    jsonObject(jsonMember(root, 'trust_domains'), 'invalid bundle map: "trust_domains"'),
  )
  if (entries.length > maxTrustDomains) {
    throw new SyntaxError(`invalid bundle map: more than ${maxTrustDomains} trust domains`)
  }
  return new Map(
    entries.map(([name, value]) => {
      const trustDomain = parseTrustDomain(name)
      const bundle = readBundle(jsonObject(value, `bundle of ${name}`), trustDomain)
      return [trustDomain, { ...bundle, refreshHintSeconds: 0 }]
    }),
  )
}

/** The JWT authorities as a plain JWK Set, the form of the Workload API: `kid` and the key, nothing else. */
export function encodeJwks(authorities: readonly JwtAuthority[]): string {
  const keys = authorities.map((authority) => ({
    kid: authority.keyId,
    ...publicKeyToJwk(authority.publicKey),
  }))
  return stringifyJson({ keys }, 4)
}

/**
 * Reads the JWT authorities of a plain JWK Set, in which `use` may be left out.
 *
 * @throws SyntaxError when it is not a JSON object with `keys`, or repeats a member.
 */
export function parseJwks(
  document: string | Uint8Array,
  options?: ParseBundleOptions,
): readonly JwtAuthority[] {
  return readKeys(parseDocument(document), { ...options, defaultUse: 'jwt-svid' }).jwtAuthorities
}

/** A bundle document. */
export function bundleObject(
  bundle: Bundle,
  options: { readonly withRefreshHint: boolean; readonly jwk?: KeyReaders['jwk'] },
): JsonObject {
  const { jwk = classicalKeys.jwk } = options
  const keys: JsonObject[] = [
    ...bundle.x509Authorities.map(({ certificate }) => ({
      use: 'x509-svid',
      ...jwk(parseCertificate(certificate).publicKey),
      x5c: [certificate.toBase64()],
    })),
    ...bundle.jwtAuthorities.map(({ keyId, publicKey }) => ({
      use: 'jwt-svid',
      kid: keyId,
      ...jwk(publicKey),
    })),
  ]
  const { sequenceNumber, refreshHintSeconds } = bundle
  const withHint = options.withRefreshHint && refreshHintSeconds > 0
  return {
    keys,
    spiffe_sequence: sequenceNumber,
    ...(withHint ? { spiffe_refresh_hint: refreshHintSeconds } : {}),
  }
}

function parseDocument(document: string | Uint8Array): JsonObject {
  try {
    const text = typeof document === 'string' ? document : utf8Text(document)
    return jsonObject(parseJson(text, { maxCharacters: maxDocumentCharacters }), 'it')
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause
    throw new SyntaxError(`invalid bundle: ${cause.message}`, { cause })
  }
}

function readBundle(root: JsonObject, trustDomain: TrustDomain, options?: ReadKeysOptions): Bundle {
  return {
    trustDomain,
    ...readKeys(root, options),
    refreshHintSeconds: Number(readInteger(root, 'spiffe_refresh_hint', BigInt(2 ** 31))),
    sequenceNumber: readInteger(root, 'spiffe_sequence', maxUint64),
  }
}

/** An integer member from 0 to `maximum`; zero when it is absent. */
function readInteger(root: JsonObject, name: string, maximum: bigint): bigint {
  const value = jsonMember(root, name) ?? 0
  const isInteger = typeof value === 'bigint' || Number.isInteger(value)
  const integer = isInteger ? BigInt(value as bigint | number) : -1n
  if (integer < 0n || integer > maximum) {
    throw new SyntaxError(
      `invalid bundle: ${JSON.stringify(name)} is not an integer from 0 to ${maximum}`,
    )
  }
  return integer
}

interface ReadKeysOptions extends ParseBundleOptions {
  /** What a key without `use` is for; without this, such a key is passed over. */
  readonly defaultUse?: string
  readonly readers?: KeyReaders
}

function readKeys(
  root: JsonObject,
  options?: ReadKeysOptions,
): Pick<Bundle, 'x509Authorities' | 'jwtAuthorities'> {
  const { readers = classicalKeys } = options ?? {}
  const keys = jsonMember(root, 'keys')
  if (!Array.isArray(keys)) throw new SyntaxError('invalid bundle: "keys" is not an array')
  if (keys.length > maxKeys) throw new SyntaxError(`invalid bundle: more than ${maxKeys} keys`)
  const x509Authorities: X509Authority[] = []
  const jwtAuthorities = new Map<string, JwtAuthority>()
  for (const [index, value] of keys.entries()) {
    try {
      const key = jsonObject(value, 'the key')
      const use = stringMember(key, 'use') ?? options?.defaultUse
      if (use === 'x509-svid') {
        x509Authorities.push(readX509Authority(key, readers))
      } else if (use === 'jwt-svid') {
        const authority = readJwtAuthority(key, readers)
        if (jwtAuthorities.has(authority.keyId)) throw new SyntaxError('its "kid" is there twice')
        jwtAuthorities.set(authority.keyId, authority)
      } else {
        throw new RangeError(`its use ${JSON.stringify(use)} is unknown`)
      }
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error
      options?.onIgnoredKey?.(index, error.message)
    }
  }
  return { x509Authorities, jwtAuthorities: [...jwtAuthorities.values()] }
}

function readX509Authority(key: JsonObject, readers: KeyReaders): X509Authority {
  const type = stringMember(key, 'kty')
  if (!readers.keyTypes.includes(type)) {
    throw new RangeError(`its key type ${JSON.stringify(type)} is unknown`)
  }
  const chain = jsonMember(key, 'x5c')
  const first: unknown = Array.isArray(chain) ? chain[0] : undefined
  if (typeof first !== 'string') throw new SyntaxError('its "x5c" holds no certificate')
  const certificate = Uint8Array.fromBase64(first)
  const { publicKey } = parseCertificate(certificate)
  // RFC 7517 §4.7: key and certificate must agree. A key given without its numbers is the certificate's.
  const stated = jsonMember(key, 'n') ?? jsonMember(key, 'x') ?? jsonMember(key, 'pub')
  if (stated !== undefined && type !== 'OKP' && !equalBytes(readers.publicKey(key), publicKey)) {
    throw new SyntaxError('its certificate is of another key')
  }
  return { certificate, tainted: false }
}

function readJwtAuthority(key: JsonObject, readers: KeyReaders): JwtAuthority {
  const keyId = stringMember(key, 'kid')
  if (keyId === undefined || keyId === '') throw new SyntaxError('it has no "kid"')
  return { keyId, publicKey: readers.publicKey(key), expiresAtSeconds: 0, tainted: false }
}
