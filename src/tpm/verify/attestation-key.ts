import type { KeyObject } from 'node:crypto'
import { messageOf } from '#base/errors.ts'
import { parseWhole } from '../wire/marshal.ts'
import {
  endorsementQualifiedName,
  nameOf,
  type PublicArea,
  readPublicArea,
} from '../wire/public-area.ts'
import { publicKeyOf } from '../wire/public-key.ts'
import { attestationKeyTemplate as template } from '../wire/templates.ts'
import { refusal } from './refusal.ts'

/** A public area that can only be that of an attestation key, if a TPM holds it. */
export interface AttestationKey {
  readonly area: PublicArea
  readonly name: Uint8Array
  /** As it is for a primary key of the endorsement hierarchy. */
  readonly qualifiedName: Uint8Array
  readonly publicKey: KeyObject
}

/**
 * Reads the public area a node presents as its attestation key and checks that it is exactly our template with
 * some key: an ECC P-256 key named by SHA-256, with just the attributes 0x00050472 (above all restricted: such a
 * key signs nothing that a TPM did not make), no policy, ECDSA with SHA-256 only.
 *
 * @throws AssayError with an {@link EvidenceRefusal}.
 */
export function verifyAttestationKey(bytes: Uint8Array): AttestationKey {
  const area = parseAttestationKey(bytes)
  if (area.type !== 'ecc' || area.curve !== template.curve)
    throw refusal('attestation-key-type', 'cannot accept the attestation key: it is not on P-256')
  if (area.nameAlgorithm !== template.nameAlgorithm)
    throw refusal(
      'attestation-key-name-algorithm',
      `cannot accept the attestation key: it is named by ${area.nameAlgorithm}, not ${template.nameAlgorithm}`,
    )
  if (area.attributes !== template.attributes)
    throw refusal(
      'attestation-key-attributes',
      `cannot accept the attestation key: its attributes are ${hex(area.attributes)}, not ${hex(template.attributes)}, so it may sign what no TPM made`,
    )
  if (area.policy.length > 0)
    throw refusal('attestation-key-policy', 'cannot accept the attestation key: it has a policy')
  if (
    area.scheme?.algorithm !== template.scheme?.algorithm ||
    area.scheme?.hash !== template.scheme?.hash ||
    area.symmetricBits !== undefined
  )
    throw refusal(
      'attestation-key-scheme',
      'cannot accept the attestation key: it is not bound to ECDSA with SHA-256',
    )
  return {
    area,
    name: nameOf(area),
    qualifiedName: endorsementQualifiedName(area),
    publicKey: keyOf(area),
  }
}

function parseAttestationKey(bytes: Uint8Array): PublicArea {
  try {
    return parseWhole(bytes, readPublicArea)
  } catch (cause) {
    throw refusal(
      'attestation-key-malformed',
      `cannot read the attestation key: ${messageOf(cause)}`,
      { cause },
    )
  }
}

function keyOf(area: PublicArea): KeyObject {
  try {
    return publicKeyOf(area)
  } catch (cause) {
    throw refusal(
      'attestation-key-invalid',
      'cannot accept the attestation key: its point is not on the curve',
      { cause },
    )
  }
}

const hex = (attributes: number): string => `0x${attributes.toString(16).padStart(8, '0')}`
