import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '#base/errors.ts'
import type { ServerConfig } from '#server/config.ts'
import { loadOwnership } from '../helper/ownership.ts'
import { hasSignerUnit, signerUsers } from '../setup/signer.ts'
import { type Finding, problem, warning, well } from './finding.ts'
import { output } from './machine.ts'

type Token = Extract<ServerConfig['key_manager'], { readonly kind: 'pkcs11' }>

const takesOver = 'whoever takes the server over would have the PIN and the library too'

/** Whether the signer is a service of its own, whom it serves, and whether it can reach what it needs. */
export async function signerFindings(config: ServerConfig): Promise<readonly Finding[]> {
  const { key_manager: manager, signer_socket_path: socket } = config
  if (manager.kind !== 'pkcs11') return []
  if (socket === undefined) {
    if (!(await hasSignerUnit())) return well('signer', 'the server starts it, as its own user')
    return [
      warning('signer', "the server starts it, as its own user, and reads the HSM's PIN", {
        why: takesOver,
        remedy: 'assay setup server --signer service',
      }),
    ]
  }
  const findings = [
    ...(await socketFindings(socket)),
    ...(await credentialFindings()),
    ...(await pinFileFindings(manager)),
    ...(await softHsmFindings(manager)),
  ]
  return findings.length > 0 ? findings : well('signer', `a service of its own, at ${socket}`)
}

async function socketFindings(socket: string): Promise<readonly Finding[]> {
  try {
    const { mode } = await stat(socket)
    if ((mode & 0o077) === 0) return []
    return [
      problem('signer', `its socket ${socket} has mode ${(mode & 0o777).toString(8)}`, {
        why: 'who is not the server could have anything signed',
        remedy: `SocketMode=0600 in assay-signer.socket; chmod 0600 ${socket}`,
      }),
    ]
  } catch (error) {
    return [
      problem('signer', `it cannot be reached: ${messageOf(error)}`, {
        why: 'the server has no keys without it',
        remedy: 'systemctl start assay-signer.socket; systemctl status assay-signer.socket',
      }),
    ]
  }
}

/** The server's unit has no use for the PIN any more. */
async function credentialFindings(): Promise<readonly Finding[]> {
  const properties = '--property=LoadCredential,LoadCredentialEncrypted'
  const passed = await output('systemctl', ['show', 'assay-server.service', properties])
  if (passed === undefined || !/hsm-pin/.test(passed)) return []
  return [
    warning('signer', 'systemd passes the PIN to assay-server.service too', {
      why: takesOver,
      remedy: 'assay setup server --signer service; systemctl cat assay-server.service',
    }),
  ]
}

/** Undefined where there is no such user. */
const signerUid = async (): Promise<number | undefined> =>
  (await loadOwnership(signerUsers.service, undefined).catch(() => undefined))?.uid

async function pinFileFindings({ pin_file: file }: Token): Promise<readonly Finding[]> {
  if (file === undefined) return []
  const uid = await signerUid()
  const owner = await stat(file).then(
    (found) => found.uid,
    () => undefined,
  )
  if (uid === undefined || owner === undefined || owner === uid || owner === 0) return []
  return [
    problem('signer', `the PIN's file ${file} belongs to user ${owner}`, {
      why: 'the signer reads none but its own',
      remedy: `chown ${signerUsers.service} ${file}`,
    }),
  ]
}

/** SoftHSM's keys are files, of whoever made the token. */
export async function softHsmFindings(token: Token): Promise<readonly Finding[]> {
  if (!/softhsm/.test(token.module)) return []
  const uid = await signerUid()
  if (uid === undefined) return []
  const conf = await readFile('/etc/softhsm/softhsm2.conf', 'utf8').catch(() => '')
  const directory = /^directories\.tokendir\s*=\s*(\S+)/m.exec(conf)?.[1]
  if (directory === undefined) return []
  const names = await readdir(directory).catch(() => [])
  for (const name of names) {
    const file = join(directory, name, 'token.object')
    const found = await readFile(file).catch(() => undefined)
    if (found === undefined || !found.includes(token.token_label)) continue
    const { uid: owner } = await stat(file)
    if (owner === uid) continue
    const place = join(directory, name)
    return [
      problem('signer', `the token "${token.token_label}" in ${place} belongs to user ${owner}`, {
        why: 'the signer cannot read or change it',
        remedy: `chown -R ${signerUsers.service} ${place}`,
      }),
    ]
  }
  return []
}
