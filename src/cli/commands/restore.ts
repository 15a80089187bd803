import { resolve } from 'node:path'
import { ConfigError } from '#config/config-error.ts'
import { loadConfig } from '#config/parse-config.ts'
import { type ServerConfig, serverConfigSchema } from '#server/config.ts'
import { movedOnBy, restoreBackup } from '../backup/restore-backup.ts'
import { type Command, isOn, nowSeconds, optional, UsageError } from '../command.ts'
import { fields, timeLeftText, timeText } from '../print.ts'

const defaultConfig = '/etc/assay/server.yaml'

async function load(file: string): Promise<ServerConfig> {
  try {
    return await loadConfig(serverConfigSchema, file)
  } catch (error) {
    if (error instanceof ConfigError) throw new UsageError(error.message, { cause: error })
    throw error
  }
}

const restore: Command = {
  name: 'restore',
  summary: 'put a backup in the place of the data of a server that does not run',
  positionals: 'FILE',
  options: [
    { name: 'config', value: 'FILE', summary: `its server.yaml; ${defaultConfig} when absent` },
    { name: 'force', summary: 'put aside data that is there' },
  ],
  details: `
Checks everything first and changes nothing when something is wrong. Numbers that only ever grow (revisions, sequence
numbers of bundles) are moved on, so that none is given out again for something else; join tokens are removed. What was
changed after the backup is gone: bans above all.`,
  async run(context) {
    const [given] = context.positionals
    if (given === undefined) throw new UsageError("'assay restore' needs the FILE of a backup")
    const config = await load(optional(context, 'config') ?? defaultConfig)
    const { clock, random } = context
    const { manifest, files, setAside } = await restoreBackup(resolve(given), config, {
      clock,
      random,
      force: isOn(context, 'force'),
    })
    const takenAt = manifest.createdAt.epochMilliseconds / 1000
    if (context.json) {
      return context.print(
        JSON.stringify({
          trust_domain: manifest.trustDomain,
          created_at: timeText(takenAt),
          version: manifest.version,
          schema_version: manifest.schemaVersion,
          revision: manifest.revision,
          moved_on_by: movedOnBy,
          keys_in: manifest.keysIn,
          files,
          set_aside: setAside,
        }),
      )
    }
    for (const line of fields([
      ['Trust domain', manifest.trustDomain],
      ['As of', timeLeftText(takenAt, nowSeconds(context))],
      ['Keys in', manifest.keysIn],
      ...files.map((file) => ['Restored', file] as const),
      ...setAside.map((file) => ['Set aside', file] as const),
    ])) {
      context.print(line)
    }
    context.note(
      `next: keep agents away (bind_address: 127.0.0.1), start the server, ban again whom you banned since ${timeText(takenAt)}, look at 'assay agent list --banned' and 'assay hsm status', then let agents in: bind_address as it was, and restart it`,
    )
  },
}

export const commands: readonly Command[] = [restore]
