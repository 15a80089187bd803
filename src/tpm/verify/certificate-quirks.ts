import { equalBytes } from '#base/bytes.ts'
import { type Certificate, parseCertificate } from '#pki/certificate.ts'
import { children, readElement } from '#pki/der.ts'
import { describePublicKey, publicKeyBits } from '#pki/public-key.ts'

/**
 * What makers of TPMs are known to get wrong in endorsement certificates, by name, so that each can be logged
 * and switched off:
 *
 * - `der-encoding`: integers or lengths that are not in their shortest form, odd serial numbers (Nuvoton, ST)
 * - `rsa-oaep-key`: the key is labelled id-RSAES-OAEP instead of rsaEncryption
 * - `key-usage-missing`, `extended-key-usage-missing`: older certificates lack the extension
 * - `issuer-name-order`: the parts of a multi-valued RDN stand in another order than in the issuer (Nuvoton)
 */
export type CertificateQuirk =
  | 'der-encoding'
  | 'rsa-oaep-key'
  | 'key-usage-missing'
  | 'extended-key-usage-missing'
  | 'issuer-name-order'

/** All of them. */
export const certificateQuirks: readonly CertificateQuirk[] = [
  'der-encoding',
  'rsa-oaep-key',
  'key-usage-missing',
  'extended-key-usage-missing',
  'issuer-name-order',
]

/** Longest endorsement or issuer certificate that is read, in bytes; real ones have 1 to 2 KiB. */
export const maxCertificateBytes = 8192

const rsaOaep = '1.2.840.113549.1.1.7'

/**
 * Parses a certificate strictly or, where that fails, leniently and with the quirk noted.
 *
 * @throws SyntaxError or RangeError when even the lenient reading fails, or bytes follow the certificate.
 */
export function parseQuirkyCertificate(der: Uint8Array, seen: Set<CertificateQuirk>): Certificate {
  if (der.length > maxCertificateBytes)
    throw new RangeError(`it has ${der.length} bytes where ${maxCertificateBytes} are the limit`)
  try {
    return parseCertificate(der)
  } catch (strict) {
    const certificate = parseCertificate(der, { lenient: true })
    if (certificate.raw.length !== der.length)
      throw new SyntaxError('bytes follow the certificate', { cause: strict })
    seen.add('der-encoding')
    return certificate
  }
}

/** Whether two SubjectPublicKeyInfos hold the same key; one labelled for OAEP alone still does. */
export function isSameKey(
  certified: Uint8Array,
  presented: Uint8Array,
  seen: Set<CertificateQuirk>,
): boolean {
  if (equalBytes(certified, presented)) return true
  if (!equalBytes(publicKeyBits(certified), publicKeyBits(presented))) return false
  const description = describePublicKey(certified)
  if (description.type === 'rsa') return true // its parameters are absent instead of NULL
  if (description.type !== 'other' || description.algorithm !== rsaOaep) return false
  seen.add('rsa-oaep-key')
  return true
}

/** Whether two Names are the same, in whatever order an RDN's attributes stand. */
export function isSameName(a: Uint8Array, b: Uint8Array, seen: Set<CertificateQuirk>): boolean {
  if (equalBytes(a, b)) return true
  if (a.length !== b.length || sortedName(a) !== sortedName(b)) return false
  seen.add('issuer-name-order')
  return true
}

function sortedName(name: Uint8Array): string {
  return children(readElement(name, { lenient: true }))
    .map((rdn) => {
      const attributes = children(rdn).map(({ raw }) => raw.toHex())
      return attributes.sort().join('+')
    })
    .join(',')
}
