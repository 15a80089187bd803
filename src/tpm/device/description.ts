import { utf8Text } from '#base/bytes.ts'
import { identityOf } from '../verify/endorsement-key.ts'
import { hashId } from '../wire/algorithms.ts'
import { u32 } from '../wire/marshal.ts'
import type { EndorsementKeyProfileName } from '../wire/templates.ts'
import { firmwareText, type TpmClaims, vendorText } from '../wire/vendor.ts'
import { readActiveBanks, readProperties } from './commands.ts'
import { flushLeftovers, loadEndorsementKey } from './endorsement.ts'
import { Tpm, type TpmDependencies } from './tpm.ts'
import { describeFailure } from './tpm-error.ts'

/** A TPM, for people. */
export interface TpmDescription {
  readonly tcti: string
  /** `IFX`, `INTC`; in hex when it is not printable. */
  readonly manufacturer: string
  readonly model: string
  /** `7.85.4555.0` */
  readonly firmware: string
  /** Names of the active PCR banks: `sha256`; in hex when unknown. */
  readonly pcrBanks: readonly string[]
  /** The key the node attests with. */
  readonly endorsementKey: {
    readonly profile: EndorsementKeyProfileName
    /** Lower-case hex of SHA-256 over its SubjectPublicKeyInfo: the node's identity, the inventory's key. */
    readonly hash: string
    /** DER; empty when the TPM holds none. The first is the key's own. */
    readonly certificates: readonly Uint8Array[]
  }
}

/** How to open a TPM to describe it. */
export interface TpmDescriptionOptions extends TpmDependencies {
  /** As in the agent's configuration; undefined: chosen as the agent chooses. */
  readonly endorsementKey?: EndorsementKeyProfileName | undefined
  readonly endorsementPassword?: Uint8Array | undefined
}

const tpmProperty = { manufacturer: 0x105, vendorString: 0x106, firmwareVersion: 0x10b } as const

/**
 * Looks at a TPM as an agent would, for `assay tpm show`, `fingerprint` and `doctor`.
 *
 * @throws AssayError whose reason is a `DeviceProblem`; its message names the remedy.
 */
export async function loadTpmDescription(
  tcti: string,
  options: TpmDescriptionOptions,
): Promise<TpmDescription> {
  try {
    await using tpm = await Tpm.open(tcti, options)
    const claims = await readClaims(tpm)
    const banks = await readActiveBanks(tpm)
    await flushLeftovers(tpm)
    const { profile, key, certificates } = await loadEndorsementKey(tpm, {
      profile: options.endorsementKey,
      hierarchyPassword: options.endorsementPassword ?? new Uint8Array(0),
    })
    await using loaded = key
    return {
      tcti,
      manufacturer: vendorText(claims.manufacturer),
      model: claims.model,
      firmware: firmwareText(claims.firmwareVersion),
      pcrBanks: banks.map(bankText),
      endorsementKey: { profile: profile.name, hash: identityOf(loaded.area).hash, certificates },
    }
  } catch (error) {
    throw describeFailure(error)
  }
}

/** TPM2_GetCapability: manufacturer, firmware and vendor string. */
export async function readClaims(tpm: Tpm): Promise<TpmClaims> {
  const properties = await readProperties(tpm, tpmProperty.manufacturer, 8)
  const value = (property: number): number => properties.get(property) ?? 0
  const text = [0, 1, 2, 3].map((at) => u32(value(tpmProperty.vendorString + at)))
  return {
    manufacturer: value(tpmProperty.manufacturer),
    firmwareVersion:
      (BigInt(value(tpmProperty.firmwareVersion)) << 32n) |
      BigInt(value(tpmProperty.firmwareVersion + 1)),
    model: text
      .map((bytes) => utf8Text(bytes.filter((byte) => byte >= 0x20 && byte < 0x7f)))
      .join('')
      .trim(),
  }
}

function bankText(id: number): string {
  const known = (['sha1', 'sha256', 'sha384', 'sha512'] as const).find(
    (hash) => hashId(hash) === id,
  )
  return known ?? `0x${id.toString(16)}`
}
