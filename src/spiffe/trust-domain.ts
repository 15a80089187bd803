/**
 * The name of a trust domain: 1 to 255 characters of `a-z 0-9 . - _` (SPIFFE-ID §2.1), without a scheme.
 * Only {@link parseTrustDomain} makes one.
 */
export type TrustDomain = string & { readonly [trustDomainBrand]: true }
declare const trustDomainBrand: unique symbol

const trustDomainName = /^[a-z0-9._-]{1,255}$/

/** @throws SyntaxError when `text` is not a trust domain name. Upper case is refused, never folded. */
export function parseTrustDomain(text: string): TrustDomain {
  if (!trustDomainName.test(text)) {
    throw new SyntaxError(
      `invalid trust domain ${JSON.stringify(text.slice(0, 256))}: 1 to 255 characters of a-z, 0-9, '.', '-' and '_' are allowed`,
    )
  }
  return text as TrustDomain
}
