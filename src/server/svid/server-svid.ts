import type { KeyObject } from 'node:crypto'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { parseCertificate } from '#pki/certificate.ts'
import { generateKeyPair } from '#pki/private-key.ts'
import { shouldRotate } from '#spiffe/rotation.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import { Ticker } from '../authority/ticker.ts'
import type { KeyType } from '../plugin/key-manager/key-manager.ts'

/** What the server shows of itself on TLS connections. */
export interface ServerIdentity {
  /** It exists in this process's memory only. */
  readonly privateKey: KeyObject
  /** DER, leaf first; the root is never among them. */
  readonly certificates: readonly Uint8Array[]
  /** Of the authority that signed it: its subject key identifier, lower-case hex. */
  readonly authorityId: string
  /** Unix time. */
  readonly issuedAtSeconds: number
  /** Unix time. */
  readonly expiresAtSeconds: number
}

type Authorities = Pick<AuthorityManager, 'certificateAuthority' | 'isTainted' | 'onEvent'>

const tick = Temporal.Duration.from({ seconds: 5 })

/**
 * The server's own X.509-SVID, `/spire/server`. It is replaced, each time with a new key, at half its lifetime,
 * or at once when the authority that signed it is tainted.
 */
export class ServerSvid {
  readonly #authorities: Authorities
  readonly #clock: Clock
  readonly #keyType: KeyType
  readonly #log: Log
  readonly #listeners = new Set<(identity: ServerIdentity) => void>()
  readonly #ticker: Ticker
  #current: ServerIdentity | undefined

  private constructor(deps: {
    readonly authorities: Authorities
    readonly clock: Clock
    readonly keyType: KeyType
    readonly log: Log
  }) {
    this.#authorities = deps.authorities
    this.#clock = deps.clock
    this.#keyType = deps.keyType
    this.#log = deps.log
    this.#ticker = new Ticker(deps.clock, tick)
  }

  /** Has an SVID at once when the authorities can issue now; else {@link run} gets one when they can. */
  static async open(deps: {
    readonly authorities: Authorities
    readonly clock: Clock
    readonly keyType: KeyType
    readonly log: Log
  }): Promise<ServerSvid> {
    const svid = new ServerSvid(deps)
    await svid.#rotateIfDue()
    return svid
  }

  /** Undefined until the first SVID could be issued. */
  current(): ServerIdentity | undefined {
    return this.#current
  }

  /** Calls back with each new SVID until it is disposed of. `listener` must not throw. */
  onRotate(listener: (identity: ServerIdentity) => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /** Looks every five seconds, and whenever something happens to an authority, whether it is time. */
  async run(signal: AbortSignal): Promise<void> {
    using _events = this.#authorities.onEvent(() => this.#ticker.wake())
    while (!signal.aborted) {
      await this.#ticker.wait(signal)
      if (!signal.aborted) await this.#rotateIfDue()
    }
  }

  /** The SVID in use stays in use when there is no new one to be had. */
  async #rotateIfDue(): Promise<void> {
    if (!this.#isDue()) return
    try {
      await this.#rotate()
    } catch (error) {
      this.#log.error({ error }, 'cannot issue the SVID of the server, will try again')
    }
  }

  #isDue(): boolean {
    if (this.#current === undefined) return true
    const nowSeconds = this.#nowSeconds()
    if (shouldRotate({ ...this.#current, nowSeconds, fraction: 0.5 })) return true
    return this.#current.certificates.some((der) => {
      const { authorityKeyId } = parseCertificate(der)
      return authorityKeyId !== undefined && this.#authorities.isTainted(authorityKeyId)
    })
  }

  async #rotate(): Promise<void> {
    const { privateKey, publicKey } = await generateKeyPair(this.#keyType)
    const issuedAtSeconds = this.#nowSeconds()
    const issued = await this.#authorities.certificateAuthority.issueServerX509Svid(publicKey)
    const { certificates, authorityId, expiresAtSeconds, serialNumber, spiffeId } = issued
    this.#current = { privateKey, certificates, authorityId, issuedAtSeconds, expiresAtSeconds }
    this.#log.info({ spiffeId, serialNumber, expiresAtSeconds }, 'the server has a new SVID')
    for (const listener of this.#listeners) listener(this.#current)
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.now().epochMilliseconds / 1000)
  }
}
