import { constants, existsSync } from 'node:fs'
import { lstat, mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { writeSecretFile } from '#host/secret-file.ts'
import type { CommandContext } from '../command.ts'
import { output } from '../doctor/machine.ts'
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
  await place(context, path, { content: utf8Bytes(after), mode: 0o644 })
}

/** Writes a file all or nothing, with its mode. @returns false when it is so already. */
export async function place(
  context: CommandContext,
  path: string,
  { content, mode }: { readonly content: Uint8Array; readonly mode: number },
): Promise<boolean> {
  try {
    if (await isPlaced(path, { content, mode })) return false
    await mkdir(dirname(path), { recursive: true, mode: 0o755 })
    await writeSecretFile(path, content, { random: context.random, mode })
    return true
  } catch (cause) {
    throw new AssayError('failed-precondition', `cannot write ${path}: ${messageOf(cause)}`, {
      cause,
    })
  }
}

async function isPlaced(
  path: string,
  wanted: { readonly content: Uint8Array; readonly mode: number },
): Promise<boolean> {
  if (!existsSync(path)) return false
  const { mode } = await lstat(path)
  const isSame = (mode & (constants.S_IFMT | 0o777)) === (constants.S_IFREG | wanted.mode)
  return isSame && (await readFile(path)).equals(wanted.content)
}

/** Whether systemd runs here, so that it can hand over what it keeps. */
export const hasSystemd = (): boolean => existsSync('/run/systemd/system')

/** As long as systemd itself waits for a daemon to be ready, and a little longer. */
const startSeconds = 150

/**
 * Has systemd run a unit, now and at each boot. One that runs is restarted only when something it reads has `changed`.
 *
 * @returns whether it runs; false where systemd does not know it.
 */
export async function startUnit(
  context: CommandContext,
  unit: string,
  { changed }: { readonly changed: boolean },
): Promise<boolean> {
  if (!hasSystemd()) return false
  const states = await output('systemctl', [
    'show',
    unit,
    '--property=LoadState,ActiveState,UnitFileState',
  ])
  const has = (state: string): boolean => (states ?? '').split('\n').includes(state)
  if (!has('LoadState=loaded')) return false
  const isEnabled =
    has('UnitFileState=enabled') || (await output('systemctl', ['enable', unit])) !== undefined
  const runs = has('ActiveState=active') && !changed
  const isStarted =
    runs ||
    (await output('systemctl', ['restart', unit], { limitSeconds: startSeconds })) !== undefined
  if (isEnabled && isStarted) {
    context.note(`${unit} ${runs ? 'runs already' : 'is started'}, and will be at each boot`)
    return true
  }
  context.setStatus(6)
  const log = await output('journalctl', ['--unit', unit, '--lines=3', '--output=cat'])
  for (const line of (log ?? '').split('\n')) if (line !== '') context.note(`  ${line}`)
  context.note(`${unit} does not start: journalctl -u ${unit} -n 50; assay doctor`)
  return false
}
