import { utf8Bytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { HsmClient, type HsmCounters } from '#hsm/client.ts'
import { credentialPath, signerEnvironment } from '#hsm/environment.ts'
import type { HsmKey } from '#hsm/known-key.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import { PinRefusals } from '#hsm/pin-refusals.ts'
import { ownSigner } from '#hsm/signer-command.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import { verifyKeyId } from './key-id.ts'
import type {
  HsmActivity,
  KeyManager,
  KeyManagerStatus,
  KeyPlace,
  KeyType,
  Sealer,
  SigningKey,
} from './key-manager.ts'
import { firstOpened, splitSealed } from './sealed-parts.ts'

/** What a server's `key_manager: { pkcs11: … }` comes to. */
export interface Pkcs11Options {
  /** Path of the PKCS#11 shared object, such as `/usr/lib/softhsm/libsofthsm2.so`. */
  readonly module: string
  /** CKA_LABEL of the token, without its padding. Slot numbers are never used: they change by themselves. */
  readonly tokenLabel: string
  /** Needed only where several tokens have that label. */
  readonly tokenSerial?: string | undefined
  /** Further what the token has to be, where given. */
  readonly tokenModel?: string | undefined
  readonly tokenManufacturer?: string | undefined
  /**
   * File that holds the user PIN, readable by its owner alone. Default: the credential `hsm-pin` that systemd
   * passes (`LoadCredentialEncrypted=hsm-pin:…`).
   */
  readonly pinFile?: string | undefined
  /** Another name of that credential. */
  readonly pinCredential?: string
  /** Names the token in metrics. Default: its label. */
  readonly name?: string
  /** Keys of other trust domains on the same token are not seen. */
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  readonly random: Random
  readonly log: Log
  /** Program and arguments of the signer. Default: the one in this source tree, run by this Node. */
  readonly signerCommand?: readonly string[]
  /**
   * Where assay-signer waits as a service of its own, which has this token in its configuration and reads the PIN
   * itself. Default: it is started here.
   */
  readonly signerSocketPath?: string | undefined
  /** Variables for the module, beside the well-known ones which are passed on from this process. */
  readonly environment?: Readonly<Record<string, string>>
  /** File in which it is remembered that a PIN was refused. Default: that is forgotten with this process. */
  readonly refusalFile?: string
  /** Called with the seconds each signature took. Must not throw. */
  readonly onSignature?: (seconds: number) => void
  /** Signatures at a time. Default 4. */
  readonly sessions?: number
  /** How long one signature may take before the signer is replaced. Default 5 s. */
  readonly signTimeout?: Temporal.Duration
  /** How often a key that nobody uses has to sign. Default 10 s. */
  readonly keyProbeInterval?: Temporal.Duration
}

/** The key manager of a token, with what an operator may ask of it. */
export interface Pkcs11KeyManager extends KeyManager {
  readonly counters: Readonly<HsmCounters>
  /** The signer's process, while one runs that was started here. */
  readonly signerPid: number | undefined
  resume(): Promise<void>
  activity(): readonly HsmActivity[]
  place(id: string): KeyPlace | undefined
}

/**
 * Keys that are made in an HSM and never leave it, reached through PKCS#11 in a process of its own. When the
 * token goes away the keys stay known and signing fails at once until it is back, which needs nobody's help.
 * It may be away from the start; a PIN that was refused is not sent again until {@link KeyManager.resume}.
 *
 * @throws AssayError `failed-precondition` when somebody must put something right first: the module cannot be
 * loaded, the PIN cannot be read, or several tokens have the label.
 */
export async function openPkcs11KeyManager(options: Pkcs11Options): Promise<Pkcs11KeyManager> {
  const credential = options.pinCredential ?? 'hsm-pin'
  const service = options.signerSocketPath
  // A service reads the PIN from where its own configuration says.
  const pinFile = options.pinFile ?? (service === undefined ? credentialPath(credential) : '')
  if (pinFile === undefined) {
    throw new AssayError(
      'failed-precondition',
      `cannot open the hsm: no pin_file is set and systemd passes no credential ${credential}`,
    )
  }
  const labelPrefix = labelPrefixOf(options.trustDomain)
  const client = await HsmClient.open({
    signer:
      service === undefined
        ? {
            command: options.signerCommand ?? ownSigner(),
            environment: { ...signerEnvironment(), ...options.environment },
          }
        : { socketPath: service },
    open: {
      module: options.module,
      tokenLabel: options.tokenLabel,
      tokenSerial: options.tokenSerial,
      tokenModel: options.tokenModel,
      tokenManufacturer: options.tokenManufacturer,
      pinFile,
      pinIsCredential: options.pinFile === undefined,
      labelPrefix,
      sessions: options.sessions ?? 4,
    },
    signLimitMs: options.signTimeout?.total('milliseconds') ?? 5000,
    keyProbeInterval: options.keyProbeInterval ?? Temporal.Duration.from({ seconds: 10 }),
    clock: options.clock,
    monotonicMs: options.monotonicMs,
    refusals:
      options.refusalFile === undefined
        ? undefined
        : new PinRefusals(options.refusalFile, options.random),
    ...(options.onSignature && { onSignature: options.onSignature }),
    random: options.random,
    log: options.log,
  })
  return new TokenKeyManager(client, {
    labelPrefix,
    log: options.log,
    name: options.name ?? options.tokenLabel,
  })
}

interface TokenKeyManagerOptions {
  readonly labelPrefix: string
  readonly log: Log
  readonly name: string
}

class TokenKeyManager implements Pkcs11KeyManager {
  readonly #client: HsmClient
  readonly #name: string
  readonly #labelPrefix: string
  readonly #signingKeys = new WeakMap<HsmKey, SigningKey>()
  readonly #logging: Disposable
  readonly sealer: Sealer

  constructor(client: HsmClient, options: TokenKeyManagerOptions) {
    this.#client = client
    this.#name = options.name
    this.#labelPrefix = options.labelPrefix
    const label = `${options.labelPrefix}seal`
    const where = () => this.status().where
    this.sealer = {
      get where() {
        return where()
      },
      seal: (name, data) => client.seal(label, { context: utf8Bytes(name), data }),
      // A token that was one of two opens its part.
      unseal: (name, sealed) =>
        firstOpened(
          splitSealed(sealed).map(
            (data) => () => client.unseal(label, { context: utf8Bytes(name), data }),
          ),
        ),
    }
    const report = ({ state, detail, where }: KeyManagerStatus) => {
      const fields = { state, detail, where, keys: client.keys.size }
      if (state === 'ok') options.log.info(fields, 'hsm is ready')
      else options.log.error(fields, `hsm is ${state}`)
    }
    this.#logging = this.onStatus(report)
    report(this.status())
  }

  get counters(): Readonly<HsmCounters> {
    return this.#client.counters
  }

  get signerPid(): number | undefined {
    return this.#client.pid
  }

  async generateKey(id: string, type: KeyType): Promise<SigningKey> {
    verifyKeyId(id)
    return this.#signingKey(await this.#client.generateKey(this.#labelPrefix + id, type))
  }

  key(id: string): SigningKey | undefined {
    const key = this.#client.keys.get(this.#labelPrefix + id)
    return key && this.#signingKey(key)
  }

  keys(): readonly SigningKey[] {
    return Array.from(this.#client.keys.values(), (key) => this.#signingKey(key))
  }

  async destroyKey(id: string): Promise<void> {
    verifyKeyId(id)
    await this.#client.destroyKey(this.#labelPrefix + id)
  }

  status(): KeyManagerStatus {
    const { label, serial } = this.#client.token
    const where = `pkcs11 token "${label}"${serial === '' ? '' : ` serial ${serial}`}`
    return { ...this.#client.status, where }
  }

  place(id: string): KeyPlace | undefined {
    const key = this.#client.keys.get(this.#labelPrefix + id)
    if (key === undefined && this.#client.hasOpened) return undefined
    const isUp = key !== undefined && this.#client.canSign(key)
    return { where: this.status().where, isUp, isGivenUp: false, hasOther: false }
  }

  activity(): readonly HsmActivity[] {
    const { counters, inFlight, changedAt, status } = this.#client
    return [
      {
        token: this.#name,
        isUp: status.state === 'ok' || status.state === 'degraded',
        changedAtSeconds: changedAt.epochMilliseconds / 1000,
        signatures: counters.signatures,
        wrongSignatures: counters.wrongSignatures,
        signerStarts: counters.processes,
        recoveries: counters.recoveries,
        inFlight,
      },
    ]
  }

  onStatus(listener: (status: KeyManagerStatus) => void): Disposable {
    return this.#client.onStatus(() => listener(this.status()))
  }

  resume(): Promise<void> {
    return this.#client.resume()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#logging[Symbol.dispose]()
    await this.#client[Symbol.asyncDispose]()
  }

  /** The same object each time for the same key. */
  #signingKey(key: HsmKey): SigningKey {
    const known = this.#signingKeys.get(key)
    if (known !== undefined) return known
    const signingKey: SigningKey = {
      id: key.label.slice(this.#labelPrefix.length),
      type: key.type,
      publicKey: key.publicKey,
      sign: (message) => this.#client.sign(key, message),
    }
    this.#signingKeys.set(key, signingKey)
    return signingKey
  }
}
