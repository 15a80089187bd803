import { concatBytes, utf8Bytes } from '#base/bytes.ts'
import { SystemClock } from '#base/clock.ts'
import { SystemRandom } from '#base/random.ts'
import { password, readHandles } from '#tpm/device/commands.ts'
import { entity, Tpm, type TpmCommand } from '#tpm/device/tpm.ts'
import { algorithm, objectAttribute, permanentHandle } from '#tpm/wire/constants.ts'
import { sized, u8, u16, u32 } from '#tpm/wire/marshal.ts'
import { type EccPublicArea, writePublicArea } from '#tpm/wire/public-area.ts'
import { attestationKeyTemplate } from '#tpm/wire/templates.ts'

// Commands that no agent sends, for tests to bring a TPM into trouble.

const none = new Uint8Array(0)

/** Opens a TPM with the real clock. */
export function openTpm(tcti: string): Promise<Tpm> {
  return Tpm.open(tcti, { clock: new SystemClock(), random: new SystemRandom() })
}

/** Keys and sessions that are loaded. */
export async function loadedHandles(tcti: string): Promise<number[]> {
  await using tpm = await openTpm(tcti)
  return [...(await readHandles(tpm, 0x80000000)), ...(await readHandles(tpm, 0x02000000))]
}

/** TPM2_PCR_Extend of the SHA-256 bank with 32 equal bytes. */
export const pcrExtend = (index: number): TpmCommand => ({
  code: 0x182,
  name: 'TPM2_PCR_Extend',
  handles: [entity(index)],
  authorizations: [password()],
  parameters: concatBytes(u32(1), u16(0x0b), new Uint8Array(32).fill(index)),
})

/** TPM2_Clear by the platform. */
export const clear: TpmCommand = {
  code: 0x126,
  name: 'TPM2_Clear',
  handles: [entity(permanentHandle.platform)],
  authorizations: [password()],
}

/** TPM2_HierarchyChangeAuth of the endorsement hierarchy, which has none yet. */
export const setEndorsementPassword = (value: string): TpmCommand => ({
  code: 0x129,
  name: 'TPM2_HierarchyChangeAuth',
  handles: [entity(permanentHandle.endorsement)],
  authorizations: [password()],
  parameters: sized(utf8Bytes(value)),
})

/** TPM2_CreatePrimary of another program's signing key, under the owner. */
export function createOwnerKey(
  options: { readonly keyPassword?: string; readonly attributes?: number } = {},
): TpmCommand {
  const { keyPassword = '', attributes = othersAttributes } = options
  const template: EccPublicArea = { ...attestationKeyTemplate, attributes, x: none, y: none }
  return {
    code: 0x131,
    name: 'TPM2_CreatePrimary',
    handles: [entity(permanentHandle.owner)],
    authorizations: [password()],
    parameters: concatBytes(
      sized(sized(utf8Bytes(keyPassword)), sized()),
      sized(writePublicArea(template)),
      sized(),
      u32(0),
    ),
    returnsHandle: true,
  }
}

const othersAttributes = attestationKeyTemplate.attributes & ~objectAttribute.restricted

/** What makes a key that wrong passwords lock. */
export const lockableAttributes = othersAttributes & ~objectAttribute.noDictionaryAttackProtection

/** TPM2_StartAuthSession, neither bound nor salted, as other programs start them. */
export const startSession = (kind: 'hmac' | 'policy'): TpmCommand => ({
  code: 0x176,
  name: 'TPM2_StartAuthSession',
  handles: [entity(permanentHandle.null), entity(permanentHandle.null)],
  parameters: concatBytes(
    sized(new Uint8Array(16)),
    sized(),
    u8(kind === 'hmac' ? 0 : 1),
    u16(algorithm.null),
    u16(0x0b),
  ),
  returnsHandle: true,
})

/** Runs `command` until the TPM refuses. */
export async function repeat(tpm: Tpm, command: TpmCommand): Promise<number[]> {
  const handles: number[] = []
  for (;;) {
    try {
      handles.push((await tpm.execute(command)).handle)
    } catch {
      return handles
    }
  }
}
