import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import { silentLog } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { HsmClient } from '#hsm/client.ts'
import { credentialPath, signerEnvironment } from '#hsm/environment.ts'
import type { HsmKey } from '#hsm/known-key.ts'
import { openToken } from '#hsm/open-token.ts'
import { ownSigner } from '#hsm/signer-command.ts'
import { rawToDerSignature } from '#pki/ecdsa.ts'
import type { KeyType } from '#pki/private-key.ts'
import type { TokenSettings } from './ceremony-file.ts'

/** What a ceremony gets from the process it runs in. */
export interface CeremonyDeps {
  readonly clock: Clock
  readonly random: Random
  /** Milliseconds from any fixed point, never going back. */
  readonly monotonicMs: () => number
  /**
   * Asks a person for the PIN of a token; gives a file that holds it until it is disposed of. Undefined: there is
   * nobody to ask.
   */
  readonly askPin: (
    token: string,
  ) => Promise<({ readonly path: string } & AsyncDisposable) | undefined>
}

/** What a token says of a key on it, for the record. */
export interface TokenKeyFacts {
  readonly token: { readonly label: string; readonly serial: string; readonly model: string }
  readonly label: string
  /** CKA_ID, hex. */
  readonly id: string
  /** The six attributes that guard a key, by name, as read from the token. */
  readonly attributes: Readonly<Record<string, boolean>>
}

/** A key pair on a token that is open. */
export class TokenKey implements AsyncDisposable {
  readonly #client: HsmClient
  readonly #key: HsmKey

  private constructor(client: HsmClient, key: HsmKey) {
    this.#client = client
    this.#key = key
  }

  /** @throws AssayError `failed-precondition` when the token has no usable key of that label. */
  static async open(settings: TokenSettings, deps: CeremonyDeps): Promise<TokenKey> {
    return await opened(settings, deps, async (client) => {
      const key = client.keys.get(settings.label)
      if (key !== undefined) return new TokenKey(client, key)
      throw new AssayError(
        'failed-precondition',
        `cannot use key ${settings.label}: ${where(settings)} has no usable key pair of that label`,
        { reason: 'ceremony-key' },
      )
    })
  }

  /** Makes the pair. @throws AssayError `already-exists` when the token has anything of that label: it is left alone. */
  static async generate(
    settings: TokenSettings & { readonly type: KeyType },
    deps: CeremonyDeps,
  ): Promise<TokenKey> {
    return await opened(
      settings,
      deps,
      async (client) =>
        new TokenKey(client, await client.generateKey(settings.label, settings.type)),
    )
  }

  /** SubjectPublicKeyInfo, DER. */
  get publicKey(): Uint8Array {
    return new Uint8Array(this.#key.publicKey.export({ format: 'der', type: 'spki' }))
  }

  get facts(): TokenKeyFacts {
    const { label, id, attributes } = this.#key
    return { token: this.#client.token, label, id: id.toHex(), attributes }
  }

  /** A signature as X.509 has it: DER for ECDSA. It has been verified with the public key. */
  async sign(message: Uint8Array): Promise<Uint8Array> {
    const signature = await this.#client.sign(this.#key, message)
    const isEc = this.#key.type === 'ec-p256' || this.#key.type === 'ec-p384'
    return isEc ? rawToDerSignature(signature) : signature
  }

  /** Takes the pair off the token, for ever. @throws AssayError when it may still be there. */
  async destroy(): Promise<void> {
    // A token that went away finds nothing to destroy, and says that it is done.
    await this.#client.sign(this.#key, new Uint8Array(32))
    // Another ceremony may have made a key under the same label meanwhile: that one is not ours.
    await this.#client.destroyKey(this.#key.label, this.#key.id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]()
  }
}

/** A token for messages. */
export const where = ({ token_label, module }: TokenSettings): string =>
  `token "${token_label}" of ${module}`

async function opened(
  settings: TokenSettings,
  deps: CeremonyDeps,
  use: (client: HsmClient) => Promise<TokenKey>,
): Promise<TokenKey> {
  const { clock, random, monotonicMs } = deps
  const credential = credentialPath(`hsm-pin-${settings.token_label}`)
  const given = settings.pin_file ?? credential
  await using asked = given === undefined ? await deps.askPin(where(settings)) : undefined
  const pinFile = given ?? asked?.path
  if (pinFile === undefined) {
    throw new AssayError(
      'failed-precondition',
      `cannot open ${where(settings)}: there is no pin_file, systemd passes no credential hsm-pin-${settings.token_label}, and there is no terminal to ask for the PIN`,
      { reason: 'ceremony-pin' },
    )
  }
  const client = await openToken({
    signer: { command: ownSigner(), environment: signerEnvironment() },
    open: {
      module: settings.module,
      tokenLabel: settings.token_label,
      tokenSerial: settings.token_serial,
      pinFile,
      pinIsCredential: settings.pin_file === undefined && credential !== undefined,
      labelPrefix: settings.label,
      sessions: 1,
    },
    signLimitMs: 60_000,
    keyProbeInterval: Temporal.Duration.from({ hours: 24 }),
    clock,
    monotonicMs,
    random,
    log: silentLog,
  })
  try {
    return await use(client)
  } catch (error) {
    await client[Symbol.asyncDispose]()
    throw error
  }
}
