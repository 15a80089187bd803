import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { encodePem } from '../../src/pki/pem.ts'
import { newDiskUpstream } from '../../src/server/plugin/upstream-authority/disk.ts'
import type { UpstreamAuthority } from '../../src/server/plugin/upstream-authority/upstream-authority.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import type { Issued } from './certificates.ts'

/** The files of an upstream authority, in a directory that goes when this is disposed. */
export interface UpstreamFolder extends AsyncDisposable {
  readonly directory: string
  readonly certFilePath: string
  readonly keyFilePath: string
  readonly bundleFilePath: string
  /** Replaces the files: who signs, who is between it and the root, and the roots. */
  write(ca: Issued, above?: readonly Issued[], roots?: readonly Issued[]): Promise<void>
  /** The plugin on these files. */
  open(clock: Clock): UpstreamAuthority
}

export async function newUpstreamFolder(trustDomain = 'example.org'): Promise<UpstreamFolder> {
  const directory = await mkdtemp(join(tmpdir(), 'assay-upstream-'))
  const path = (name: string): string => join(directory, name)
  const paths = {
    certFilePath: path('upstream.pem'),
    keyFilePath: path('upstream.key'),
    bundleFilePath: path('roots.pem'),
  }
  return {
    directory,
    ...paths,
    async write(ca, above = [], roots = [ca]) {
      await writeFile(paths.certFilePath, pem([ca, ...above]))
      await writeFile(paths.bundleFilePath, pem(roots))
      const key = ca.key.privateKey.export({ type: 'pkcs8', format: 'pem' })
      await writeFile(paths.keyFilePath, key, { mode: 0o600 })
    },
    open: (clock) =>
      newDiskUpstream({
        ...paths,
        trustDomain: parseTrustDomain(trustDomain),
        clock,
        log: silentLog,
      }),
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true })
    },
  }
}

export const pem = (issued: readonly Issued[]): string =>
  issued.map(({ certificate }) => encodePem('CERTIFICATE', certificate)).join('')
