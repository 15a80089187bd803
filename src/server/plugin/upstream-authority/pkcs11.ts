import { equalBytes } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { HsmClient, type HsmClientOptions } from '#hsm/client.ts'
import { credentialPath, signerEnvironment } from '#hsm/environment.ts'
import type { HsmKey } from '#hsm/known-key.ts'
import { pinRefused } from '#hsm/open-token.ts'
import { PinRefusals } from '#hsm/pin-refusals.ts'
import { ownSigner } from '#hsm/signer-command.ts'
import { type Certificate, describe } from '#pki/certificate.ts'
import { rawToDerSignature } from '#pki/ecdsa.ts'
import type { TrustDomain } from '#spiffe/trust-domain.ts'
import type { UpstreamAuthority, UpstreamCa } from './upstream-authority.ts'
import { loadUpstreamCertificates, type UpstreamFiles, unusable } from './upstream-files.ts'

/** What a server's `upstream_authority: { pkcs11: … }` comes to. */
export interface Pkcs11UpstreamOptions extends UpstreamFiles {
  /** Path of the PKCS#11 shared object. */
  readonly module: string
  /** CKA_LABEL of the token, without its padding. */
  readonly tokenLabel: string
  /** Needed only where several tokens have that label. */
  readonly tokenSerial: string | undefined
  /** File that holds the user PIN. Default: the credential `upstream-hsm-pin` that systemd passes. */
  readonly pinFile: string | undefined
  /** File in which it is remembered that the PIN was refused. Undefined: that is forgotten with this process. */
  readonly refusalFile: string | undefined
  /** CKA_LABEL of the CA's key pair. */
  readonly keyLabel: string
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  /** Where assay-signer waits as a service of its own. Default: it is started here. */
  readonly signerSocketPath: string | undefined
  /** Variables for the module, beside the well-known ones which are passed on from this process. */
  readonly environment?: Readonly<Record<string, string>>
}

const signLimitMs = 30_000
/** A CA's key that signs nothing is seldom asked to prove itself: some HSMs keep an account of each use. */
const keyProbeInterval = Temporal.Duration.from({ hours: 1 })

/**
 * A CA whose key is in an HSM, with a signer process of its own. A token that cannot be opened is tried again at the
 * next signature; a PIN that was refused is not until {@link resume}, because tokens lock.
 */
export class Pkcs11Upstream implements UpstreamAuthority {
  readonly #options: Pkcs11UpstreamOptions
  readonly #refusals: PinRefusals | undefined
  /** A client stays when its token has refused the PIN, so that nothing but an operator has it tried again. */
  #opening: Promise<HsmClient> | undefined
  #client: HsmClient | undefined
  #earlierRefusal: string | undefined

  constructor(options: Pkcs11UpstreamOptions) {
    this.#options = options
    const { refusalFile, random } = options
    this.#refusals = refusalFile === undefined ? undefined : new PinRefusals(refusalFile, random)
  }

  get where(): string {
    const { tokenLabel, keyLabel } = this.#options
    return `pkcs11 token "${tokenLabel}" key "${keyLabel}"`
  }

  async current(): Promise<UpstreamCa> {
    const { trustDomain, clock } = this.#options
    const nowSeconds = Math.floor(clock.now().epochMilliseconds / 1000)
    const certificates = await loadUpstreamCertificates(this.#options, { trustDomain, nowSeconds })
    const [ca] = certificates.path
    if (this.#client === undefined) this.#earlierRefusal = await this.#findRefusal()
    return { ...certificates, sign: (toBeSigned) => this.#sign(ca, toBeSigned) }
  }

  get refusal(): string | undefined {
    if (this.#client === undefined) return this.#earlierRefusal
    const { state, detail } = this.#client.status
    return state === 'refused' ? detail : undefined
  }

  async resume(): Promise<void> {
    if (this.#client === undefined && (await this.#findRefusal()) === undefined) return
    const client = await this.#held()
    await client.resume()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }

  async #sign(ca: Certificate, toBeSigned: Uint8Array): Promise<Uint8Array> {
    const client = await this.#open()
    const { certFilePath, keyLabel } = this.#options
    const key = client.keys.get(keyLabel)
    if (key === undefined) {
      const found = [...client.keys.keys()].join(', ') || 'no usable key of such a name'
      // What a ceremony puts there later is found by opening the token again.
      await this.#close()
      throw new AssayError(
        'failed-precondition',
        `cannot use the upstream authority: ${this.where} is not there, only: ${found}`,
        { reason: 'upstream-unusable' },
      )
    }
    if (!equalBytes(publicKeyOf(key), ca.publicKey)) {
      throw unusable(certFilePath, new RangeError(`${describe(ca)} is not for the ${this.where}`))
    }
    const signature = await client.sign(key, toBeSigned)
    return key.type === 'ec-p256' || key.type === 'ec-p384'
      ? rawToDerSignature(signature)
      : signature
  }

  /** @throws AssayError `failed-precondition`, reason `hsm-pin-refused`, when nothing is tried until {@link resume}. */
  async #open(): Promise<HsmClient> {
    const client = await this.#held()
    const { state, detail } = client.status
    if (state === 'refused') throw pinRefused(detail)
    if (client.hasOpened) return client
    await this.#close()
    throw new AssayError('unavailable', `cannot open the hsm: ${detail}`)
  }

  /** The client that is there, whatever it has come to, or else a new one. */
  async #held(): Promise<HsmClient> {
    this.#opening ??= this.#openAnew()
    try {
      this.#client = await this.#opening
      return this.#client
    } catch (error) {
      this.#opening = undefined
      throw error
    }
  }

  async #close(): Promise<void> {
    const client = await this.#opening?.catch(() => undefined)
    this.#opening = undefined
    this.#client = undefined
    await client?.[Symbol.asyncDispose]()
  }

  async #openAnew(): Promise<HsmClient> {
    const { signerSocketPath: service, environment } = this.#options
    const { monotonicMs, clock, random, log } = this.#options
    const open = this.#request
    if (open === undefined) {
      throw new AssayError(
        'failed-precondition',
        'cannot open the hsm of the upstream authority: no pin_file is set and systemd passes no credential upstream-hsm-pin',
      )
    }
    return await HsmClient.open({
      signer:
        service === undefined
          ? { command: ownSigner(), environment: { ...signerEnvironment(), ...environment } }
          : { socketPath: service },
      open,
      signLimitMs,
      keyProbeInterval,
      refusals: this.#refusals,
      monotonicMs,
      clock,
      random,
      log,
    })
  }

  /** How the token is opened; undefined: there is no PIN. */
  get #request(): HsmClientOptions['open'] | undefined {
    const { signerSocketPath: service, module, tokenLabel, tokenSerial, keyLabel } = this.#options
    const pinFile =
      this.#options.pinFile ?? (service === undefined ? credentialPath('upstream-hsm-pin') : '')
    if (pinFile === undefined) return undefined
    return {
      module,
      tokenLabel,
      tokenSerial,
      pinFile,
      pinIsCredential: this.#options.pinFile === undefined,
      labelPrefix: keyLabel,
      sessions: 1,
    }
  }

  /** What the token said to this PIN before this process was started. */
  async #findRefusal(): Promise<string | undefined> {
    const request = this.#request
    return request && (await this.#refusals?.find(request))
  }
}

const publicKeyOf = ({ publicKey }: HsmKey): Uint8Array =>
  new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
