import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { messageOf } from '#base/errors.ts'
import { loadEndorsementAuthorities } from './catalog/endorsement-authorities.ts'
import type { ServerConfig } from './config.ts'

/** What is wrong with the files the configuration names, before a server is started on them. One line each. */
export async function namedFileProblems(config: ServerConfig): Promise<readonly string[]> {
  const { key_manager, node_attestors } = config
  const problems: string[] = []
  const check = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      problems.push(`${what}: ${messageOf(error)}`)
    }
  }
  if (key_manager.kind === 'pkcs11') {
    const { module, pin_file } = key_manager
    await check('key_manager.pkcs11.module', () => access(module, constants.R_OK))
    if (pin_file !== undefined) {
      await check('key_manager.pkcs11.pin_file', async () => {
        const { mode, size } = await stat(pin_file)
        if ((mode & 0o077) !== 0) {
          throw new Error(`others may read ${pin_file}; run chmod 0400 ${pin_file}`)
        }
        if (size === 0) throw new Error(`${pin_file} is empty`)
      })
    }
  }
  const { tpm } = node_attestors
  if (tpm !== undefined) {
    await check('node_attestors.tpm', async () => void (await loadEndorsementAuthorities(tpm)))
  }
  return problems
}
