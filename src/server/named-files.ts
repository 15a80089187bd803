import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { messageOf } from '#base/errors.ts'
import { silentLog } from '#base/log.ts'
import { type CatalogDependencies, newUpstreamAuthority } from './catalog/built-ins.ts'
import { loadEndorsementAuthorities } from './catalog/endorsement-authorities.ts'
import type { ServerConfig } from './config.ts'

/** What is wrong with the files the configuration names, before a server is started on them. One line each. */
export async function namedFileProblems(
  config: ServerConfig,
  process: Omit<CatalogDependencies, 'log'>,
): Promise<readonly string[]> {
  const { key_manager, node_attestors, upstream_authority } = config
  const problems: string[] = []
  const check = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      problems.push(`${what}: ${messageOf(error)}`)
    }
  }
  const checkHsm = async (
    key: string,
    { module, pin_file }: { readonly module: string; readonly pin_file: string | undefined },
  ): Promise<void> => {
    await check(`${key}.module`, () => access(module, constants.R_OK))
    if (pin_file === undefined) return
    await check(`${key}.pin_file`, async () => {
      const { mode, size } = await stat(pin_file)
      if ((mode & 0o077) !== 0) {
        throw new Error(`others may read ${pin_file}; run chmod 0400 ${pin_file}`)
      }
      if (size === 0) throw new Error(`${pin_file} is empty`)
    })
  }
  if (key_manager.kind === 'pkcs11') {
    await checkHsm('key_manager.pkcs11', key_manager)
    const { standby } = key_manager
    if (standby !== undefined) await checkHsm('key_manager.pkcs11.standby', standby)
  }
  if (upstream_authority?.kind === 'pkcs11') {
    await checkHsm('upstream_authority.pkcs11', upstream_authority)
  }
  await using upstream = newUpstreamAuthority(config, { ...process, log: silentLog })
  if (upstream !== undefined) {
    await check('upstream_authority', async () => void (await upstream.current()))
  }
  const { tpm } = node_attestors
  if (tpm !== undefined) {
    await check('node_attestors.tpm', async () => void (await loadEndorsementAuthorities(tpm)))
  }
  return problems
}
