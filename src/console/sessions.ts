import { createHash, timingSafeEqual } from 'node:crypto'
import { utf8Bytes } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'

/** Bytes of a token: nobody guesses one. */
const tokenBytes = 32
/** Browsers that may look at the same time; the one that came first goes first. */
const maxSessions = 32

/**
 * Who may look. A link holds a token that works once; the browser that opens it gets a key of its own for it, which
 * it sends in a header with every request. There is always one link that has not been used.
 */
export class Sessions {
  readonly #random: Random
  readonly #keys: Uint8Array[] = []
  #link: Uint8Array = new Uint8Array()

  constructor(random: Random) {
    this.#random = random
  }

  /** A token for a new link, in place of the last one. */
  newLink(): string {
    const token = this.#newToken()
    this.#link = digest(token)
    return token
  }

  /** The key for a link's token, which is then used up; undefined when it is not the present link's. */
  redeem(token: string): string | undefined {
    if (!isEqual(digest(token), this.#link)) return undefined
    this.#link = new Uint8Array()
    const key = this.#newToken()
    if (this.#keys.length === maxSessions) this.#keys.shift()
    this.#keys.push(digest(key))
    return key
  }

  has(key: string): boolean {
    const given = digest(key)
    return this.#keys.some((known) => isEqual(known, given))
  }

  #newToken(): string {
    return this.#random.bytes(tokenBytes).toBase64({ alphabet: 'base64url', omitPadding: true })
  }
}

// What is kept opens nothing, and is compared in a time that does not depend on it.
const digest = (text: string): Uint8Array =>
  new Uint8Array(createHash('sha256').update(utf8Bytes(text)).digest())

const isEqual = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && timingSafeEqual(a, b)
