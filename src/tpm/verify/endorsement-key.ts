import { hash } from 'node:crypto'
import { equalBytes } from '#base/bytes.ts'
import { messageOf } from '#base/errors.ts'
import { parseWhole } from '../wire/marshal.ts'
import { type PublicArea, readPublicArea, writePublicArea } from '../wire/public-area.ts'
import { publicKeyOf, subjectPublicKeyInfo } from '../wire/public-key.ts'
import { type EndorsementKeyProfile, endorsementKeyProfiles } from '../wire/templates.ts'
import { refusal } from './refusal.ts'
import { hasRocaFingerprint } from './roca.ts'

/** An endorsement key of one of the TCG's profiles. Whose it is remains to be proved. */
export interface EndorsementKey {
  readonly area: PublicArea
  readonly profile: EndorsementKeyProfile
  /** DER. */
  readonly subjectPublicKeyInfo: Uint8Array
  /** Lower-case hex of SHA-256 over {@link subjectPublicKeyInfo}: the node's identity. */
  readonly hash: string
}

/**
 * Reads the public area a node presents as its endorsement key. Nothing in it but the key itself is believed:
 *
 * 1. it is byte for byte what a profile's template gives with this key (EK Credential Profile §B), so that only
 *    its TPM can use it, for decryption, by the profile's policy;
 * 2. it is a key: an odd modulus of the full length, a point on the curve;
 * 3. an RSA key is not one that CVE-2017-15361 breaks.
 *
 * @throws AssayError with an {@link EvidenceRefusal}.
 */
export function verifyEndorsementKey(bytes: Uint8Array): EndorsementKey {
  const area = parseEndorsementKey(bytes)
  const profile = endorsementKeyProfiles.find(({ template }) => {
    const rebuilt = withUnique(template, area)
    return rebuilt !== undefined && equalBytes(writePublicArea(rebuilt), bytes)
  })
  if (profile === undefined)
    throw refusal(
      'endorsement-key-template',
      'cannot accept the endorsement key: its attributes, policy or algorithms are not those of a TCG profile (L-1, L-2, H-1, H-2, H-3)',
    )
  if (!isKey(area))
    throw refusal(
      'endorsement-key-invalid',
      'cannot accept the endorsement key: its modulus or point is not that of a key',
    )
  if (area.type === 'rsa' && hasRocaFingerprint(area.modulus))
    throw refusal(
      'endorsement-key-roca',
      'cannot accept the endorsement key: it was made by the flawed generator of CVE-2017-15361 (ROCA) and can be computed by anyone',
    )
  return { area, profile, ...identityOf(area) }
}

/** A key's SubjectPublicKeyInfo and its hash. */
export function identityOf(
  area: PublicArea,
): Pick<EndorsementKey, 'subjectPublicKeyInfo' | 'hash'> {
  const spki = subjectPublicKeyInfo(area)
  return { subjectPublicKeyInfo: spki, hash: hash('sha256', spki, 'hex') }
}

function parseEndorsementKey(bytes: Uint8Array): PublicArea {
  try {
    return parseWhole(bytes, readPublicArea)
  } catch (cause) {
    throw refusal(
      'endorsement-key-malformed',
      `cannot read the endorsement key: ${messageOf(cause)}`,
      { cause },
    )
  }
}

/** `template` with the key of `area`; undefined when they are not of one type. */
export function withUnique(template: PublicArea, area: PublicArea): PublicArea | undefined {
  if (template.type === 'rsa')
    return area.type === 'rsa' ? { ...template, modulus: area.modulus } : undefined
  return area.type === 'ecc' ? { ...template, x: area.x, y: area.y } : undefined
}

function isKey(area: PublicArea): boolean {
  if (area.type === 'rsa') {
    const { modulus, bits } = area
    const first = modulus[0] ?? 0
    const last = modulus[modulus.length - 1] ?? 0
    return modulus.length === bits / 8 && first >= 0x80 && (last & 1) === 1
  }
  try {
    publicKeyOf(area)
    return true
  } catch {
    return false // OpenSSL refuses a point that is not on the curve
  }
}
