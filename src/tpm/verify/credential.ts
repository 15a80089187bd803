import { concatBytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { digestBytes } from '../wire/algorithms.ts'
import { encryptCfb, hmac, kdfa } from '../wire/key-derivation.ts'
import { sized } from '../wire/marshal.ts'
import type { PublicArea } from '../wire/public-area.ts'
import { shareSecret } from '../wire/shared-secret.ts'

/** What TPM2_ActivateCredential takes (TPM 2.0 Part 3 §12.5): the contents of two TPM2Bs. */
export interface Credential {
  /** TPMS_ID_OBJECT: `TPM2B integrity ‖ encIdentity`. */
  readonly credentialBlob: Uint8Array
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
}

const none = new Uint8Array(0)

/**
 * Encrypts `secret` so that only the TPM that holds both `endorsementKey` and the object named `name` gives it
 * out (TPM 2.0 Part 1 §24). Every hash and key length is the endorsement key's, whatever the object's are.
 *
 * @throws RangeError when the key is not a storage key or `secret` is longer than a digest of it.
 */
export function makeCredential(
  endorsementKey: PublicArea,
  name: Uint8Array,
  { secret, random }: { readonly secret: Uint8Array; readonly random: Random },
): Credential {
  const { nameAlgorithm, symmetricBits } = endorsementKey
  if (symmetricBits === undefined)
    throw new RangeError('cannot make a credential for a key that is not a storage key')
  const size = digestBytes(nameAlgorithm)
  if (secret.length > size)
    throw new RangeError(
      `cannot make a credential of ${secret.length} bytes: ${size} are the limit`,
    )
  const seed = shareSecret(endorsementKey, 'IDENTITY', random)
  const derive = (label: string, u: Uint8Array, bits: number): Uint8Array =>
    kdfa(nameAlgorithm, seed.secret, { label, u, v: none }, bits)
  const storageKey = derive('STORAGE', name, symmetricBits)
  const identity = encryptCfb(storageKey, new Uint8Array(16), sized(secret))
  const integrity = hmac(nameAlgorithm, derive('INTEGRITY', none, size * 8), identity, name)
  return {
    credentialBlob: concatBytes(sized(integrity), identity),
    encryptedSecret: seed.encrypted,
  }
}
