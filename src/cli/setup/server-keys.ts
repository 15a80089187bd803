import { existsSync } from 'node:fs'
import type { ServerConfig } from '#server/config.ts'
import type { CommandContext } from '../command.ts'
import { softHsmFindings } from '../doctor/signer-checks.ts'
import { oneOfWords } from './answers.ts'
import { type Change, valueIn } from './edit-config.ts'
import { type Asking, askKeyPlace, askPinToKeep } from './key-manager.ts'
import type { PinStore, PinToKeep } from './pin.ts'
import { handOver, type SignerPlace, signerPlace, signerSocket } from './signer.ts'

/** What is to be said of the keys, and the PIN that is to be kept for them. */
export interface ServerKeys {
  readonly pin: PinToKeep | undefined
  /** Who uses the HSM; undefined: there is none. */
  readonly signer: SignerPlace | undefined
  /** Undefined: the PIN stays where it is. */
  changes(store: PinStore | undefined): readonly Change[]
}

/** What is asked of the keys, if anything is. */
export async function serverKeys(
  path: string,
  before: string,
  asking: Asking,
): Promise<ServerKeys> {
  const { answers } = asking
  const asked = answers.given('signer')
  if (asked !== undefined) oneOfWords('signer', 'service', 'server')(asked)
  const signer = await signerPlace(asked, { path, before })
  const signerChange: Change = [
    ['signer_socket_path'],
    signer === 'service' ? (valueIn(before, ['signer_socket_path']) ?? signerSocket) : undefined,
  ]
  const isAsked = answers.given('keys') !== undefined || answers.given('module') !== undefined
  if (!isAsked && /^key_manager:/m.test(before)) {
    const isPkcs11 = valueIn(before, ['key_manager', 'pkcs11']) !== undefined
    return {
      pin: undefined,
      signer: isPkcs11 ? signer : undefined,
      changes: () => (isPkcs11 ? [signerChange] : []),
    }
  }
  const keys = await askKeyPlace(asking)
  if (keys.kind === 'disk') {
    const change: Change = [['key_manager'], { disk: {} }]
    const isDisk = valueIn(before, ['key_manager', 'disk']) !== undefined
    return { pin: undefined, signer: undefined, changes: () => (isDisk ? [] : [change]) }
  }
  const file = path.replace(/[^/]*$/, 'hsm-pin')
  const present = valueIn(before, ['key_manager', 'pkcs11'])
  const {
    pin_file: had,
    uri: _,
    ...settings
  } = (present ?? {}) as Readonly<Record<string, unknown>>
  return {
    pin: await askPinToKeep(asking, { file, signer }),
    signer,
    changes(store) {
      const kept = had ?? (existsSync(file) ? file : undefined)
      const pinFile = store === undefined ? kept : store === 'file' ? file : undefined
      const token = { ...settings, module: keys.module, token_label: keys.label }
      const pkcs11 = { ...token, ...(pinFile !== undefined && { pin_file: pinFile }) }
      return [[['key_manager'], { pkcs11 }], signerChange]
    },
  }
}

/** Sees to it that the signer can use the HSM, and who else could no more. @returns whether anything changed. */
export async function signerHas(
  signer: SignerPlace | undefined,
  { key_manager: manager }: ServerConfig,
  { context, dryRun }: { readonly context: CommandContext; readonly dryRun: boolean },
): Promise<boolean> {
  if (signer === undefined || manager.kind !== 'pkcs11') return false
  const changed = await handOver(context, signer, { pinFile: manager.pin_file, dryRun })
  if (signer === 'service') {
    for (const { what, remedy } of await softHsmFindings(manager)) {
      context.note(`warning: ${what}: ${remedy}`)
    }
  }
  return changed
}
