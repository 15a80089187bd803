import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newSoftHsm, type SoftHsm } from './softhsm.ts'

/** A table for ceremonies: two tokens, two operators with keys, and a directory for what comes of it. */
export interface CeremonyRoom extends AsyncDisposable {
  readonly hsm: SoftHsm
  readonly directory: string
  /** The path of `name` in the directory. */
  at(name: string): string
  /** YAML of the place of a key. */
  key(token: 'offline' | 'online', label: string): string
  /** Writes a ceremony's file; `lines` end it. */
  write(name: string, kind: 'root' | 'intermediate', lines: string): Promise<string>
}

export const serial = (fill: string): string => `5f1${fill}c0d3e8a97b264f105bdc38e97a6b4${fill}`

/** Token `offline` is for the root, token `online` for the intermediate; the token `assay` is the server's. */
export async function newCeremonyRoom(): Promise<CeremonyRoom> {
  const hsm = await newSoftHsm()
  const directory = await mkdtemp(join(tmpdir(), 'assay-ceremony-'))
  const at = (name: string): string => join(directory, name)
  for (const label of ['offline', 'online']) await hsm.addToken(label)
  const pairs = {
    alice: generateKeyPairSync('ed25519'),
    bob: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    mallory: generateKeyPairSync('ed25519'),
  }
  for (const [name, { privateKey, publicKey }] of Object.entries(pairs)) {
    await writeFile(at(`${name}.pub`), publicKey.export({ format: 'pem', type: 'spki' }))
    const pem = privateKey.export({ format: 'pem', type: 'pkcs8' })
    await writeFile(at(`${name}.key`), pem, { mode: 0o600 })
  }
  return {
    hsm,
    directory,
    at,
    key: (token, label) =>
      `module: ${hsm.module}, token_label: ${token}, pin_file: ${hsm.pinFile}, label: ${label}`,
    async write(name, kind, lines) {
      const path = at(`${name}.yaml`)
      await writeFile(
        path,
        `kind: ${kind}
trust_domain: example.org
outputs: { certificate: ${name}.pem, public_key: ${name}.pub.pem, transcript: ${name}.json }
operators: { required: 2, public_keys: { alice: alice.pub, bob: bob.pub } }
${lines}
`,
      )
      return path
    },
    async [Symbol.asyncDispose]() {
      await hsm[Symbol.asyncDispose]()
      await rm(directory, { recursive: true })
    },
  }
}
