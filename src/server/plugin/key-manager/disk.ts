import { createPrivateKey, type KeyObject } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { verifyKeyId } from './key-id.ts'
import type { KeyManager, KeyManagerStatus, KeyType, SigningKey } from './key-manager.ts'
import { generateSoftwareKey, keyTypeOf, softwareSigningKey } from './software-key.ts'

/** An RSA-4096 key takes 3.2 KiB, so this is thousands of keys. */
const maxFileBytes = 16 * 1024 * 1024

interface StoredKey {
  readonly signingKey: SigningKey
  readonly privateKey: KeyObject
}

/**
 * Keys in one JSON file, in the form SPIRE's `disk` key manager has: `{"keys": {"<id>": "<base64 PKCS#8>"}}`.
 * Whoever reads the file has the CA, which is why it says so at every start.
 *
 * @throws AssayError `failed-precondition` when the file is damaged or open to others.
 */
export async function openDiskKeyManager(options: {
  /** The file. Its directory is made if it is missing. */
  readonly path: string
  readonly log: Log
}): Promise<KeyManager> {
  const { path, log } = options
  const keys = await loadKeys(path)
  log.warn({ path, keys: keys.size }, 'signing keys are in a file on this disk, not in an HSM')
  return new DiskKeyManager(path, keys)
}

class DiskKeyManager implements KeyManager {
  readonly #path: string
  readonly #status: KeyManagerStatus
  #keys: ReadonlyMap<string, StoredKey>
  #changing: Promise<unknown> = Promise.resolve()

  constructor(path: string, keys: ReadonlyMap<string, StoredKey>) {
    this.#path = path
    this.#keys = keys
    this.#status = { state: 'ok', detail: '', where: `disk ${path}` }
  }

  async generateKey(id: string, type: KeyType): Promise<SigningKey> {
    verifyKeyId(id)
    const privateKey = await generateSoftwareKey(type)
    const signingKey = softwareSigningKey(id, { type, privateKey })
    await this.#change((keys) => {
      if (keys.has(id)) {
        throw new AssayError(
          'already-exists',
          `cannot generate key ${id}: there is one of that name`,
        )
      }
      keys.set(id, { signingKey, privateKey })
    })
    return signingKey
  }

  key(id: string): SigningKey | undefined {
    return this.#keys.get(id)?.signingKey
  }

  keys(): readonly SigningKey[] {
    return [...this.#keys.values()].map(({ signingKey }) => signingKey)
  }

  async destroyKey(id: string): Promise<void> {
    await this.#change((keys) => keys.delete(id))
  }

  status(): KeyManagerStatus {
    return this.#status
  }

  onStatus(): Disposable {
    return { [Symbol.dispose]() {} }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#changing
  }

  /** One change after the other; what is on disk is what a change ends with, or what was there before. */
  #change(edit: (keys: Map<string, StoredKey>) => void): Promise<void> {
    const turn = this.#changing.then(async () => {
      const keys = new Map(this.#keys)
      edit(keys)
      await storeKeys(this.#path, keys)
      this.#keys = keys
    })
    this.#changing = turn.catch(() => undefined)
    return turn
  }
}

async function loadKeys(path: string): Promise<Map<string, StoredKey>> {
  const refuse = (why: string, cause?: unknown) =>
    new AssayError('failed-precondition', `cannot load keys from ${path}: ${why}`, { cause })
  let text: string
  try {
    text = await withFile(open(path, 'r'), async (file) => {
      const { size, mode } = await file.stat()
      if (size > maxFileBytes) throw refuse(`it is ${size} bytes long, over ${maxFileBytes}`)
      if ((mode & 0o077) !== 0) throw refuse(`others may read it; run chmod 0600 ${path}`)
      return file.readFile('utf8')
    })
  } catch (error) {
    if (error instanceof AssayError) throw error
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
    throw refuse(messageOf(error), error)
  }
  const keys = new Map<string, StoredKey>()
  for (const [id, encoded] of Object.entries(parseKeyFile(text, refuse))) {
    try {
      const privateKey = parsePrivateKey(encoded)
      const type = keyTypeOf(privateKey)
      if (type === undefined) throw new RangeError('its type is not supported')
      keys.set(id, { signingKey: softwareSigningKey(id, { type, privateKey }), privateKey })
    } catch (error) {
      throw refuse(`key ${JSON.stringify(id)}: ${messageOf(error)}`, error)
    }
  }
  return keys
}

function parseKeyFile(
  text: string,
  refuse: (why: string, cause?: unknown) => AssayError,
): Readonly<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The parser's own error quotes what it met, which may be key material.
    throw refuse('it is not whole JSON; restore it from a backup')
  }
  const keys = (value as { keys?: unknown } | null)?.keys
  if (typeof keys !== 'object' || keys === null || Array.isArray(keys)) {
    throw refuse('it has no object "keys"')
  }
  return keys as Readonly<Record<string, unknown>>
}

function parsePrivateKey(encoded: unknown): KeyObject {
  if (typeof encoded !== 'string') throw new TypeError('it is not text')
  let der: Uint8Array
  try {
    der = Uint8Array.fromBase64(encoded)
  } catch (error) {
    throw new SyntaxError('it is not base64', { cause: error })
  }
  try {
    return createPrivateKey({ key: der as never, format: 'der', type: 'pkcs8' })
  } catch (error) {
    throw new SyntaxError('it is not a PKCS#8 private key', { cause: error })
  }
}

/** A reader sees the old file or the new one, whole, also after a power cut. */
async function storeKeys(path: string, keys: ReadonlyMap<string, StoredKey>): Promise<void> {
  const encoded: Record<string, string> = {}
  for (const [id, { privateKey }] of keys) {
    const der = privateKey.export({ type: 'pkcs8', format: 'der' })
    encoded[id] = new Uint8Array(der).toBase64()
    der.fill(0)
  }
  const directory = dirname(path)
  const temporary = `${path}.new`
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await withFile(openPrivate(temporary), async (file) => {
      await file.writeFile(`${JSON.stringify({ keys: encoded }, undefined, '\t')}\n`)
      await file.sync()
    })
    await rename(temporary, path)
    await withFile(open(directory, 'r'), (parent) => parent.sync())
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw notStored(path, error)
  }
}

function notStored(path: string, cause: unknown): AssayError {
  return new AssayError('unavailable', `cannot store keys in ${path}: ${messageOf(cause)}`, {
    cause,
  })
}

async function withFile<Result>(
  opening: Promise<FileHandle>,
  use: (file: FileHandle) => Promise<Result>,
): Promise<Result> {
  const file = await opening
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

/** Whatever the umask is, and whatever an interrupted run has left there. */
async function openPrivate(path: string): Promise<FileHandle> {
  await unlink(path).catch(() => undefined)
  const file = await open(path, 'wx', 0o600)
  await file.chmod(0o600)
  return file
}
