import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import process from 'node:process'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { writeSecretFile } from '#host/secret-file.ts'
import type { CommandContext } from '../command.ts'
import { output } from '../doctor/machine.ts'
import { loadOwnership } from '../helper/ownership.ts'
import { changedLines } from './edit-config.ts'

/** The text of a file; empty when it is not there. */
export async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}

/** Shows what changes in a file, and changes it unless this is a rehearsal. */
export async function writeConfig(
  context: CommandContext,
  file: { readonly path: string; readonly before: string; readonly after: string },
  { dryRun }: { readonly dryRun: boolean },
): Promise<void> {
  const { path, before, after } = file
  if (before === after) return context.note(`${path} stays as it is`)
  context.note(`${path}${before === '' ? ' (new)' : ''}:`)
  const shown = before === '' ? after.trimEnd().split('\n') : changedLines(before, after)
  for (const line of shown) context.note(`  ${line}`)
  if (dryRun) return
  await place(context, path, utf8Bytes(after), 0o644)
}

/** Writes a file all or nothing, with its mode. */
export async function place(
  context: CommandContext,
  path: string,
  content: Uint8Array,
  mode: number,
): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 })
    await writeSecretFile(path, content, context)
    await chmod(path, mode)
  } catch (cause) {
    throw new AssayError('failed-precondition', `cannot write ${path}: ${messageOf(cause)}`, {
      cause,
    })
  }
}

/** Where a PIN is kept. */
export const pinPlaces = {
  credential: '/etc/assay/credentials/hsm-pin',
  dropIn: '/etc/systemd/system/assay-server.service.d/hsm-pin.conf',
} as const

/** Whether systemd runs here, so that it can hand over what it keeps. */
export const hasSystemd = (): boolean => existsSync('/run/systemd/system')

/** Encrypts the PIN for this machine; only systemd, as it starts the server, can read it. */
export async function storeCredential(context: CommandContext, pin: string): Promise<void> {
  await mkdir(dirname(pinPlaces.credential), { recursive: true, mode: 0o700 })
  await runWithInput('systemd-creds', ['encrypt', '--name=hsm-pin', '-', pinPlaces.credential], pin)
  const text = `[Service]\nLoadCredentialEncrypted=hsm-pin:${pinPlaces.credential}\n`
  await place(context, pinPlaces.dropIn, utf8Bytes(text), 0o644)
  await output('systemctl', ['daemon-reload'])
}

/** Writes the PIN where the server's user alone can read it. */
export async function storePinFile(
  context: CommandContext,
  path: string,
  pin: string,
): Promise<void> {
  await place(context, path, utf8Bytes(pin), 0o400)
  if (process.geteuid?.() !== 0) return
  try {
    const { uid, gid } = await loadOwnership('assay-server', undefined)
    if (uid !== undefined && gid !== undefined) await chown(path, uid, gid)
  } catch {
    context.note(`there is no user assay-server: chown ${path} to the one the server runs as`)
  }
}

/** A secret goes in by standard input: arguments and environment are for everybody to see. */
async function runWithInput(
  program: string,
  args: readonly string[],
  input: string,
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'inherit'] })
  child.once('error', (error) => resolve(error.message))
  child.once('exit', (status) => resolve(status === 0 ? undefined : `exit status ${status}`))
  child.stdin.on('error', () => {
    // It has ended, and says why.
  })
  child.stdin.end(input)
  const why = await promise
  if (why === undefined) return
  throw new AssayError(
    'failed-precondition',
    `cannot encrypt the PIN with ${program}: ${why}; --pin-store file keeps it in a file`,
  )
}

/** Starts the unit where systemd knows it. @returns whether it did. */
export async function startUnit(context: CommandContext, unit: string): Promise<boolean> {
  if (!hasSystemd()) return false
  const known = await output('systemctl', ['show', unit, '--property=LoadState', '--value'])
  if (known !== 'loaded') return false
  const done = await output('systemctl', ['enable', unit])
  const started = await output('systemctl', ['restart', unit])
  if (done === undefined || started === undefined) {
    context.setStatus(6)
    context.note(`${unit} does not start: journalctl -u ${unit} -n 50; assay doctor`)
    return false
  }
  context.note(`${unit} is started, and will be at each boot`)
  return true
}
