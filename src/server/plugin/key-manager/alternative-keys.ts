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
import type { AlternativeKey, Sealer } from './key-manager.ts'

/** Post-quantum keys by the names of the classical keys they are beside. */
export interface AlternativeKeys {
  /** For people. */
  readonly where: string
  /** Why they cannot be had yet; undefined: they can. */
  readonly locked: string | undefined
  /** Tries to get at them. Does nothing when they are not locked. @throws AssayError as {@link Sealer.unseal}. */
  unlock(): Promise<void>
  /**
   * Makes a key, durably before it returns; one of that name that was there before is replaced.
   *
   * @throws AssayError `unavailable` while they are locked, or when it cannot be sealed now.
   */
  generate(id: string, parameterSet: MlDsaParameterSet): Promise<AlternativeKey>
  get(id: string): AlternativeKey | undefined
  /** A name that is not there is not an error. */
  destroy(id: string): Promise<void>
}

const maxKeys = 1000

/** Signatures under way at once: Node's pool has four threads, and files are read and written by it too. */
const maxSigning = 3

const version = 1

interface Held {
  readonly pair: MlDsaKeyPair
  readonly key: AlternativeKey
}

/** A key as the file has it. */
interface Stored {
  readonly parameterSet: MlDsaParameterSet
  readonly isSealed: boolean
  /** The seed, or what it was sealed to. */
  readonly bytes: Uint8Array
}

/** Keys that end with the process. */
export const newAlternativeKeysInMemory = (): AlternativeKeys =>
  new SoftwareAlternativeKeys({ stored: new Map(), file: undefined, sealer: undefined })

/**
 * Keys in one file, mode 0600, as the 32-byte seeds they are made of: `{"version": 1, "keys": {"<id>":
 * {"parameter_set": "ml-dsa-44", "sealed": "<base64>"}}}`, or with `seed` in place of `sealed` where there is no HSM,
 * or none that seals. While the HSM is away they are locked.
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
  const { path, sealer, log } = options
  const stored = await load(path)
  if (sealer === undefined) {
    if ([...stored.values()].some(({ isSealed }) => isSealed)) {
      throw new AssayError(
        'failed-precondition',
        `cannot load keys from ${path}: they are sealed by an HSM, and key_manager names none`,
      )
    }
    log.warn({ path, keys: stored.size }, 'post-quantum keys are in a file, and no HSM seals them')
  }
  const keys = new SoftwareAlternativeKeys({ stored, file: options, sealer })
  try {
    await keys.unlock()
  } catch (error) {
    if (!(error instanceof AssayError && error.code === 'unavailable')) throw error
    log.warn({ error, path }, 'post-quantum keys cannot be unsealed yet')
  }
  return keys
}

class SoftwareAlternativeKeys implements AlternativeKeys {
  readonly #file: { readonly path: string; readonly random: Random; readonly log: Log } | undefined
  readonly #sealer: Sealer | undefined
  /** Those that could not be had yet; none once all can. */
  #stored: ReadonlyMap<string, Stored>
  #keys: ReadonlyMap<string, Held> = new Map()
  #unlocking: Promise<void> | undefined
  #lockedBecause = ''
  /** Why seeds are written as they are although there is an HSM. */
  #cannotSeal = ''
  #changing: Promise<unknown> = Promise.resolve()

  constructor(of: {
    readonly stored: ReadonlyMap<string, Stored>
    readonly file: { readonly path: string; readonly random: Random; readonly log: Log } | undefined
    readonly sealer: Sealer | undefined
  }) {
    this.#stored = of.stored
    this.#file = of.file
    this.#sealer = of.sealer
  }

  get where(): string {
    if (this.#file === undefined) return 'memory'
    const sealed =
      this.#sealer === undefined
        ? 'not sealed'
        : this.#cannotSeal === ''
          ? `sealed by ${this.#sealer.where}`
          : `not sealed: ${this.#cannotSeal}`
    return `software, file ${this.#file.path}, ${sealed}`
  }

  get locked(): string | undefined {
    return this.#stored.size === 0 ? undefined : this.#lockedBecause || 'they are being unsealed'
  }

  unlock(): Promise<void> {
    this.#unlocking ??= this.#unlock().finally(() => {
      this.#unlocking = undefined
    })
    return this.#unlocking
  }

  async #unlock(): Promise<void> {
    const held = new Map<string, Held>()
    try {
      for (const [id, { parameterSet, isSealed, bytes }] of this.#stored) {
        // What is held is wiped only once nothing can fail any more: it is all there is to try again with.
        const seed = isSealed && this.#sealer ? await this.#sealer.unseal(id, bytes) : bytes.slice()
        held.set(id, hold(id, pairOf(id, { parameterSet, seed })))
        seed.fill(0)
      }
    } catch (error) {
      this.#lockedBecause = messageOf(error)
      throw error
    }
    if (this.#stored.size > 0) this.#keys = held
    for (const { bytes } of this.#stored.values()) bytes.fill(0)
    this.#stored = new Map()
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
    if (this.#keys.has(id) || this.#stored.has(id)) await this.#change((keys) => keys.delete(id))
  }

  /** One change after the other; what is on disk is what a change ends with, or what was there before. */
  #change(edit: (keys: Map<string, Held>) => void): Promise<void> {
    const turn = this.#changing.then(async () => {
      if (this.locked !== undefined) {
        throw new AssayError('unavailable', `cannot use the post-quantum keys: ${this.locked}`)
      }
      const keys = new Map(this.#keys)
      edit(keys)
      await this.#save(keys)
      this.#keys = keys
    })
    this.#changing = turn.catch(() => undefined)
    return turn
  }

  async #save(keys: ReadonlyMap<string, Held>): Promise<void> {
    if (this.#file === undefined) return
    const { path, random } = this.#file
    try {
      const content = utf8Bytes(await this.#encode(keys))
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      await writeSecretFile(path, content, { random })
      content.fill(0)
    } catch (cause) {
      if (cause instanceof AssayError) throw cause
      const message = `cannot store keys in ${path}: ${messageOf(cause)}`
      throw new AssayError('unavailable', message, { cause })
    }
  }

  async #encode(keys: ReadonlyMap<string, Held>): Promise<string> {
    const records: Record<string, object> = {}
    for (const [id, { pair }] of keys) {
      const seed = mlDsaSeed(pair)
      const sealed = await this.#seal(id, seed)
      const secret = sealed ? { sealed: sealed.toBase64() } : { seed: seed.toBase64() }
      seed.fill(0)
      records[id] = { parameter_set: pair.parameterSet, ...secret }
    }
    return `${JSON.stringify({ version, keys: records }, undefined, '\t')}\n`
  }

  /** Undefined when there is nothing to seal with. An HSM that cannot is told of; one that is away is an error. */
  async #seal(id: string, seed: Uint8Array): Promise<Uint8Array | undefined> {
    if (this.#sealer === undefined || this.#cannotSeal !== '') return undefined
    try {
      return await this.#sealer.seal(id, seed)
    } catch (error) {
      if (!(error instanceof AssayError && error.code === 'unimplemented')) throw error
      this.#cannotSeal = error.message
      const fields = { error, path: this.#file?.path }
      this.#file?.log.error(fields, 'post-quantum keys are written to a file without being sealed')
      return undefined
    }
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

function pairOf(
  id: string,
  { parameterSet, seed }: { readonly parameterSet: MlDsaParameterSet; readonly seed: Uint8Array },
): MlDsaKeyPair {
  try {
    return mlDsaKeyPairOfSeed(parameterSet, seed)
  } catch (cause) {
    const message = `cannot load key ${JSON.stringify(id)}: ${messageOf(cause)}`
    throw new AssayError('failed-precondition', message, { cause })
  }
}

async function load(path: string): Promise<Map<string, Stored>> {
  const refuse = (why: string, cause?: unknown): AssayError =>
    new AssayError('failed-precondition', `cannot load keys from ${path}: ${why}`, { cause })
  let content: Uint8Array
  try {
    content = await readSecretFile(path)
  } catch (error) {
    if (error instanceof AssayError && error.code === 'not-found') return new Map()
    throw error
  }
  const stored = new Map<string, Stored>()
  for (const [id, record] of Object.entries(parse(content, refuse))) {
    const { parameter_set: named, seed, sealed } = (record ?? {}) as Record<string, unknown>
    const parameterSet = mlDsaParameterSets.find((set) => set === named)
    if (parameterSet === undefined) throw refuse(`key ${JSON.stringify(id)} names no parameter set`)
    const isSealed = sealed !== undefined
    try {
      stored.set(id, { parameterSet, isSealed, bytes: bytes(isSealed ? sealed : seed) })
    } catch (error) {
      throw refuse(`key ${JSON.stringify(id)}: ${messageOf(error)}`, error)
    }
  }
  content.fill(0)
  return stored
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
