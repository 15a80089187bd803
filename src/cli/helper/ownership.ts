import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { AssayError } from '#base/errors.ts'
import type { Ownership } from './versioned-directory.ts'

const run = promisify(execFile)

/**
 * The numbers of a user and a group, given as names or numbers. Without a group it is the user's own.
 *
 * @throws AssayError `failed-precondition` when this machine does not know one of them.
 */
export async function loadOwnership(
  owner: string | undefined,
  group: string | undefined,
): Promise<Ownership> {
  const user = owner === undefined ? undefined : await lookUp('passwd', owner)
  const ofGroup = group === undefined ? undefined : await lookUp('group', group)
  return { uid: user?.id, gid: ofGroup?.id ?? user?.group }
}

/** Asks what the host is configured to ask: files, LDAP, SSSD. */
async function lookUp(
  database: 'passwd' | 'group',
  name: string,
): Promise<{ readonly id: number; readonly group: number | undefined }> {
  try {
    const { stdout } = await run('getent', [database, name], { timeout: 10_000 })
    // passwd(5): name:password:UID:GID:…; group(5): name:password:GID:…
    const [, , id = '', group = ''] = stdout.trim().split(':')
    if (!/^\d{1,10}$/.test(id)) throw new SyntaxError(`getent says ${JSON.stringify(stdout)}`)
    return { id: Number(id), group: database === 'passwd' ? Number(group) : undefined }
  } catch (cause) {
    if (/^\d+$/.test(name)) return { id: Number(name), group: undefined }
    const what = database === 'passwd' ? 'user' : 'group'
    throw new AssayError('failed-precondition', `this machine knows no ${what} '${name}'`, {
      cause,
    })
  }
}
