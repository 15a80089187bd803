import { resolve } from 'node:path'
import { BackupDefinition } from '#rpc/gen/assay/server/v1/backup.ts'
import { writeBackup } from '../backup/write-backup.ts'
import { type Command, isOn, UsageError } from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { fields, timeText } from '../print.ts'

const backup: Command = {
  name: 'backup',
  summary: 'write everything the server has to remember into a file, while it goes on',
  positionals: 'FILE',
  options: [{ name: 'force', summary: 'replace a file of that name' }, ...serverOptions],
  details: `
Entries, nodes, inventory, bundles, and which keys are whose, in a tar archive of mode 0600 that holds no private key,
PIN or join token. Keys in an HSM are named and stay there; with 'key_manager: { disk }' back up that file too, as the
secret it is. server.yaml is not in it.`,
  async run(context) {
    const [given] = context.positionals
    if (given === undefined) throw new UsageError("'assay backup' needs a FILE to write")
    const path = resolve(given)
    using connection = await connectServer(context)
    let told = 0
    const parts = connection.client(BackupDefinition).create({}, { signal: context.signal })
    const manifest = await writeBackup(path, parts, {
      random: context.random,
      force: isOn(context, 'force'),
      onProgress: (done, pages) => {
        const tenth = pages === 0 ? 10 : Math.floor((done / pages) * 10)
        if (!context.json && tenth > told) context.note(`copied ${tenth * 10} %`)
        told = Math.max(told, tenth)
      },
    })
    if (context.json) {
      return context.print(
        JSON.stringify({
          file: path,
          trust_domain: manifest.trustDomain,
          server_id: manifest.serverId,
          created_at: timeText(manifest.createdAt.epochMilliseconds / 1000),
          version: manifest.version,
          schema_version: manifest.schemaVersion,
          revision: manifest.revision,
          bundles: manifest.bundles,
          keys_in: manifest.keysIn,
          files: manifest.files,
        }),
      )
    }
    for (const line of fields([
      ['Backup', path],
      ['Trust domain', manifest.trustDomain],
      ['Revision', manifest.revision],
      ['Keys', `${manifest.keys.length}, not in the backup: they are in ${manifest.keysIn}`],
    ])) {
      context.print(line)
    }
  },
}

export const commands: readonly Command[] = [backup]
