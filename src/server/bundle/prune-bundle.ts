import { parseCertificate } from '#pki/certificate.ts'
import type { Bundle } from '#spiffe/bundle.ts'

/** How long an authority stays in the bundle after its end, for verifiers whose clock is behind. */
export const keepExpiredSeconds = 86_400

/**
 * A bundle without authorities that expired more than a day ago. The last ones of a kind stay: an empty
 * bundle trusts nobody, and expired authorities do not verify anything anyway.
 */
export function prunedBundle(bundle: Bundle, nowSeconds: number): Bundle {
  const before = nowSeconds - keepExpiredSeconds
  const x509Authorities = bundle.x509Authorities.filter(
    ({ certificate }) => parseCertificate(certificate).notAfterSeconds >= before,
  )
  const jwtAuthorities = bundle.jwtAuthorities.filter(
    ({ expiresAtSeconds }) => expiresAtSeconds === 0 || expiresAtSeconds >= before,
  )
  return {
    ...bundle,
    x509Authorities: x509Authorities.length > 0 ? x509Authorities : bundle.x509Authorities,
    jwtAuthorities: jwtAuthorities.length > 0 ? jwtAuthorities : bundle.jwtAuthorities,
  }
}
