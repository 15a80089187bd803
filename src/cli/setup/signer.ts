import { existsSync } from 'node:fs'
import { lchown, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import process from 'node:process'
import { utf8Bytes } from '#base/bytes.ts'
import { type CommandContext, UsageError } from '../command.ts'
import { output } from '../doctor/machine.ts'
import { loadOwnership } from '../helper/ownership.ts'
import { place } from './apply.ts'
import { valueIn } from './edit-config.ts'

/** Who loads the HSM's library and reads the PIN: a service with a user of its own, or what the server itself starts. */
export type SignerPlace = 'service' | 'server'

/** Where the service waits. */
export const signerSocket = '/run/assay-signer/socket'

/** The configuration that the service reads. */
const serviceConfig = '/etc/assay/server.yaml'

/** Where systemd finds the encrypted PIN. */
export const pinCredentialFile = '/etc/assay/credentials/hsm-pin'

const units = { service: 'assay-signer@.service', server: 'assay-server.service' } as const
const other = { service: 'server', server: 'service' } as const
export const signerUsers = { service: 'assay-signer', server: 'assay-server' } as const

const dropIns = (signer: SignerPlace): string => `/etc/systemd/system/${units[signer]}.d`
const pinDropIn = (signer: SignerPlace): string => join(dropIns(signer), 'hsm-pin.conf')

/** Who it is to be: what was asked for, else what it is, else the service where the packages have put it. */
export async function signerPlace(
  asked: string | undefined,
  { path, before }: { readonly path: string; readonly before: string },
): Promise<SignerPlace> {
  if (asked === 'service' && path !== serviceConfig) {
    throw new UsageError(`--signer service is for ${serviceConfig}, which its unit reads`)
  }
  if (asked === 'service' || asked === 'server') return asked
  if (valueIn(before, ['signer_socket_path']) !== undefined) return 'service'
  const isNew = valueIn(before, ['key_manager']) === undefined
  return isNew && path === serviceConfig && (await hasSignerUnit()) ? 'service' : 'server'
}

/** Whether systemd knows the service here. */
export async function hasSignerUnit(): Promise<boolean> {
  const show = ['show', 'assay-signer.socket', '--property=LoadState', '--value']
  return (await output('systemctl', show)) === 'loaded'
}

/** Has systemd pass the encrypted PIN to the signer. @returns false when it does already. */
export async function passCredential(
  context: CommandContext,
  signer: SignerPlace,
): Promise<boolean> {
  const text = `[Service]\nLoadCredentialEncrypted=hsm-pin:${pinCredentialFile}\n`
  const content = utf8Bytes(text)
  if (!(await place(context, pinDropIn(signer), { content, mode: 0o644 }))) return false
  await output('systemctl', ['daemon-reload'])
  return true
}

/**
 * Takes the PIN that is kept already from whoever else had it, and gives it to the signer. In a rehearsal it says only
 * what would be done.
 *
 * @returns whether anything changed.
 */
export async function handOver(
  context: CommandContext,
  signer: SignerPlace,
  { pinFile, dryRun }: { readonly pinFile: string | undefined; readonly dryRun: boolean },
): Promise<boolean> {
  let changed = false
  const had = pinDropIn(other[signer])
  if (existsSync(had)) {
    changed = true
    context.note(`the PIN is passed to ${units[signer]}, and no more to ${units[other[signer]]}`)
    if (!dryRun) {
      if (pinFile === undefined) await passCredential(context, signer)
      await rm(had)
      await output('systemctl', ['daemon-reload'])
    }
  }
  if (pinFile !== undefined && existsSync(pinFile) && !dryRun) {
    await giveFile(context, pinFile, signer)
  }
  const rest = await readdir(dropIns(other[signer])).catch(() => [])
  const left = rest.filter((name) => name.endsWith('.conf') && name !== 'hsm-pin.conf')
  if (changed && left.length > 0) {
    context.note(
      `${dropIns(other[signer])} has ${left.join(', ')} too: what of it is for the HSM belongs into ${dropIns(signer)}`,
    )
  }
  return changed
}

/** Makes the PIN's file the signer's own, where that is ours to do; a link to some other file gives nobody that. */
export async function giveFile(
  context: CommandContext,
  file: string,
  signer: SignerPlace,
): Promise<void> {
  if (process.geteuid?.() !== 0) return
  const user = signerUsers[signer]
  try {
    const { uid, gid } = await loadOwnership(user, undefined)
    if (uid !== undefined && gid !== undefined) await lchown(file, uid, gid)
  } catch {
    context.note(`there is no user ${user}: chown ${file} to the one that reads it`)
  }
}
