import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { utf8Bytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { version } from '#base/version.ts'
import type { CallContext } from '#rpc/call.ts'
import type { BackupPart, CreateBackupRequest } from '#rpc/gen/assay/server/v1/backup.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { Datastore, Snapshot } from '../datastore/datastore.ts'
import type { KeyManager } from '../plugin/key-manager/key-manager.ts'

export interface BackupServiceDependencies {
  readonly trustDomain: TrustDomain
  /** Which journal is this server's. */
  readonly serverName: string
  readonly datastore: Pick<Datastore, 'snapshot'>
  readonly authorities: AuthorityManager
  readonly keyManager: KeyManager
  readonly clock: Clock
}

const partBytes = 256 * 1024

/** `assay.server.v1.Backup`. */
export function newBackupService(dependencies: BackupServiceDependencies) {
  return {
    async *create(
      _request: CreateBackupRequest,
      { signal }: CallContext,
    ): AsyncGenerator<BackupPart> {
      const progress = new Progress()
      const taking = dependencies.datastore.snapshot({
        signal,
        onProgress: (pagesDone, pages) => progress.tell({ pagesDone, pages }),
      })
      const taken = taking.finally(() => progress.end())
      for await (const value of progress) yield { part: { $case: 'progress', value } }
      await using snapshot = await taken
      const name = utf8Bytes(`${dependencies.serverName}\n`)
      const manifest = {
        ...describe(dependencies, snapshot),
        files: [
          { name: 'server-id', bytes: name.length, sha256: sha256(name) },
          {
            name: 'datastore.sqlite3',
            bytes: snapshot.bytes,
            sha256: await sha256OfFile(snapshot.path, signal),
          },
        ],
      }
      yield { part: { $case: 'manifest', value: JSON.stringify(manifest, undefined, 2) } }
      yield { part: { $case: 'data', value: name } }
      for await (const value of createReadStream(snapshot.path, {
        highWaterMark: partBytes,
        signal,
      })) {
        yield { part: { $case: 'data', value: value as Uint8Array } }
      }
    },
  }
}

/** What is in it, for who restores it and for people. Keys are named, and stay where they are. */
function describe(
  { trustDomain, serverName, authorities, keyManager, clock }: BackupServiceDependencies,
  { schemaVersion, revision, bundles }: Snapshot,
) {
  const keys = (['x509', 'jwt'] as const).flatMap((kind) =>
    authorities.states(kind).map(({ keyId, state, authorityId }) => ({
      id: keyId,
      purpose: kind,
      state,
      authority_id: authorityId,
    })),
  )
  return {
    format: 1,
    program: 'assay-server',
    version,
    schema_version: schemaVersion,
    trust_domain: trustDomain,
    server_id: serverName,
    created_at: clock.now().toString({ smallestUnit: 'second' }),
    // 64 bits are text in JSON.
    revision: String(revision),
    bundles: [...bundles].map(([name, sequenceNumber]) => ({
      trust_domain: name,
      sequence_number: String(sequenceNumber),
    })),
    keys_in: keyManager.status().where,
    keys,
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

async function sha256OfFile(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for await (const part of createReadStream(path, { highWaterMark: partBytes, signal })) {
    hash.update(part as Uint8Array)
  }
  return hash.digest('hex')
}

interface Pages {
  readonly pagesDone: number
  readonly pages: number
}

/** What is told of while nobody reads is not kept: the newest counts. */
class Progress {
  #newest: Pages | undefined
  #isEnded = false
  #wake = Promise.withResolvers<void>()

  tell(pages: Pages): void {
    this.#newest = pages
    this.#wake.resolve()
  }

  end(): void {
    this.#isEnded = true
    this.#wake.resolve()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Pages> {
    while (!this.#isEnded) {
      await this.#wake.promise
      this.#wake = Promise.withResolvers<void>()
      const newest = this.#newest
      this.#newest = undefined
      if (newest !== undefined) yield newest
    }
  }
}
