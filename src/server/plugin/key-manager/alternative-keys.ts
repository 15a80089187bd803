import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { readSecretFile, writeSecretFile } from '#host/secret-file.ts'
import {
  generateMlDsaKeyPair,
  isMlDsaSignedByLater,
  type MlDsaKeyPair,
  type MlDsaParameterSet,
  mlDsaKeyPairOfSeed,
  mlDsaParameterSets,
  mlDsaSeed,
  parseMlDsaPublicKey,
  signMlDsa,
} from '#pq-crypto/ml-dsa.ts'
import type { AlternativeKey } from './key-manager.ts'

/** Post-quantum keys by the names of the classical keys they are beside. */
export interface AlternativeKeys {
  /** For people. */
  readonly where: string
  /** Makes a key, durably before it returns; one of that name that was there before is replaced. */
  generate(id: string, parameterSet: MlDsaParameterSet): Promise<AlternativeKey>
  get(id: string): AlternativeKey | undefined
  /** A name that is not there is not an error. */
  destroy(id: string): Promise<void>
}

/** Encrypts what is kept outside an HSM with a key that never leaves it. */
export interface Sealer {
  /** For people: `a key in pkcs11 token "assay"`. */
  readonly where: string
  /** `name` is bound to the sealed bytes: they open under no other. */
  seal(name: string, secret: Uint8Array): Promise<Uint8Array>
  /** @throws AssayError `failed-precondition` when they were sealed by another key, under another name, or changed. */
  unseal(name: string, sealed: Uint8Array): Promise<Uint8Array>
}

const maxKeys = 1000

/** Signatures under way at once: Node's pool has four threads, and files are read and written by it too. */
const maxSigning = 3
const version = 1

interface Held {
  readonly pair: MlDsaKeyPair
  readonly key: AlternativeKey
}

/** Keys that end with the process. */
export const newAlternativeKeysInMemory = (): AlternativeKeys =>
  new SoftwareAlternativeKeys('memory', { keys: new Map(), save: async () => {} })

/**
 * Keys in one file, mode 0600, as the 32-byte seeds they are made of: `{"version": 1, "keys": {"<id>":
 * {"parameter_set": "ml-dsa-44", "seed": "<base64>"}}}`, or with `sealed` in place of `seed`.
 *
 * @throws AssayError `failed-precondition` when the file is damaged, open to others, or was sealed by another HSM.
 */
export async function openAlternativeKeys(options: {
  /** Its directory is made if it is missing. */
  readonly path: string
  /** Undefined: the seeds are in the file as they are, and whoever reads it has the keys. */
  readonly sealer: Sealer | undefined
  readonly random: Random
  readonly log: Log
}): Promise<AlternativeKeys> {
  const { path, sealer, random, log } = options
  const keys = await load(path, sealer)
  const where = `software, file ${path}, ${sealer === undefined ? 'not sealed' : `sealed by ${sealer.where}`}`
  if (sealer === undefined) {
    log.warn({ path, keys: keys.size }, 'post-quantum keys are in a file, and no HSM seals them')
  }
  return new SoftwareAlternativeKeys(where, {
    keys,
    save: async (present) => {
      try {
        const content = utf8Bytes(await encode(present, sealer))
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        await writeSecretFile(path, content, { random })
        content.fill(0)
      } catch (cause) {
        if (cause instanceof AssayError) throw cause
        throw new AssayError('unavailable', `cannot store keys in ${path}: ${messageOf(cause)}`, {
          cause,
        })
      }
    },
  })
}

class SoftwareAlternativeKeys implements AlternativeKeys {
  readonly where: string
  readonly #save: (keys: ReadonlyMap<string, Held>) => Promise<void>
  #keys: ReadonlyMap<string, Held>
  #changing: Promise<unknown> = Promise.resolve()

  constructor(
    where: string,
    store: {
      readonly keys: ReadonlyMap<string, Held>
      readonly save: (keys: ReadonlyMap<string, Held>) => Promise<void>
    },
  ) {
    this.where = where
    this.#keys = store.keys
    this.#save = store.save
  }

  async generate(id: string, parameterSet: MlDsaParameterSet): Promise<AlternativeKey> {
    const held = hold(id, await generateMlDsaKeyPair(parameterSet))
    await this.#change((keys) => {
      if (keys.size >= maxKeys && !keys.has(id)) {
        throw new AssayError('resource-exhausted', `cannot keep more than ${maxKeys} keys`)
      }
      keys.set(id, held)
    })
    return held.key
  }

  get(id: string): AlternativeKey | undefined {
    return this.#keys.get(id)?.key
  }

  async destroy(id: string): Promise<void> {
    if (this.#keys.has(id)) await this.#change((keys) => keys.delete(id))
  }

  /** One change after the other; what is on disk is what a change ends with, or what was there before. */
  #change(edit: (keys: Map<string, Held>) => void): Promise<void> {
    const turn = this.#changing.then(async () => {
      const keys = new Map(this.#keys)
      edit(keys)
      await this.#save(keys)
      this.#keys = keys
    })
    this.#changing = turn.catch(() => undefined)
    return turn
  }
}

/** Lets `count` works run at once; the others wait in the order they came. */
function gateOf(count: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let free = count
  return async (work) => {
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve))
    else free--
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) free++
      else next()
    }
  }
}

const signing = gateOf(maxSigning)

function hold(id: string, pair: MlDsaKeyPair): Held {
  const { parameterSet, privateKey, publicKey } = pair
  const verifier = parseMlDsaPublicKey(publicKey)
  const key: AlternativeKey = {
    parameterSet,
    publicKey,
    async sign(given) {
      const message = new Uint8Array(given)
      const { signature, isRight } = await signing(async () => {
        const made = await signMlDsa(privateKey, message)
        return {
          signature: made,
          isRight: await isMlDsaSignedByLater(verifier, { message, signature: made }),
        }
      })
      if (isRight) return signature
      throw new AssayError('unavailable', `cannot sign with ${id}: this machine computes wrongly`, {
        reason: 'wrong-signature',
      })
    },
  }
  return { pair, key }
}

async function encode(
  keys: ReadonlyMap<string, Held>,
  sealer: Sealer | undefined,
): Promise<string> {
  const records: Record<string, object> = {}
  for (const [id, { pair }] of keys) {
    const seed = mlDsaSeed(pair)
    const secret =
      sealer === undefined
        ? { seed: seed.toBase64() }
        : { sealed: (await sealer.seal(id, seed)).toBase64() }
    seed.fill(0)
    records[id] = { parameter_set: pair.parameterSet, ...secret }
  }
  return `${JSON.stringify({ version, keys: records }, undefined, '\t')}\n`
}

async function load(path: string, sealer: Sealer | undefined): Promise<Map<string, Held>> {
  const refuse = (why: string, cause?: unknown): AssayError =>
    new AssayError('failed-precondition', `cannot load keys from ${path}: ${why}`, { cause })
  let content: Uint8Array
  try {
    content = await readSecretFile(path)
  } catch (error) {
    if (error instanceof AssayError && error.code === 'not-found') return new Map()
    throw error
  }
  const keys = new Map<string, Held>()
  for (const [id, record] of Object.entries(parse(content, refuse))) {
    const { parameter_set: named, seed, sealed } = (record ?? {}) as Record<string, unknown>
    const parameterSet = mlDsaParameterSets.find((set) => set === named)
    if (parameterSet === undefined) throw refuse(`key ${JSON.stringify(id)} names no parameter set`)
    const isSealed = typeof sealed === 'string'
    if (isSealed && sealer === undefined) {
      throw refuse('they are sealed by an HSM, and key_manager names none')
    }
    try {
      const encoded = bytes(isSealed ? sealed : seed)
      const secret = isSealed && sealer ? await sealer.unseal(id, encoded) : encoded
      keys.set(id, hold(id, mlDsaKeyPairOfSeed(parameterSet, secret)))
      secret.fill(0)
    } catch (error) {
      if (error instanceof AssayError) throw error
      throw refuse(`key ${JSON.stringify(id)}: ${messageOf(error)}`, error)
    }
  }
  content.fill(0)
  return keys
}

function parse(
  content: Uint8Array,
  refuse: (why: string) => AssayError,
): Readonly<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(utf8Text(content))
  } catch {
    // The parser's own error quotes what it met, which may be key material.
    throw refuse('it is not whole JSON; restore it from a backup')
  }
  const { version: written, keys } = (value ?? {}) as Record<string, unknown>
  if (written !== version) throw refuse(`its version is not ${version}`)
  if (typeof keys !== 'object' || keys === null || Array.isArray(keys)) {
    throw refuse('it has no object "keys"')
  }
  return keys as Readonly<Record<string, unknown>>
}

function bytes(encoded: unknown): Uint8Array {
  if (typeof encoded !== 'string') throw new TypeError('it has neither "seed" nor "sealed"')
  return Uint8Array.fromBase64(encoded, { lastChunkHandling: 'strict' })
}
