import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import type { CommandContext } from '../command.ts'
import { output } from '../doctor/machine.ts'
import { hasSystemd, place, textOf } from './apply.ts'
import {
  giveFile,
  passCredential,
  pinCredentialFile,
  type SignerPlace,
  signerUsers,
} from './signer.ts'

/** As a credential that systemd decrypts for the signer alone, or in a file that its user alone reads. */
export type PinStore = 'credential' | 'file'

/** A PIN, and where it is to be kept. */
export interface PinToKeep {
  readonly value: string
  /** Undefined: as a credential where systemd can keep one here, else in the file. */
  readonly store: PinStore | undefined
  readonly file: string
  /** Who is to read it. */
  readonly signer: SignerPlace
}

/** Where a PIN is now. */
export interface KeptPin {
  readonly store: PinStore
  /** False: it was there already. */
  readonly changed: boolean
}

/** Keeps the PIN, and says how where that is not as it should be. In a rehearsal it says only what would be done. */
export async function keepPin(
  context: CommandContext,
  pin: PinToKeep,
  { dryRun }: { readonly dryRun: boolean },
): Promise<KeptPin> {
  let why: string | undefined
  if (pin.store !== 'file') {
    why = await noCredentials()
    if (why === undefined) {
      try {
        if (!dryRun) return { store: 'credential', changed: await storeCredential(context, pin) }
        context.note(`the PIN goes into ${pinCredentialFile}, encrypted for this machine`)
        return { store: 'credential', changed: true }
      } catch (error) {
        if (!(error instanceof AssayError)) throw error
        why = error.message
      }
    }
    if (pin.store === 'credential') {
      throw new AssayError(
        'failed-precondition',
        `cannot keep the PIN as a credential: ${why}; --pin-store file keeps it in a file`,
      )
    }
    context.note(
      `warning: the PIN is not encrypted for this machine, because ${why}: it goes into ${pin.file}, which root and ${signerUsers[pin.signer]} can read`,
    )
  }
  return { store: 'file', changed: !dryRun && (await storeFile(context, pin)) }
}

/** Why systemd cannot keep a secret for a service here; undefined: it can. */
async function noCredentials(): Promise<string | undefined> {
  if (!hasSystemd()) return 'systemd does not run here'
  const version = await output('systemd-creds', ['--version'])
  return version === undefined ? 'systemd-creds, of systemd 250 and later, does not run' : undefined
}

/** @returns whether anything was written. */
async function storeCredential(context: CommandContext, pin: PinToKeep): Promise<boolean> {
  const isNew = !(await isEncrypted(pin.value))
  if (isNew) {
    await mkdir(dirname(pinCredentialFile), { recursive: true, mode: 0o700 })
    await encrypt(['encrypt', '--name=hsm-pin', '-', pinCredentialFile], pin.value)
  }
  return (await passCredential(context, pin.signer)) || isNew
}

/** Whether the credential that is there is this PIN: encrypted anew it would be other bytes each time. */
async function isEncrypted(pin: string): Promise<boolean> {
  if (!existsSync(pinCredentialFile)) return false
  const decrypt = ['decrypt', '--name=hsm-pin', '--newline=no', pinCredentialFile, '-']
  return (await output('systemd-creds', decrypt)) === pin
}

/** A secret goes in by standard input: arguments and environment are for everybody to see. */
async function encrypt(args: readonly string[], input: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const child = spawn('systemd-creds', args, { stdio: ['pipe', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-1000)
  })
  child.once('error', (error) => resolve(error.message))
  child.once('close', (status) => {
    resolve(status === 0 ? undefined : said.trim() || `it ended with ${status}`)
  })
  child.stdin.on('error', () => {
    // It has ended, and says why.
  })
  child.stdin.end(input)
  const why = await promise
  if (why === undefined) return
  throw new AssayError('failed-precondition', `systemd-creds cannot encrypt it: ${why}`)
}

/** Writes the PIN where the signer's user alone can read it. @returns whether it was not there already. */
async function storeFile(
  context: CommandContext,
  { file, value, signer }: PinToKeep,
): Promise<boolean> {
  const changed = await place(context, file, { content: utf8Bytes(value), mode: 0o400 })
  await giveFile(context, file, signer)
  return changed
}

/** The PIN in a file that somebody wrote, without the line end an editor leaves. */
export const pinIn = async (file: string): Promise<string> =>
  (await textOf(file)).replace(/[\r\n]+$/, '')
