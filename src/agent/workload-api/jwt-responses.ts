import { utf8Bytes } from '#base/bytes.ts'
import type { Json } from '#pki/json.ts'
import { Encoded } from '#rpc/call.ts'
import { JWTBundlesResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import type { Bundle, JwtAuthority } from '#spiffe/bundle.ts'
import type { ValidatedJwtSvid } from '#spiffe/jwt-svid.ts'

/** The FetchJWTBundles answer, ready to be sent: JWT keys and no others. */
export function encodeJwtBundles(
  bundles: readonly Bundle[],
  encode: (authorities: readonly JwtAuthority[]) => string,
): Encoded {
  const message: JWTBundlesResponse = {
    bundles: new Map(
      bundles.map((bundle) => [`spiffe://${bundle.trustDomain}`, jwksOf(bundle, encode)]),
    ),
  }
  return new Encoded(JWTBundlesResponse.encode(message).finish())
}

/**
 * The claims of a token as ValidateJWTSVID answers with them: `aud` is always a list.
 *
 * @param reported which claims to report; undefined: all.
 */
export function claimsOf(
  token: ValidatedJwtSvid,
  reported: ReadonlySet<string> | undefined,
): Record<string, unknown> {
  const claims: Record<string, unknown> = Object.create(null)
  for (const [name, value] of Object.entries(token.claims)) {
    if (reported === undefined || reported.has(name)) claims[name] = structValue(value)
  }
  claims['aud'] = token.audience
  return claims
}

/** A protobuf Struct knows one kind of number. */
function structValue(value: Json): unknown {
  if (typeof value === 'bigint') return Number(value)
  if (Array.isArray(value)) return value.map(structValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, structValue(member)]),
  )
}

const encoded = new WeakMap<Bundle, Uint8Array>()

function jwksOf(
  bundle: Bundle,
  encode: (authorities: readonly JwtAuthority[]) => string,
): Uint8Array {
  const known = encoded.get(bundle)
  if (known !== undefined) return known
  const jwks = utf8Bytes(encode(bundle.jwtAuthorities))
  encoded.set(bundle, jwks)
  return jwks
}
