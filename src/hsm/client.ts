import { Backoff } from '#base/backoff.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { Deadlines } from './deadlines.ts'
import type { HsmKeyType } from './key-type.ts'
import { type HsmKey, KnownKey } from './known-key.ts'
import { KnownKeys } from './known-keys.ts'
import { PinMemory } from './pin-memory.ts'
import type { PinRefusals } from './pin-refusals.ts'
import {
  encodeMessage,
  encodeSealRequest,
  frameKind,
  type KeyDescription,
  type OpenRequest,
  parseKeyDescription,
  type SignerEvent,
} from './protocol.ts'
import type { SignerEnd, SignerStart } from './signer-link.ts'
import { SignerProcess } from './signer-process.ts'
import { SignerWatch } from './signer-watch.ts'
import { lookEveryMs } from './silence.ts'

const generateLimitMs = 120_000
const openLimitMs = 10_000
/** After so many signer processes in a row that died while the PIN was being sent, it may have been the PIN. */
const maxDeadLogins = 2
/** After so many calls in a row that got only wrong signatures, a key is not asked any more. */
const maxWrongInARow = 3
const lookInterval = Temporal.Duration.from({ milliseconds: lookEveryMs })
const parkedInterval = Temporal.Duration.from({ seconds: 1 })

/** What an {@link HsmClient} is made of. */
export interface HsmClientOptions {
  readonly signer: SignerStart
  readonly open: Omit<OpenRequest, 'spendFinalTry'>
  /** How long the HSM may take over one signature before its process is ended, in milliseconds. */
  readonly signLimitMs: number
  /** How often a key that nobody signs with is asked for a signature. */
  readonly keyProbeInterval: Temporal.Duration
  readonly clock: Clock
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  /** Where a refused PIN is remembered over restarts, if anywhere. */
  readonly refusals: PinRefusals | undefined
  /** Called with the seconds each signature took, from being asked for to being had. Must not throw. */
  readonly onSignature?: (seconds: number) => void
  readonly random: Random
  readonly log: Log
}

/** Whether the HSM signs, and why not. `refused`: nothing is tried until {@link HsmClient.resume}. */
export interface HsmStatus {
  readonly state: 'ok' | 'degraded' | 'down' | 'refused'
  readonly detail: string
}

/** Counted since the client was opened. */
export interface HsmCounters {
  /** Signatures released. */
  signatures: number
  /** Signatures that did not verify, and were not released. */
  wrongSignatures: number
  /** Signer processes started. */
  processes: number
  /** Times the token was opened anew after it had been open. */
  recoveries: number
}

/**
 * Keeps a signer process running and a token open, and signs through them. No signature leaves that was not
 * verified here, in another process than the one that made it. While the token is away every call fails at
 * once; nothing waits for it to return but this.
 */
export class HsmClient implements AsyncDisposable {
  readonly counters: HsmCounters = {
    signatures: 0,
    wrongSignatures: 0,
    processes: 0,
    recoveries: 0,
  }
  readonly #options: HsmClientOptions
  readonly #deadlines: Deadlines
  readonly #backoff: Backoff
  readonly #stop = new AbortController()
  readonly #stopDeadlines = new AbortController()
  readonly #keys: KnownKeys
  readonly #pinMemory: PinMemory
  readonly #listeners = new Set<(status: HsmStatus) => void>()
  readonly #opened = Promise.withResolvers<void>()
  /** An operator's word that ends the state `refused`. */
  #resumed = Promise.withResolvers<void>()
  /** What came of it. */
  #resumption = Promise.withResolvers<void>()
  #status: HsmStatus = { state: 'down', detail: 'the hsm is being opened' }
  #changedAt: Temporal.Instant
  #token: { readonly label: string; readonly serial: string; readonly model: string }
  #process: SignerProcess | undefined
  /** The same, while its token is open and its keys are checked. */
  #signer: SignerProcess | undefined
  /** How long the fastest signature took when the token was opened, and nobody else asked. */
  #usualSigningMs = 0
  /** Why its answers are taken to be overdue, while they are. */
  #silence: string | undefined
  #lastEvent: SignerEvent | undefined
  #cancelOpenLimit: (() => void) | undefined
  #hasOpened = false
  /** Nothing is tried until an operator says so. */
  #isRefused = false
  /** An operator has said so, and waits for what comes of it. */
  #isResuming = false
  #deadLogins = 0
  /** Of the PIN that was last sent. */
  #pinVersion = ''
  #running: Promise<unknown> = Promise.resolve()

  /**
   * Resolves once it is known how the token is: open, with every key on it having signed a challenge, or away, or
   * refusing the PIN. The last two are no failure, since either may end while this runs.
   *
   * @throws AssayError `failed-precondition` when somebody has to put something right first: the module cannot be
   * loaded, the PIN cannot be read, or several tokens have the label.
   */
  static async open(options: HsmClientOptions): Promise<HsmClient> {
    const client = new HsmClient(options)
    client.#running = Promise.all([
      client.#supervise(),
      client.#watch(),
      client.#repeat(options.keyProbeInterval, (signer) => client.#probeKeys(signer)),
      client.#repeat(parkedInterval, (signer) => client.#tryParkedKeys(signer)),
    ])
    try {
      await client.#opened.promise
      return client
    } catch (error) {
      await client[Symbol.asyncDispose]()
      throw error
    }
  }

  private constructor(options: HsmClientOptions) {
    this.#options = options
    this.#keys = new KnownKeys(options.log)
    this.#pinMemory = new PinMemory(options.refusals, options.log)
    this.#changedAt = options.clock.now()
    const { tokenLabel: label, tokenSerial: serial = '' } = options.open
    this.#token = { label, serial, model: '' }
    this.#deadlines = new Deadlines(options.clock, this.#stopDeadlines.signal)
    this.#backoff = new Backoff({
      first: Temporal.Duration.from({ milliseconds: 500 }),
      // A fresh process is a quarter of a second's work; the HSM may be back at any moment.
      longest: Temporal.Duration.from({ milliseconds: 1200 }),
      random: options.random,
    })
    // Nobody need wait for these.
    this.#opened.promise.catch(() => undefined)
    this.#resumption.promise.catch(() => undefined)
  }

  get status(): HsmStatus {
    return this.#status
  }

  /** Whether the keys of the token are known: it has been open, and what it lacked then it does not have. */
  get hasOpened(): boolean {
    return this.#hasOpened
  }

  /** Whether {@link sign} would ask the token, and not refuse at once. */
  canSign(key: HsmKey): boolean {
    const isLive = this.#signer !== undefined && this.#silence === undefined
    return isLive && this.#keys.byLabel.get(key.label)?.ref !== undefined
  }

  /** Whether the token is open, though keys on it may not sign. */
  get isOpen(): boolean {
    return this.#signer !== undefined
  }

  /** When the state last became another one. */
  get changedAt(): Temporal.Instant {
    return this.#changedAt
  }

  /** Signatures that are being waited for. */
  get inFlight(): number {
    return this.#process?.ledger(frameKind.sign).owed ?? 0
  }

  /** The token that was last opened, or before that, what is known of it. */
  get token(): { readonly label: string; readonly serial: string; readonly model: string } {
    return this.#token
  }

  /** The signer's process, while there is one that we started. */
  get pid(): number | undefined {
    return this.#process?.pid
  }

  /** Every key of ours, by label: those the token had when it was last opened, and those made since. */
  get keys(): ReadonlyMap<string, HsmKey> {
    return this.#keys.byLabel
  }

  /** Calls back at each change of {@link status}. */
  onStatus(listener: (status: HsmStatus) => void): Disposable {
    this.#listeners.add(listener)
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) }
  }

  /**
   * Signs `given` with the key's one scheme, and verifies the signature. A wrong one is asked for once
   * more, in another session.
   *
   * @throws AssayError `unavailable`, at once while the HSM is away.
   */
  async sign(key: HsmKey, given: Uint8Array): Promise<Uint8Array> {
    const known = this.#known(key)
    const message = new Uint8Array(given)
    for (let attempt = 1; attempt <= 2; attempt++) {
      const { process, ref } = this.#signingWith(known)
      const signature = await this.#signOnce(known, { message, process, ref })
      if (signature !== undefined) {
        this.counters.signatures++
        known.isProven = true
        if (known.wrongInARow > 0) this.#clearFault(known)
        return signature
      }
      this.counters.wrongSignatures++
      this.#options.log.error({ key: known.label, attempt }, 'hsm made a wrong signature')
    }
    known.fault = 'its last signatures were wrong'
    known.wrongInARow++
    if (known.wrongInARow >= maxWrongInARow) known.park()
    this.#judge()
    throw new AssayError('unavailable', `cannot sign with ${known.label}: the hsm signs wrongly`, {
      reason: 'hsm-wrong-signature',
    })
  }

  /**
   * Makes a key pair on the token and has it sign a challenge.
   *
   * @throws AssayError `already-exists` when anything on the token has that label.
   */
  async generateKey(label: string, type: HsmKeyType): Promise<HsmKey> {
    const process = this.#live()
    const opening = this.#lastEvent
    const body = encodeMessage({ label, type })
    const made = parseKeyDescription(
      await process.request(frameKind.generate, generateLimitMs, body),
    )
    const key = new KnownKey(made)
    if (key.label !== label || key.type !== type) {
      throw new AssayError(
        'internal',
        `asked for ${type} key ${label}, got ${key.type} ${key.label}`,
      )
    }
    const fault = await this.#challenge(key, { process, ref: made.ref })
    if (fault !== undefined) {
      throw new AssayError('unavailable', `cannot use new key ${label}: ${fault}`)
    }
    if (this.#signer !== process || this.#lastEvent !== opening) {
      throw new AssayError(
        'unavailable',
        `made key ${label}, but the hsm was lost: ${this.#status.detail}`,
      )
    }
    key.ref = made.ref
    this.#keys.byLabel.set(label, key)
    return key
  }

  /**
   * Encrypts `data` with a secret key of the token that is made under `label` when it is not there. `context` is what
   * it is bound to.
   *
   * @throws AssayError `unimplemented` when the token cannot; `unavailable`, at once while the HSM is away.
   */
  async seal(
    label: string,
    of: { readonly context: Uint8Array; readonly data: Uint8Array },
  ): Promise<Uint8Array> {
    const process = this.#live()
    const body = encodeSealRequest({ label, ...of })
    return Uint8Array.from(await process.request(frameKind.seal, generateLimitMs, body))
  }

  /**
   * The reverse of {@link seal}.
   *
   * @throws AssayError `failed-precondition` when another key sealed it, it was bound to something else, or it was changed.
   */
  async unseal(
    label: string,
    of: { readonly context: Uint8Array; readonly data: Uint8Array },
  ): Promise<Uint8Array> {
    const process = this.#live()
    const body = encodeSealRequest({ label, ...of })
    return Uint8Array.from(await process.request(frameKind.unseal, generateLimitMs, body))
  }

  /** Destroys whatever on the token has that label; with a CKA_ID, only what has that too. */
  async destroyKey(label: string, id?: Uint8Array): Promise<void> {
    const process = this.#live()
    await process.request(frameKind.destroy, generateLimitMs, encodeMessage({ label, id }))
    this.#keys.byLabel.delete(label)
    this.#judge()
  }

  /**
   * Tries the PIN again, once, after it was refused. Does nothing in any other state.
   *
   * @throws AssayError `failed-precondition` when it is refused again; `unavailable` when it could not be
   * tried now: it will be, once.
   */
  async resume(): Promise<void> {
    if (this.#status.state === 'refused') {
      this.#set({ state: 'down', detail: 'the PIN is being tried again' })
      this.#isResuming = true
      this.#resumed.resolve()
    }
    if (this.#isResuming) await this.#resumption.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lose('the hsm client is closed')
    this.#stop.abort()
    this.#resumed.resolve()
    await this.#process?.close()
    await this.#running
    await this.#pinMemory.written()
    this.#stopDeadlines.abort()
  }

  /** One process after the other, until disposed. */
  async #supervise(): Promise<void> {
    const refused = await this.#pinMemory.earlierRefusal(this.#options.open)
    if (refused !== undefined) this.#refuse(`${refused}, at an earlier try`)
    while (!this.#stop.signal.aborted) {
      const spendFinalTry = this.#isRefused
      if (this.#isRefused) await this.#resumed.promise
      this.#isRefused = false
      if (this.#stop.signal.aborted) return
      const { why, needsOperator } = await this.#runProcess(spendFinalTry)
      if (this.#stop.signal.aborted) return
      if (this.#deadLogins >= maxDeadLogins) {
        this.#deadLogins = 0
        this.#rememberRefusal(why)
        this.#refuse(`${why} while the PIN was being sent`)
      }
      if (this.#isRefused) continue
      // A signer that gave up waiting for its token has not crashed: look again soon.
      if (this.#lastEvent?.state === 'absent') this.#backoff.reset()
      this.#lose(why, needsOperator)
      try {
        await this.#options.clock.sleep(this.#backoff.next(), this.#stop.signal)
      } catch {
        return // disposed
      }
    }
  }

  /** One life of the signer; resolves with how it ended. */
  async #runProcess(spendFinalTry: boolean): Promise<SignerEnd> {
    const { signer: start, open, log } = this.#options
    const process: SignerProcess = new SignerProcess({
      start,
      // A signature takes one of libuv's threads for as long as the token works, and so does making a key.
      poolThreads: open.sessions + 1,
      deadlines: this.#deadlines,
      log,
      onEvent: (event) => this.#heed(process, event),
    })
    this.#take(process)
    process.tell(frameKind.open, encodeMessage({ ...open, spendFinalTry }))
    this.#limitOpening(process)
    const end = await process.ended
    // A token that does not answer has not refused anything; a module that dies may have been told that it does.
    if (this.#lastEvent?.state === 'logging-in' && !process.wasEnded) this.#deadLogins++
    this.#cancelOpenLimit?.()
    if (this.#process === process) this.#process = undefined
    return end
  }

  #take(process: SignerProcess): void {
    this.#process = process
    this.#lastEvent = undefined
    this.counters.processes++
  }

  #heed(process: SignerProcess, event: SignerEvent): void {
    if (this.#process !== process) return
    this.#lastEvent = event
    switch (event.state) {
      case 'logging-in':
        this.#pinVersion = event.pinVersion
        return
      case 'ready':
        this.#deadLogins = 0
        void this.#admit(process, event)
        return
      case 'recovering':
      case 'absent':
        this.#limitOpening(process)
        this.#lose(event.detail, event.state === 'absent' && event.needsOperator)
        return
      case 'refused':
        if (event.wasSent) this.#rememberRefusal(event.detail)
        this.#refuse(event.detail)
    }
  }

  #rememberRefusal(detail: string): void {
    this.#pinMemory.refused({ ...this.#options.open, version: this.#pinVersion }, detail)
  }

  #refuse(why: string): void {
    const detail = `${why}; nothing is tried until an operator resumes`
    const refusal = new AssayError('failed-precondition', `the hsm refused the PIN: ${detail}`, {
      reason: 'hsm-pin-refused',
    })
    this.#isRefused = true
    this.#isResuming = false
    this.#voidKeys()
    this.#opened.resolve()
    this.#resumption.reject(refusal)
    this.#resumption = Promise.withResolvers()
    this.#resumption.promise.catch(() => undefined)
    this.#resumed = Promise.withResolvers()
    this.#set({ state: 'refused', detail })
  }

  /** Opening, and each try at it, must come to something within ten seconds. */
  #limitOpening(process: SignerProcess): void {
    this.#cancelOpenLimit?.()
    this.#cancelOpenLimit = this.#deadlines.start(openLimitMs, () =>
      process.kill(`the token did not open within ${openLimitMs} ms`),
    )
  }

  #lose(why: string, needsOperator = false): void {
    this.#voidKeys()
    this.#set({ state: 'down', detail: why })
    const code = needsOperator ? 'failed-precondition' : 'unavailable'
    const error = new AssayError(code, `cannot open the hsm: ${why}`)
    if (needsOperator) this.#opened.reject(error)
    else this.#opened.resolve()
    this.#isResuming = false
    this.#resumption.reject(error)
  }

  #voidKeys(): void {
    this.#signer = undefined
    this.#silence = undefined
    this.#keys.voidAll()
  }

  /** The token is open: are these the keys we know, and do they sign? Only then do we. */
  async #admit(process: SignerProcess, event: SignerEvent & { state: 'ready' }): Promise<void> {
    try {
      const isOurToken = event.token.serial === this.#token.serial
      const described = this.#keys.meet({ ...event, isOurToken })
      const checks = await Promise.all(
        this.#keys.all.map((key) => this.#check(process, key, described.get(key.label))),
      )
      if (this.#process !== process || this.#lastEvent !== event) return
      this.#cancelOpenLimit?.()
      const times = checks.flatMap(({ tookMs }) => (tookMs === undefined ? [] : [tookMs]))
      this.#usualSigningMs = times.length === 0 ? 0 : Math.min(...times)
      for (const { key, ref, fault } of checks) {
        key.ref = ref
        key.fault = fault
        key.wrongInARow = 0
        if (fault !== undefined) key.park()
      }
    } catch (error) {
      process.kill(`the signer broke the protocol: ${messageOf(error)}`)
      return
    }
    this.#signer = process
    this.#token = event.token
    this.#pinMemory.taken()
    if (this.#hasOpened) this.counters.recoveries++
    this.#hasOpened = true
    this.#judge()
    this.#opened.resolve()
    this.#isResuming = false
    this.#resumption.resolve()
  }

  async #check(
    process: SignerProcess,
    key: KnownKey,
    described: KeyDescription | undefined,
  ): Promise<Check> {
    if (described === undefined) return { key, ref: undefined, fault: 'it is not on the token' }
    const { ref } = described
    if (!key.isSameAs(described)) {
      return { key, ref: undefined, fault: 'the token has another key of that name' }
    }
    const startedMs = this.#options.monotonicMs()
    const fault = await this.#challenge(key, { process, ref }).catch(messageOf)
    return { key, ref, fault, tookMs: this.#options.monotonicMs() - startedMs }
  }

  /** Why the key does not sign, or undefined when it does. */
  async #challenge(
    key: KnownKey,
    using: { readonly process: SignerProcess; readonly ref: number },
  ): Promise<string | undefined> {
    for (let attempt = 1; attempt <= 2; attempt++) {
      const message = this.#options.random.bytes(32)
      if ((await this.#signOnce(key, { ...using, message })) !== undefined) return undefined
      this.counters.wrongSignatures++
    }
    return 'its signature over a challenge does not verify'
  }

  async #signOnce(
    key: KnownKey,
    { process, ref, message }: { process: SignerProcess; ref: number; message: Uint8Array },
  ): Promise<Uint8Array | undefined> {
    const digest = key.digest(message)
    const reference = new Uint8Array(4)
    new DataView(reference.buffer).setUint32(0, ref)
    const { monotonicMs, onSignature, signLimitMs } = this.#options
    const startedMs = monotonicMs()
    const signature = await process
      .request(frameKind.sign, signLimitMs, reference, digest)
      .catch(throwUnavailable)
    onSignature?.((monotonicMs() - startedMs) / 1000)
    return key.hasSigned(message, signature) ? signature : undefined
  }

  #known(key: HsmKey): KnownKey {
    const known = this.#keys.byLabel.get(key.label)
    if (known === key) return known
    throw new AssayError('unavailable', `cannot sign with ${key.label}: the key is gone`)
  }

  #signingWith(key: KnownKey): { process: SignerProcess; ref: number } {
    const process = this.#live()
    if (key.ref === undefined) {
      throw new AssayError(
        'unavailable',
        `cannot sign with ${key.label}: ${key.fault ?? 'not ready'}`,
      )
    }
    return { process, ref: key.ref }
  }

  /** @throws AssayError `unavailable` unless the token is open. */
  #live(): SignerProcess {
    if (this.#signer !== undefined && this.#silence === undefined) return this.#signer
    throw new AssayError('unavailable', `hsm is ${this.#status.state}: ${this.#status.detail}`)
  }

  #clearFault(key: KnownKey): void {
    key.fault = undefined
    key.wrongInARow = 0
    this.#judge()
  }

  /** What the keys' states come to, while the token is open. */
  #judge(): void {
    if (this.#silence !== undefined) {
      this.#set({ state: 'down', detail: this.#silence })
      return
    }
    const detail = this.#keys.faults
    if (detail === '') {
      this.#set({ state: 'ok', detail })
      return
    }
    const some = this.#keys.all.some((key) => key.ref !== undefined)
    this.#set({ state: some ? 'degraded' : 'down', detail })
  }

  #set(status: HsmStatus): void {
    if (status.state === this.#status.state && status.detail === this.#status.detail) return
    if (status.state !== this.#status.state) this.#changedAt = this.#options.clock.now()
    this.#status = status
    for (const listener of this.#listeners) listener(status)
  }

  /** Notices within a second that the signer does not answer, or that the token has gone. */
  async #watch(): Promise<void> {
    let watch: SignerWatch | undefined
    await this.#repeat(lookInterval, async (signer) => {
      if (watch?.signer !== signer) {
        watch = new SignerWatch(signer, {
          usualSigningMs: this.#usualSigningMs,
          monotonicMs: this.#options.monotonicMs,
          probe: () => this.#probe(signer),
        })
      }
      const silence = watch.look()
      if ((silence === undefined) === (this.#silence === undefined)) return
      this.#silence = silence
      this.#judge()
    })
  }

  async #probe(signer: SignerProcess): Promise<void> {
    try {
      await signer.request(frameKind.probe, this.#options.signLimitMs)
    } catch (error) {
      this.#options.log.warn({ error }, 'hsm does not answer a probe')
    }
  }

  /** Does that every `interval` while a token is open, until disposed. */
  async #repeat(
    interval: Temporal.Duration,
    work: (signer: SignerProcess) => Promise<void>,
  ): Promise<void> {
    for (;;) {
      try {
        await this.#options.clock.sleep(interval, this.#stop.signal)
      } catch {
        return // disposed
      }
      if (this.#signer === undefined) continue
      try {
        await work(this.#signer)
      } catch (error) {
        this.#options.log.warn({ error }, 'hsm does not answer a probe')
      }
    }
  }

  /** Asks every key for a signature that has made none since the last time. */
  async #probeKeys(signer: SignerProcess): Promise<void> {
    const keys = this.#keys.all
    const usable = keys.filter((key) => key.ref !== undefined)
    // Opening again may help, and costs nobody a signature.
    if (keys.length > 0 && usable.length === 0) return signer.tell(frameKind.reopen)
    for (const key of usable) {
      if (!key.isProven) await this.sign(key, this.#options.random.bytes(32))
    }
    for (const key of keys) key.isProven = false
    if (this.#signer !== undefined) this.#backoff.reset()
  }

  /** A key that signed wrongly is used again once it signs a challenge. */
  async #tryParkedKeys(process: SignerProcess): Promise<void> {
    for (const key of this.#keys.byLabel.values()) {
      const ref = key.parkedRef
      if (ref === undefined || this.#silence !== undefined) continue
      const fault = await this.#challenge(key, { process, ref })
      if (fault !== undefined || key.parkedRef !== ref) continue
      key.parkedRef = undefined
      key.ref = ref
      this.#options.log.info({ key: key.label }, 'hsm key signs again')
      this.#clearFault(key)
    }
  }
}

/** What came of asking a key for a signature when the token was opened. */
interface Check {
  readonly key: KnownKey
  readonly ref: number | undefined
  readonly fault: string | undefined
  /** Absent when it was not asked. */
  readonly tookMs?: number
}

/** To a caller who wants a signature every reason there is none is the same. */
function throwUnavailable(error: unknown): never {
  throw new AssayError('unavailable', messageOf(error), { cause: error })
}
