import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import { parseCertificate } from '#pki/certificate.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { ServerTrust } from '../server-client/server-trust.ts'
import type { AgentStorage } from '../storage/agent-storage.ts'
import { type BootstrapSource, loadBootstrapBundle } from './trust-bundle.ts'

export interface TrustAnchorOptions {
  readonly trustDomain: TrustDomain
  /** How the server is trusted at the first contact. */
  readonly source: BootstrapSource
  readonly storage: AgentStorage
  readonly clock: Clock
  readonly log: Log
}

/**
 * What the server is recognised by: the bundle that it last sent, kept over restarts, and what the operator gave for
 * the first contact. That is used again only when every authority of the kept bundle has expired, as after a long
 * power-off: otherwise an authority that was revoked since would be believed again.
 */
export class TrustAnchor {
  readonly #options: TrustAnchorOptions
  #source: BootstrapSource
  #trust: ServerTrust | undefined
  /** The server itself has sent what we trust. */
  #isLearnt = false
  /** What the operator gave is to be read anew. */
  #isStale = false
  #saving: Promise<void> = Promise.resolve()

  constructor(options: TrustAnchorOptions) {
    this.#options = options
    this.#source = options.source
  }

  /** What to verify a server with. @throws AssayError before the first {@link prepare}. */
  get trust(): ServerTrust {
    if (this.#trust === undefined) {
      throw new AssayError('failed-precondition', 'no trust bundle has been read yet')
    }
    return this.#trust
  }

  /** Makes sure that there is something to recognise the server by. */
  async prepare(signal: AbortSignal): Promise<void> {
    const isCurrent = this.#isLearnt || !this.#isStale
    if (isCurrent && this.#trust?.kind === 'bundle' && this.#isAlive(this.#trust.bundle)) return
    this.#isStale = false
    const kept = await this.#loadKept()
    if (kept !== undefined && this.#isAlive(kept)) {
      this.#trust = { kind: 'bundle', bundle: kept }
      return
    }
    const { trustDomain, log } = this.#options
    const source = this.#source
    if (kept !== undefined) {
      log.warn(
        {},
        'every authority of the kept bundle has expired; the server is recognised as at the first contact. If it was not off for long, check the clock of this node',
      )
    }
    if (source.kind === 'insecure') {
      log.warn({}, 'insecure_bootstrap: whoever answers now becomes the trust anchor of this node')
      this.#trust = { kind: 'insecure' }
      return
    }
    this.#trust = {
      kind: 'bundle',
      bundle: await loadBootstrapBundle(source, trustDomain, signal),
    }
  }

  /**
   * The operator may have given another bundle: the next first contact goes by it. What the server has sent itself
   * counts on, or an authority that was revoked since could be believed again.
   */
  readAgain(source: BootstrapSource): void {
    this.#source = source
    this.#isStale = true
  }

  /** The server has sent its bundle: from now on this one counts. */
  learn(bundle: Bundle): void {
    this.#isLearnt = true
    this.#trust = { kind: 'bundle', bundle }
    this.#saving = this.#saving.then(() => this.#save(bundle))
  }

  /** Returns when what was learnt is on disk, or could not be written. */
  async saved(): Promise<void> {
    await this.#saving
  }

  async #save(bundle: Bundle): Promise<void> {
    try {
      await this.#options.storage.saveBundle(bundle)
    } catch (error) {
      this.#options.log.error(
        { error: messageOf(error) },
        'cannot keep the bundle; after a restart the server is recognised by an older one',
      )
    }
  }

  async #loadKept(): Promise<Bundle | undefined> {
    const { storage, trustDomain, log } = this.#options
    try {
      return await storage.loadBundle(trustDomain)
    } catch (error) {
      log.error({ error: messageOf(error) }, 'the kept bundle is damaged and is passed over')
      return undefined
    }
  }

  #isAlive(bundle: Bundle): boolean {
    const nowSeconds = this.#options.clock.now().epochMilliseconds / 1000
    return bundle.x509Authorities.some(
      ({ certificate }) => parseCertificate(certificate).notAfterSeconds > nowSeconds,
    )
  }
}
